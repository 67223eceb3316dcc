"""The same post-processing with one number changed, for sweeps and ablations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from singleshot.errors import UserError
from singleshot.outputs import factors
from singleshot.postprocess.per_class import PerClassPostprocess
from singleshot.postprocess.per_level import PerLevelPostprocess
from singleshot.postprocess.postprocess import Postprocess

_NO_NMS = 2.0  # an IoU that no pair exceeds


def vary(postprocess: Postprocess, name: str, value: float | None) -> Postprocess:
    """The same post-processing with one number changed.

    `name`: the factor of an extra output, such as `iou_alpha` (None: the plain product), `threshold` (score), `nms`
    (IoU of greedy NMS, which replaces soft-NMS), `soft_nms` (IoU; None: greedy NMS), `vote` (spread of box voting;
    None: no voting), `candidates`, `candidates_of_image` (of all classes together; None: no such limit), `detections`.

    Raises:
        UserError: an unknown name; a value out of range; the factor of an output that the detector does not have;
            `soft_nms` or `candidates_of_image` if candidates are not taken per class; a number that your own
            post-processing does not have.
    """
    scores: Any = postprocess.scores
    if name in getattr(scores, "alphas", ()):
        return _with(postprocess, scores=scores.with_alpha(name, value))
    if name not in numbers():
        raise UserError(f"{name!r} is not a number of the post-processing: expected one of {', '.join(numbers())}")
    if name not in VARIED:
        output, factor = factors()[name]
        raise UserError(
            f"{name} needs a predicted {factor.title}, but this detector has no {factor.title} head: train one with "
            f"it, with --arguments.outputs '[{output}]', or outputs=['{output}'] in Python"
        )
    field, kind = VARIED[name]
    if name == "soft_nms" and not isinstance(postprocess, PerClassPostprocess):
        raise UserError(
            "soft_nms needs a detector that takes candidates of each class, such as ssd and refinedet; this one has "
            "greedy NMS only: vary nms instead"
        )
    if name == "candidates_of_image" and isinstance(postprocess, PerLevelPostprocess):
        raise UserError(
            "candidates_of_image needs a detector that takes candidates of each class, such as ssd and refinedet; this "
            "one takes candidates of each level of its pyramid: vary candidates instead"
        )
    if not hasattr(postprocess, field):
        raise UserError(
            f"{name} sets the field {field}, but {type(postprocess).__name__} has no such field: add it to the class, "
            "or vary another number"
        )
    if name in OPTIONAL and value is None:
        return _with(postprocess, **{field: None})
    if name == "vote" and value == 0:
        raise UserError("vote must be a number above 0 and at most 1, or none for no voting, got 0")
    if kind is int and (value is None or value % 1 != 0 or value < 1):
        raise UserError(f"{name} must be a whole number, 1 or more, got {value!r}")
    if kind is float and (value is None or not 0 <= value <= 1):
        raise UserError(f"{name} must be a number from 0 to 1, got {value!r}")
    if name == "nms" and isinstance(postprocess, PerClassPostprocess):
        postprocess = replace(postprocess, soft=None)
    return _with(postprocess, **{field: kind(value)})


def numbers() -> tuple[str, ...]:
    """The names that `vary` knows: the factors of all outputs, and the numbers in `VARIED`."""
    return (*factors(), *VARIED)


def unsuppressed(postprocess: Postprocess) -> Postprocess:
    """The same post-processing without NMS and voting: all candidates above the threshold stay unchanged."""
    postprocess = vary(postprocess, "vote", None) if hasattr(postprocess, "vote") else postprocess
    return _with(vary(postprocess, "nms", 1.0), iou=_NO_NMS)


VARIED: dict[str, tuple[str, type]] = {  # name -> (field, type of its value)
    "threshold": ("threshold", float),
    "nms": ("iou", float),
    "soft_nms": ("soft", float),
    "vote": ("vote", float),
    "candidates": ("candidates", int),
    "candidates_of_image": ("candidates_of_image", int),
    "detections": ("detections", int),
}


OPTIONAL = ("soft_nms", "vote", "candidates_of_image")  # None is allowed


def _with(postprocess: Postprocess, **changes: Any) -> Postprocess:
    return cast(Postprocess, replace(cast(Any, postprocess), **changes))
