"""What was found in one image: arrays, and tensors when they are asked for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from singleshot.errors import UserError
from singleshot.prediction import Prediction

CORNERS = [[0.0, 1.0, 20.0, 30.0], [5.0, 5.0, 9.0, 8.0]]


def made(kind: Any = np.array, **others: Any) -> Prediction:
    values = {"boxes": kind(CORNERS), "scores": kind([0.75, 0.5]), "labels": kind([1, 0]), **others}
    return Prediction(**values, class_names=("cat", "dog"), category_ids=(7, "x"), size=(40, 50))


def test_names_length_and_defaults() -> None:
    found = made()
    assert len(found) == 2
    assert found.names == ["dog", "cat"]
    assert found.path is None


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list], ids=["arrays", "tensors", "lists"])
def test_is_made_from_anything_and_gives_both(kind: Any) -> None:
    found = made(kind)
    assert found.boxes_array.dtype == found.scores_array.dtype == np.float32
    assert found.labels_array.dtype == np.int64
    assert found.boxes_array.tolist() == CORNERS
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    assert found.boxes.tolist() == CORNERS
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.labels.tolist() == [1, 0]
    assert found == made()


def test_half_precision_gradients_and_inference_mode_do_not_reach_the_prediction() -> None:
    with torch.inference_mode():
        found = made(boxes=torch.tensor(CORNERS), scores=torch.tensor([0.75, 0.5], dtype=torch.bfloat16))
        assert not found.boxes.is_inference()
    assert found.scores.tolist() == [0.75, 0.5]
    found.boxes.mul_(2)
    assert not made(boxes=torch.tensor(CORNERS, requires_grad=True)).boxes.requires_grad


def test_tensors_are_made_once_and_share_the_memory_of_the_arrays() -> None:
    found = made()
    assert found.boxes is found.boxes
    found.boxes[0, 0] = 3
    assert found.boxes_array[0, 0] == 3
    found.scores_array[1] = 0.25
    assert found.scores.tolist() == [0.75, 0.25]


def test_arrays_that_cannot_be_written_are_copied() -> None:
    given = np.array(CORNERS, np.float32)
    given.flags.writeable = False
    found = made(boxes=given)
    found.boxes.zero_()
    assert given.tolist() == CORNERS


@pytest.mark.parametrize("shape", [(0, 4), (0,)])
def test_nothing_found(shape: tuple[int, ...]) -> None:
    found = made(boxes=np.zeros(shape), scores=np.zeros(0), labels=np.zeros(0, np.int64))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.names == []
    assert "nothing" in repr(found)


@pytest.mark.parametrize(
    "wrong", [{"boxes": np.zeros((3, 4))}, {"boxes": np.zeros(8)}, {"scores": np.ones((2, 1))}, {"labels": [1]}]
)
def test_lengths_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"boxes \[N, 4\], scores \[N\] and labels \[N\], got"):
        made(**wrong)


def test_equality_and_hash() -> None:
    one, same = made(), made(torch.tensor)
    _ = one.boxes  # a tensor that was asked for changes nothing
    assert one == same
    assert hash(one) == hash(same)
    assert one != made(scores=[0.75, 0.4])
    assert one != dataclasses.replace(one, path="a.jpg")
    assert one != "a prediction"


def test_is_frozen_and_can_be_replaced() -> None:
    found = made()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.boxes = torch.zeros(2, 4)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.scores_array = np.zeros(2)  # type: ignore[misc]
    fewer = dataclasses.replace(found, boxes=found.boxes[:1], scores=found.scores[:1], labels=found.labels[:1])
    assert len(fewer) == 1
    assert fewer.names == ["dog"]
    with pytest.raises(AttributeError, match="no attribute 'box'"):
        _ = found.box  # type: ignore[attr-defined]


def test_pickle_and_copy_hold_the_arrays_alone() -> None:
    found = made()
    plain = pickle.dumps(found)
    _ = found.boxes, found.scores, found.labels
    assert pickle.dumps(found) == plain
    assert pickle.loads(plain) == found
    other = copy.deepcopy(found)
    other.boxes.zero_()
    assert found.boxes.tolist() == CORNERS
    assert copy.copy(found) == found
    assert copy.copy(found).boxes.data_ptr() == found.boxes.data_ptr()


def test_text_form_is_short() -> None:
    assert repr(made()) == "Prediction(path=None, size=(40, 50), found: dog 0.75, cat 0.50)"
    many = Prediction(np.zeros((9, 4)), np.ones(9), np.zeros(9), ("cat",), (1,), (4, 4), "a.jpg")
    assert repr(many).endswith("cat 1.00, 4 more)")


def test_needs_no_torch() -> None:
    """Made, drawn and written in a process that never loads PyTorch; the first tensor does."""
    code = """
import pickle, sys
import numpy as np
import singleshot as ss
from singleshot.inference.results import to_coco, to_json
found = ss.Prediction(np.array([[1, 2, 20, 30]]), [0.5], [0], ("cat",), (7,), (40, 50), "a.jpg")
assert ss.draw(np.zeros((40, 50, 3), np.uint8), found).any()
assert to_json([found])[0]["detections"][0]["box"] == [1, 2, 20, 30]
assert to_coco(found, "a")[0]["bbox"] == [1, 2, 19, 28]
assert (len(found), found.names, repr(found)[:10]) == (1, ["cat"], "Prediction")
assert pickle.loads(pickle.dumps(found)) == found
assert "torch" not in sys.modules, "before a tensor was asked for"
assert found.boxes.tolist() == [[1, 2, 20, 30]]
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
