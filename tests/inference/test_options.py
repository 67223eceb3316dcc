"""What is kept of the detections of a run."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from singleshot.errors import UserError
from singleshot.inference.options import LEAST, Choices, Options


def test_the_keywords_are_the_fields() -> None:
    assert list(Choices.__annotations__) == [field.name for field in fields(Options)]
    assert LEAST.keys() < Choices.__annotations__.keys()


def test_is_frozen_and_compares_by_value() -> None:
    options = Options(classes=["cat"])
    assert options == Options(classes="cat") == Options(classes=("cat",))
    assert options != Options()
    with pytest.raises(FrozenInstanceError):
        options.threshold = 0.5  # type: ignore[misc]


def test_labels_of_the_classes_that_are_named() -> None:
    assert Options().labels(("cat", "dog")) is None
    assert Options(classes=["dog", "cat"]).labels(("cat", "bird", "dog")) == {0, 2}
    with pytest.raises(UserError, match=r"no class 'Dog' \(did you mean 'dog'\?\); its classes are: cat, dog"):
        Options(classes=["Dog"]).labels(("cat", "dog"))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"threshold": -0.1}, "the threshold must be between 0 and 1, got -0.1"),
        ({"threshold": float("nan")}, "between 0 and 1, got nan"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"classes": []}, "the list of classes is empty; name at least one"),
    ],
)
def test_what_cannot_be_is_refused(choices, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Options(**choices)
