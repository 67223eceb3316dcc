"""What surrounds a network, as plain data: enough to prepare its input and to read its output, without its weights.

It is stored in every weights file and every exported model. Reading it does not need PyTorch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from singleshot.data.deep import DeepRange
from singleshot.errors import UserError, short
from singleshot.ops.fit import LongestSide, ShortSide, TorchvisionShortSide
from singleshot.preprocess.pixels import Pixels
from singleshot.preprocess.preprocess import Size
from singleshot.preprocess.rules import KeepAspect, Stretch
from singleshot.ranges import MOST_PIXELS, check_area

Rule = Stretch | KeepAspect

_RULES: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (Stretch, KeepAspect, ShortSide, TorchvisionShortSide, LongestSide, Pixels)
}
INPUTS, OUTPUTS, PRECISIONS = ("image", "pixels"), ("detections", "raw"), ("fp32", "bf16", "int8")
_WORDS = {"input": INPUTS, "outputs": OUTPUTS, "precision": PRECISIONS}
_FIELDS = ("class_names", "category_ids", "preprocess", "postprocess", "input_size", "batch")


@dataclass(frozen=True)
class Spec:
    """What surrounds a network: its classes, pre-processing, post-processing, and the input sizes and batches it takes.

    `preprocess` or `postprocess` is None if a user's own detector has a kind that this package does not know.
    `postprocess` holds plain data: the kind, its numbers, the variances of the coder, how logits become probabilities,
    and the factors of the score (`singleshot.postprocess.stored` writes and reads it).

    Raises `UserError` for class names and ids of different lengths, an impossible batch, and words that are not known.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]  # the ids of the classes in the training data
    preprocess: Rule | None
    postprocess: Mapping[str, Any] | None
    input_size: Size | None = None  # fixed (height, width) of the graph; None: any size that `preprocess` gives
    batch: tuple[int, int | None] = field(default=(1, None))  # fewest and most images of a batch; None: no limit
    deep_range: DeepRange | None = None  # how grey images of more than 8 bits are read; None: the range of their type
    input: str = "pixels"  # "image": uint8 RGB [B, H, W, 3]; "pixels": float32 [B, 3, H, W], normalised
    outputs: str = "detections"  # "raw": what the network alone predicts
    precision: str = "fp32"  # of the network in this file: one of `PRECISIONS`

    def __post_init__(self) -> None:
        for name, allowed in _WORDS.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {', '.join(allowed)}, got {short(getattr(self, name))}")
        if len(self.class_names) != len(self.category_ids):
            raise UserError(
                f"{len(self.class_names)} class names but {len(self.category_ids)} category ids; give one id per class"
            )
        least, most = self.batch
        if least < 1 or (most is not None and most < least):
            raise UserError(f"batch must be the fewest and the most images, such as (1, 8), got {self.batch}")

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; `Spec.from_json` reads it."""
        return {
            "class_names": list(self.class_names),
            "category_ids": list(self.category_ids),
            "preprocess": None if self.preprocess is None else _plain(self.preprocess),
            "postprocess": None if self.postprocess is None else dict(self.postprocess),
            "input_size": None if self.input_size is None else list(self.input_size),
            "batch": list(self.batch),
            "deep_range": None if self.deep_range is None else self.deep_range.to_json(),
            **{name: getattr(self, name) for name in _WORDS},
        }

    @classmethod
    def from_json(cls, data: Any) -> Spec:
        """Read what `to_json` wrote. Raises a `UserError` that names what is missing or of the wrong type."""
        if not isinstance(data, Mapping) or not data.keys() >= set(_FIELDS):
            lacking = ", ".join(sorted(set(_FIELDS) - set(data))) if isinstance(data, Mapping) else "all of it"
            raise UserError(f"the spec of the model is incomplete: {lacking} is missing; export the model again")
        try:
            size = data["input_size"]
            least, most = data["batch"]
            return cls(
                class_names=tuple(_text(name) for name in data["class_names"]),
                category_ids=tuple(_id(one) for one in data["category_ids"]),
                preprocess=None if data["preprocess"] is None else _rule(data["preprocess"]),
                postprocess=_mapping(data["postprocess"]),
                input_size=None if size is None else _check_size(size),
                batch=(int(least), None if most is None else int(most)),
                deep_range=DeepRange.of(data.get("deep_range")),  # files of before do not have this and the next
                **{name: data[name] for name in _WORDS if name in data},
            )
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise UserError(f"the spec of the model cannot be read: {error}; export the model again") from error

    def to_text(self) -> str:
        """One line of JSON, for metadata."""
        return json.dumps(self.to_json())


def _plain(value: Any) -> Any:
    if type(value).__name__ in _RULES:
        inner = {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        return {"type": type(value).__name__, **inner}
    return list(value) if isinstance(value, tuple) else value


def _rule(data: Any) -> Rule:
    found = _built(data)
    if not isinstance(found, Stretch | KeepAspect):
        raise UserError(f"the preparation of images (preprocess) must be a Stretch or a KeepAspect, got {short(data)}")
    if not isinstance(found.pixels, Pixels):
        raise UserError(f"the normalisation of pixels must be a Pixels, got {short(found.pixels)}")
    _check_size(found.size)
    return found


def _check_size(size: Any) -> Size:
    """(height, width), if a network may have such an input: before memory is taken for one."""
    whole = isinstance(size, tuple | list) and all(isinstance(n, int) and not isinstance(n, bool) for n in size)
    if not whole or len(size) != 2 or not all(1 <= n <= MOST_PIXELS for n in size):
        raise UserError(f"the input must be (height, width), 1 to {MOST_PIXELS} pixels each, got {short(size)}")
    check_area(size)
    return size[0], size[1]


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"the post-processing must be a mapping or null, got {short(value)}")
    return value


def _id(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"a category id must be a whole number or text, got {short(value)}")
    return value


def _built(data: Any) -> Any:
    """A rule from plain data. Names are looked up only in the table of rules."""
    if isinstance(data, list):
        return tuple(_built(one) for one in data)
    if not isinstance(data, Mapping):
        return data
    name = data.get("type")
    if name not in _RULES:
        raise UserError(f"{name!r} is not a rule for resizing images; expected one of {', '.join(_RULES)}")
    return _RULES[name](**{key: _built(value) for key, value in data.items() if key != "type"})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a class name must be text, got {value!r}")
    return value


def known_rule(preprocess: object) -> Rule | None:
    """The pre-processing of a detector if it can be stored; None for a user's own kind."""
    if not isinstance(preprocess, Stretch | KeepAspect) or type(preprocess).__name__ not in _RULES:
        return None
    fit = getattr(preprocess, "fit", None)
    return preprocess if fit is None or type(fit).__name__ in _RULES else None
