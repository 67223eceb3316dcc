"""Arguments that several builders take: from what a user may write to the parts of a detector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from singleshot.backbones import VGG16, Backbone
from singleshot.detectors.parts import restore_argument
from singleshot.errors import UserError, did_you_mean, short
from singleshot.losses.classification import ClassificationLoss, SoftmaxLoss
from singleshot.losses.criterion import LossTerm
from singleshot.losses.regression import L1, GIoULoss, SmoothL1
from singleshot.necks import ExtraLevels
from singleshot.outputs import OUTPUTS
from singleshot.outputs.iou import IoUHead
from singleshot.outputs.output import ExtraOutput, OutputKind
from singleshot.postprocess import PerClassPostprocess
from singleshot.preprocess import Pixels
from singleshot.ranges import MOST_CLASSES, MOST_PIXELS

_NEGATIVES = 3.0  # hard negatives for each positive (SSD section 2.2, RefineDet section 4)


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


def mining_loss(
    given: ClassificationLoss | Mapping[str, Any] | None, negatives: float, *, elsewhere: bool = False
) -> ClassificationLoss:
    """The classification loss of SSD and RefineDet: as given, or softmax with `negatives` hard ones for each positive.

    `elsewhere`: another part uses `negatives` too. If not, `negatives` is refused together with a given loss.
    """
    weights(negatives=negatives)
    if given is not None and negatives != _NEGATIVES and not elsewhere:
        raise UserError(
            f"negatives={negatives!r} is the default loss's number of hard negatives for each positive, but "
            "classification replaces that loss: give the new loss its own number, such as "
            f"{{'type': 'SoftmaxLoss', 'ratio': {negatives!r}}}, or leave negatives out"
        )
    return classification_loss(given, SoftmaxLoss(ratio=negatives))


Outputs = Sequence[str | Mapping[str, Any] | OutputKind]
"""Extra outputs as a builder takes them: names, plain data {"type": name, ...}, or objects with the choices."""


def extra_outputs(outputs: Outputs, iou_head: bool | IoUHead | Mapping[str, Any]) -> tuple[ExtraOutput, ...]:
    """The extra outputs for head, criterion and scores, from two arguments of a builder.

    `iou_head`: true (the paper's), false (none), or its choices, also as plain data {"alpha": 0.5, ...}. It is the same
    as an `IoUHead` among the `outputs`.
    """
    kinds = [_output_kind(one) for one in outputs]
    if isinstance(iou_head, Mapping):
        kinds.insert(0, restore_argument({**iou_head, "type": "IoUHead"}))
    elif iou_head:
        kinds.insert(0, IoUHead() if iou_head is True else iou_head)
    found = tuple(kind.output() for kind in kinds)
    names = [output.name for output in found]
    if len(set(names)) < len(names):
        raise UserError(f"outputs: expected each output once, got {', '.join(names)} (iou_head counts as one)")
    return found


def _output_kind(given: str | Mapping[str, Any] | OutputKind) -> OutputKind:
    plain = {"type": given} if isinstance(given, str) else given
    if not isinstance(plain, Mapping):
        kind = plain
    elif (name := plain.get("type")) in OUTPUTS:
        kind = restore_argument(dict(plain))
    else:
        hint = did_you_mean(str(name), OUTPUTS, otherwise=f"expected one of {', '.join(OUTPUTS)}")
        raise UserError(f"outputs: unknown output {name!r}; {hint}")
    if not callable(getattr(kind, "output", None)):
        raise UserError(
            f"outputs: expected names such as Centreness, or {{'type': 'IoUHead', 'alpha': 0.4}}, got {given!r}"
        )
    return kind


def two_sides(image_size: int | Sequence[int], smallest: int = 32) -> tuple[int, int]:
    """(height, width) from one number or two."""
    sides = (image_size, image_size) if not isinstance(image_size, Sequence) else tuple(image_size)
    if len(sides) != 2:
        raise UserError(f"image_size must be one whole number or (height, width), got {image_size!r}")
    height, width = sides
    if min(height, width) < smallest:
        raise UserError(f"image_size must be at least {smallest} pixels on each side, got {height}x{width}")
    return height, width


def pixel_values(given: str | Sequence[Any] | Pixels | None, trunk: Backbone) -> Pixels:
    """The pixel values for a backbone: as given, or those that its weights expect.

    If both are there and differ, a warning says so: the given ones count, but such weights see other colours.
    """
    own = Pixels.named(trunk.pixels)
    if given is None:
        return own
    chosen = Pixels.named(given)
    if trunk.pixels_told and chosen != own:
        warnings.warn(
            f"pixels are {chosen.choice()}, but the backbone's weights expect {own.choice()}: leave out the argument "
            "pixels, unless you know better",
            stacklevel=3,
        )
    return chosen


_MOST = 10**6  # of every number of a builder, except these:
_MOST_OF = {
    **dict.fromkeys(("image_size", "max_size", "jitter"), MOST_PIXELS),
    "channels": 2**14,
    "num_classes": MOST_CLASSES,
    "tower_depth": 100,
    "octaves": 100,
}
_MOST_ITEMS = 1_000  # of every list, except the classes
_MOST_LETTERS = 10_000  # of every text


def not_too_large(given: Mapping[str, Any]) -> None:
    """Refuse numbers, lists and texts that no detector can have, also within others; ids of classes are any numbers.

    A larger one would end in an error of the library deep within the network, fill the memory, or take very long.
    """
    for name, value in given.items():
        if name not in ("class_names", "category_ids"):
            _refuse_large(name, value, _MOST_OF.get(name, _MOST))
        elif isinstance(value, Sequence) and len(value) > MOST_CLASSES:
            raise UserError(f"{name} has {len(value):,} entries; expected at most {MOST_CLASSES:,}")


def _refuse_large(name: str, value: Any, most: int) -> None:
    if isinstance(value, int | float) and abs(value) > most:
        raise UserError(f"{name} is {short(value)}; expected at most {most:,}")
    if isinstance(value, str) and len(value) > _MOST_LETTERS:
        raise UserError(f"{name} is a text of {len(value):,} letters; expected at most {_MOST_LETTERS:,}")
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str) and len(value) > _MOST_ITEMS:
        raise UserError(f"{name} has {len(value):,} entries; expected at most {_MOST_ITEMS:,}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_large(f"{name}.{key}", item, most)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_large(name, item, most)


def at_least(smallest: float, **numbers: float | None) -> None:
    """Refuse numbers below `smallest`, given by name. None is allowed."""
    for name, value in numbers.items():
        if value is not None and not value >= smallest:
            raise UserError(f"{name} must be at least {smallest}, got {value!r}")


def fractions(**numbers: float | None) -> None:
    """Refuse numbers outside of 0 to 1, given by name. None is allowed."""
    for name, value in numbers.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name} must be a number from 0 to 1, got {value!r}")


def weights(**numbers: float) -> None:
    """Refuse numbers that are not finite or are below 0, given by name."""
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{name} must be a number of at least 0, got {value!r}")


def overlaps(**pairs: float | Sequence[float]) -> tuple[float, float]:
    """The two IoU thresholds: positive from the first on, negative below the second. Given by name, as one or two."""
    ((name, given),) = pairs.items()
    numbers = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given), float(given))
    if len(numbers) != 2 or not 0 < numbers[1] <= numbers[0] <= 1:
        shown = list(given) if isinstance(given, Sequence) else given
        raise UserError(
            f"{name} must be two overlaps such as [0.7, 0.3], above 0 and at most 1, the second not larger than the "
            f"first, or one number for both, got {shown}"
        )
    return numbers[0], numbers[1]


def ranking(
    *,
    threshold: float,
    nms: float,
    candidates: int | None,
    detections: int,
    vote: float | None,
    candidates_of_image: int | None = None,
    soft_nms: float | None = None,
) -> None:
    """Refuse post-processing numbers that are out of range or contradict each other."""
    fractions(threshold=threshold, nms=nms, soft_nms=soft_nms)
    at_least(1, candidates=candidates, candidates_of_image=candidates_of_image, detections=detections)
    vote_spread(vote)
    if soft_nms is not None and nms != PerClassPostprocess.iou:
        raise UserError(
            f"nms={nms!r} belongs to greedy NMS, which soft_nms={soft_nms!r} replaces: choose one of them (soft_nms "
            "null is greedy NMS)"
        )


def vote_spread(vote: float | None) -> None:
    """Refuse a spread of box voting that is not above 0 and at most 1. None means no voting."""
    if vote is not None and not 0 < vote <= 1:
        raise UserError(f"vote must be a number above 0 and at most 1, or none for no voting, got {vote!r}")


def level_sizes(given: Sequence[float] | None, strides: Sequence[float]) -> tuple[float, ...]:
    """One anchor size for each level: as given, or 4 x stride (RetinaNet and RefineDet)."""
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


def drop_unused_scales(trunk: Backbone, used: Sequence[int]) -> None:
    """Remove the L2 scales of maps that no head reads: a parameter without a gradient stops distributed training."""
    if isinstance(trunk, VGG16):
        for k, name in enumerate(trunk.sources):
            if k not in used and name in trunk.scales:
                del trunk.scales[name]


def last_map(trunk: Backbone) -> ExtraLevels:
    """The backbone, returning only its last map."""
    last = len(trunk.channels) - 1
    drop_unused_scales(trunk, [last])
    return ExtraLevels(trunk, (), outputs=[last])
