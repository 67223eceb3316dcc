"""A post-processing as plain data, and back. `Spec` holds this data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy
from singleshot.outputs.output import Factor
from singleshot.postprocess.per_class import PerClassPostprocess
from singleshot.postprocess.per_level import PerLevelPostprocess
from singleshot.postprocess.postprocess import Postprocess
from singleshot.postprocess.scores import ClassScores

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (PerClassPostprocess, PerLevelPostprocess)}
_PARTS = ("coder", "scores")  # all other fields are numbers
_LATER = {"clip_first": False}  # fields that older files do not have, and what they mean; left out where they say it
_LINKS: dict[str, Any] = {"softmax": SoftmaxLoss, "sigmoid": BalancedCrossEntropy}
"""How logits become probabilities: for each link, the simplest loss that has it."""


@dataclass(frozen=True)
class StoredFactor:
    """What the score needs of an extra output: the key of its logits, and how it counts."""

    key: str
    factor: Factor | None


def store(postprocess: object) -> dict[str, Any] | None:
    """Plain data of a post-processing; None if it has parts of the user's own."""
    kind = type(postprocess).__name__
    if _KINDS.get(kind) is not type(postprocess):
        return None
    scores, coder = getattr(postprocess, "scores", None), getattr(postprocess, "coder", None)
    if type(scores) is not ClassScores or type(coder) is not DeltaCoder:
        return None
    link = _link(scores.classification)
    if link is None:
        return None
    names = [one.name for one in dataclasses.fields(_KINDS[kind]) if one.name not in _PARTS]
    numbers = {name: getattr(postprocess, name) for name in names}
    return {
        "type": kind,
        **{name: value for name, value in numbers.items() if name not in _LATER or value != _LATER[name]},
        "variances": list(coder.variances),
        "link": link,
        "key": scores.key,
        "factors": [
            {"key": output.key, **dataclasses.asdict(output.factor)}
            for output in scores.outputs
            if output.factor is not None
        ],
    }


def restore(data: Mapping[str, Any]) -> Postprocess:
    """The post-processing from plain data. Raises `UserError` naming what it cannot read."""
    try:
        kind, link = _KINDS[data["type"]], _LINKS[data["link"]]
        names = [one.name for one in dataclasses.fields(kind) if one.name not in _PARTS]
        numbers = {name: data[name] if name in data or name not in _LATER else _LATER[name] for name in names}
        first, second = (float(number) for number in data["variances"])
        factors = [StoredFactor(one["key"], Factor(one["name"], one["alpha"], one["title"])) for one in data["factors"]]
        scores = ClassScores(link(), tuple(factors), data["key"])
        made: Postprocess = kind(DeltaCoder((first, second)), scores, **numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the stored post-processing cannot be read ({error}); export the model again") from error
    return made


def _link(classification: object) -> str | None:
    # Compare the method itself: a user's own loss may inherit from a sigmoid loss but give other probabilities.
    method = getattr(type(classification), "probabilities", None)
    return next((name for name, kind in _LINKS.items() if kind.probabilities is method), None)
