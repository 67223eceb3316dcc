"""Parts as plain data and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from singleshot.detectors.parts import PARTS, find_part, restore_argument, store_argument
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.preprocess import Pixels


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        0.25,
        "text",
        [1, [2.5, "a"], None],
        {"width": 0.5, "sources": ["conv4_3"]},
        SoftmaxLoss(ratio=2.0),
        Pixels((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr"),
        {"inner": SoftmaxLoss()},
        [Pixels()],
    ],
)
def test_there_and_back_through_json(value: object) -> None:
    assert restore_argument(json.loads(json.dumps(store_argument(value)))) == value


def test_form_of_a_part() -> None:
    assert store_argument(SoftmaxLoss()) == {"type": "SoftmaxLoss", "ratio": 3.0, "key": "class_logits"}


def test_tuples_become_lists_and_paths_text() -> None:
    assert store_argument((1, (2, 3))) == [1, [2, 3]]
    assert store_argument(Path("a") / "b") == str(Path("a") / "b")


@dataclass(frozen=True)
class Foreign:
    number: int = 1


def test_what_cannot_be_stored_is_named() -> None:
    for value in (Foreign(), object(), {1, 2}, [Foreign()], {"a": Foreign()}, SoftmaxLoss):
        with pytest.raises(UserError, match="cannot store"):
            store_argument(value)


def test_a_class_of_the_same_name_is_another_class() -> None:
    @dataclass(frozen=True)
    class SoftmaxLoss:
        ratio: float = 3.0

    with pytest.raises(UserError, match="cannot store"):
        store_argument(SoftmaxLoss())


@pytest.mark.parametrize(
    "name", ["Foreign", "Path", "os.system", "", None, 3, ["SoftmaxLoss"], {"type": "SoftmaxLoss"}]
)
def test_names_outside_of_the_table(name: object) -> None:
    with pytest.raises(UserError, match=r"unknown part .*: expected one of .*SoftmaxLoss"):
        restore_argument({"type": name})


def test_unknown_fields_of_a_part() -> None:
    with pytest.raises(UserError, match="part SoftmaxLoss: .*colour"):
        restore_argument({"type": "SoftmaxLoss", "colour": 1})


def test_the_table_holds_only_frozen_dataclasses_of_this_package() -> None:
    for name in PARTS:
        part = find_part(name)
        assert part.__name__ == name
        assert part.__module__.startswith("singleshot.")
        assert part.__dataclass_params__.frozen
