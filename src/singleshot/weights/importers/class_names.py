"""The classes of the data sets that released weights were trained on, in the order of those weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Pascal VOC's 20 classes."""

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes."""

_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED)
"""COCO's ids of its 80 classes."""


def named_by_id(ids: Sequence[int]) -> list[str]:
    """COCO's names of ids from 1 to 90; "unused N" for an id that COCO does not use."""
    names = dict(zip(COCO_IDS, COCO, strict=True))
    return [names.get(number, f"unused {number}") for number in ids]


def after_background(outputs: int) -> dict[str, Any]:
    """The builder's arguments for classes after a background: their names are known for 21 and 81 outputs."""
    told: dict[str, Any] = {"num_classes": outputs - 1}
    if outputs == len(VOC) + 1:
        return {**told, "class_names": list(VOC)}
    if outputs == len(COCO) + 1:
        return {**told, "class_names": list(COCO), "category_ids": list(COCO_IDS)}
    return told
