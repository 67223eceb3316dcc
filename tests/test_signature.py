"""singleshot.signature: a builder's arguments against its signature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from singleshot.detectors import create
from singleshot.errors import UserError
from singleshot.losses.focal import FocalLoss
from singleshot.signature import bound, check_types

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


def build(
    *,
    whole: int = 1,
    number: float | None = None,
    switch: bool = False,
    name: str = "",
    choice: Literal["a", "b"] | None = None,
    many: Sequence[float] = (),
    few: Sequence[int] | int = 0,
    table: Mapping[str, Any] | None = None,
    path: str | Path = "",
    open_to_all: Any = None,
) -> None: ...


@pytest.mark.parametrize(
    "given",
    [
        {"whole": 3, "number": 3, "switch": True, "name": "x", "choice": "b", "many": (1, 2.5), "few": [1]},
        {"number": None, "choice": None, "table": {"a": 1}, "path": Path("x"), "open_to_all": object(), "few": 4},
        {"many": []},
    ],
)
def test_right_types(given: dict[str, Any]) -> None:
    check_types(build, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": 2.5}, "build: whole must be a whole number, got 2.5"),
        ({"whole": True}, "whole must be a whole number, got True"),
        ({"number": "abc"}, "number must be a number or null, got 'abc'"),
        ({"number": False}, "number must be a number or null, got False"),
        ({"switch": 1}, "switch must be true or false, got 1"),
        ({"switch": "no"}, "switch must be true or false, got 'no'"),
        ({"name": 3}, "name must be text, got 3"),
        ({"choice": "c"}, "choice must be one of a, b or null, got 'c'"),
        ({"many": 3}, "many must be a list of numbers, got 3"),
        ({"many": "12"}, "many must be a list of numbers, got '12'"),
        ({"many": [1, "x"]}, r"many must be a list of numbers, got \[1, 'x'\]"),
        ({"few": [0.5]}, r"few must be a list of whole numbers or a whole number, got \[0.5\]"),
        ({"table": [1]}, r"table must be a mapping or null, got \[1\]"),
    ],
)
def test_wrong_types(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_types(build, given)


def test_names_are_checked_and_the_nearest_told() -> None:
    with pytest.raises(UserError, match="build has no argument 'chioce'; did you mean choice?"):
        bound(build, chioce="a")
    with pytest.raises(UserError, match="build has no argument 'zzz'; it takes whole, number, "):
        bound(build, zzz=1)

    def needy(*, a: int, **more: int) -> None: ...

    with pytest.raises(UserError, match="needy: missing a required argument: 'a'"):
        bound(needy)
    assert bound(needy, a=1, b=2) == {"a": 1, "b": 2}


def test_types_that_only_a_checker_knows_are_left_to_the_builder() -> None:
    def strange(part: Unknown, number: int = 0) -> None: ...

    check_types(strange, {"part": 1, "number": "x"})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("refinedet", {"theta": "abc"}, "refinedet: theta must be a number, got 'abc'"),
        ("refinedet", {"theta": 0}, "theta: expected a probability of background, above 0"),
        ("refinedet", {"arm_iou": 0.5}, "arm_iou must be a list of numbers, got 0.5"),
        ("refinedet", {"arm_iou": [0.3, 0.7]}, "the second not larger"),
        ("refinedet", {"channels": 0}, "channels must be at least 1, got 0"),
        ("refinedet", {"anchor_sizes": 3}, "anchor_sizes must be a list of numbers or null, got 3"),
        ("refinedet", {"anchor_sizes": [8, 16, 32, 0]}, "anchor_sizes must be 4 sides in pixels, one above 0"),
        ("refinedet", {"anchor_sizes": [8, 16]}, "anchor_sizes must be 4 sides in pixels"),
        ("refinedet", {"soft_nms": "abc"}, "soft_nms must be a number or null"),
        ("refinedet", {"soft_nms": 2}, "soft_nms must be a number from 0 to 1, got 2"),
        ("refinedet", {"vote": 0}, "vote must be a number above 0 and at most 1, or none for no voting, got 0"),
        ("retinanet", {"vote": 1.5}, "vote must be a number above 0 and at most 1, or none for no voting, got 1.5"),
        ("ssd", {"vote": math.nan}, "vote must be a number above 0 and at most 1, or none for no voting, got nan"),
        ("refinedet", {"threshold": 7}, "threshold must be a number from 0 to 1, got 7"),
        ("refinedet", {"candidates": 0}, "candidates must be at least 1, got 0"),
        ("refinedet", {"detections": 2.5}, "detections must be a whole number, got 2.5"),
        ("refinedet", {"cascade": "maybe"}, "cascade must be true or false, got 'maybe'"),
        ("refinedet", {"cascade": False, "theta": 0.5}, "belong to the first module, which cascade=False leaves out"),
        ("refinedet", {"cascade": False, "arm_iou": [0.7, 0.3]}, "belong to the first module"),
        ("refinedet", {"neck": "bifpn"}, "neck must be one of tcb, fpn, none, got 'bifpn'"),
        ("refinedet", {"attention": "cbam"}, "attention must be one of se or null, got 'cbam'"),
        ("refinedet", {"head_blocks": 1}, "head_blocks must be true or false or null, got 1"),
        ("refinedet", {"thetta": 1}, "refinedet has no argument 'thetta'; did you mean theta?"),
        ("iou_retinanet", {"tower_dept": 1}, "retinanet has no argument 'tower_dept'; did you mean tower_depth?"),
        ("retinanet", {"jitter": 640}, "jitter must be a list of whole numbers or null, got 640"),
        ("retinanet", {"resize": "crop"}, "resize must be one of short, longest, stretch, torchvision or null"),
        ("ssd", {"image_size": "large"}, "image_size must be a whole number or a list of whole numbers, got 'large'"),
        ("ssd", {"classification": 3}, "classification must be a classification loss such as"),
        ("ssd", {"class_names": "cat"}, "class_names must be a list or null, got 'cat'"),
    ],
)
def test_the_builders(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(name, **{"num_classes": 2, "backbone": "mobilenetv2", **given})


def test_what_fits_is_taken(tmp_path: Path) -> None:
    given = {"image_size": [64, 64], "classification": FocalLoss(), "iou_head": {"alpha": 0.4}, "channels": 8}
    detector = create("refinedet", num_classes=2, backbone="mobilenetv2", **given)
    assert detector.image_size == (64, 64)
    with pytest.raises(UserError, match=r"none\.pth"):
        create("ssd", num_classes=2, backbone_weights=tmp_path / "none.pth")
