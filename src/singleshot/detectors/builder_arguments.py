"""Arguments that several builders take, from what a user may write to the parts that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from singleshot.detectors.iou_head import IoUHead
from singleshot.detectors.parts import restore_argument
from singleshot.errors import UserError
from singleshot.losses.classification import ClassificationLoss
from singleshot.losses.criterion import LossTerm
from singleshot.losses.quality import IoUQuality
from singleshot.losses.regression import L1, GIoULoss, SmoothL1
from singleshot.postprocess import ClassScores, IoUAwareScores, Scores


def classification_loss(
    given: ClassificationLoss | Mapping[str, Any] | None, default: ClassificationLoss
) -> ClassificationLoss:
    """A classification loss, its plain data {"type": name, ...}, or None for the default."""
    if given is None:
        return default
    loss = restore_argument(dict(given)) if isinstance(given, Mapping) else given
    if not hasattr(loss, "num_logits"):
        raise UserError(
            "classification must be a classification loss such as FocalLoss(), or {'type': 'FocalLoss', ...}, "
            f"got {given!r}"
        )
    return loss


def iou_head(given: bool | IoUHead | Mapping[str, Any]) -> IoUHead | None:
    """True for the paper's IoU head, False for none, or its choices, also as plain data {"alpha": 0.5, ...}."""
    if isinstance(given, bool):
        return IoUHead() if given else None
    head = restore_argument({"type": "IoUHead", **given}) if isinstance(given, Mapping) else given
    if not isinstance(head, IoUHead):
        raise UserError(f"iou_head must be true, false, or choices such as {{'alpha': 0.5}}, got {given!r}")
    return head


def two_sides(image_size: int | Sequence[int], smallest: int = 32) -> tuple[int, int]:
    """(height, width) from one number or two."""
    sides = (image_size, image_size) if not isinstance(image_size, Sequence) else tuple(image_size)
    if len(sides) != 2:
        raise UserError(f"image_size must be one whole number or (height, width), got {image_size!r}")
    height, width = sides
    if min(height, width) < smallest:
        raise UserError(f"image_size must be at least {smallest} pixels on each side, got {height}x{width}")
    return height, width


def at_least(smallest: float, **numbers: float | None) -> None:
    """Refuse numbers below `smallest`, by name; None is none."""
    for name, value in numbers.items():
        if value is not None and not value >= smallest:
            raise UserError(f"{name} must be at least {smallest}, got {value!r}")


def fractions(**numbers: float | None) -> None:
    """Refuse numbers that are not from 0 to 1, by name; None is none."""
    for name, value in numbers.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} must be a number from 0 to 1, got {value!r}")


def vote_spread(vote: float | None) -> None:
    """Refuse a spread of box voting that is not above 0 and at most 1; None is no voting."""
    if vote is not None and not 0 < vote <= 1:
        raise UserError(f"vote must be a number above 0 and at most 1, or none for no voting, got {vote!r}")


def level_sizes(given: Sequence[float] | None, strides: Sequence[float]) -> tuple[float, ...]:
    """One anchor size for each level: as given, or 4 x stride (both RetinaNet's and RefineDet's)."""
    sizes = tuple(given) if given is not None else tuple(4.0 * stride for stride in strides)
    if len(sizes) != len(strides) or not all(side > 0 for side in sizes):
        raise UserError(
            f"anchor_sizes must be {len(strides)} sides in pixels, one above 0 for each level, got {list(sizes)}"
        )
    return sizes


BoxLoss = Literal["smooth_l1", "l1", "giou"]


def box_loss(name: BoxLoss, beta: float) -> LossTerm:
    """The loss of a box, by name; `beta` is smooth L1's."""
    at_least(0, beta=beta)
    losses: dict[str, LossTerm] = {"smooth_l1": SmoothL1(beta), "l1": L1(), "giou": GIoULoss()}
    return losses[name]


def iou_parts(
    given: bool | IoUHead | Mapping[str, Any], classification: ClassificationLoss
) -> tuple[dict[str, int], dict[str, LossTerm], Scores]:
    """What an IoU head adds to the box outputs and to the loss, and the score: of the class alone without one."""
    iou = iou_head(given)
    if iou is None:
        return {}, {}, ClassScores(classification)
    term = IoUQuality(iou.loss, iou.detach)
    return {"iou_logits": 1}, {"iou": term}, IoUAwareScores(classification, iou.alpha)
