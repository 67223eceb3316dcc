"""What importers of Caffe's files share: what a net says about itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from singleshot.errors import UserError
from singleshot.source import Source

_MEAN = (104.0, 117.0, 123.0)  # blue, green, red: `caffe_bgr`
_CENTER_SIZE = 2  # of Caffe's enumeration of box codes
_VARIANCES = (0.1, 0.1, 0.2, 0.2)
_UNSAID = {"stride": [1], "dilation": [1], "pad": [0]}  # of a convolution, where the file is silent
_SIDES = re.compile(r"(?<!\d)(\d{3,4})x(\d{3,4})(?!\d)")


def layers(source: Source) -> Mapping[str, Mapping[str, Any]]:
    """Name of a layer -> its type and settings; empty if the file has none (a state dict with Caffe's names)."""
    found = source.notes.get("layers")
    return found if isinstance(found, Mapping) else {}


def outputs_of(source: Source, levels: Sequence[str], boxes: Sequence[int]) -> int:
    """Classes with the background, from the layers of predictions; `boxes`: default boxes in a cell of each level.

    Raises:
        UserError: the layers have other numbers of boxes, or not the same number of classes.
    """
    found = [_rows(source, f"{level}_mbox_loc") / 4 for level in levels]
    if found != list(boxes):
        shown = [int(number) if number.is_integer() else number for number in found]
        raise UserError(f"the levels {', '.join(levels)} have {shown} boxes in a cell, expected {list(boxes)}")
    numbers = {_rows(source, f"{level}_mbox_conf") / count for level, count in zip(levels, boxes, strict=True)}
    number = numbers.pop()
    if numbers or number != int(number) or number < 2:
        raise UserError("the layers ..._mbox_conf have different numbers of classes; expected the same on each level")
    return int(number)


def _rows(source: Source, layer: str) -> int:
    shape = source.shapes.get(f"{layer}.weight")
    if not shape:
        raise UserError(f"no weights for the layer {layer}")
    return shape[0]


def image_size(source: Source) -> tuple[int, int] | None:
    """(height, width) of the input, from the data layer, the input, or the net's name; None if nothing is said."""
    for layer in layers(source).values():
        resize = layer.get("transform_param", {}).get("resize_param", {})
        if resize.get("height") and resize.get("width"):
            return resize["height"], resize["width"]
        for shape in layer.get("input_param", {}).get("shape", []):
            if len(shape.get("dim", [])) == 4:
                return shape["dim"][2], shape["dim"][3]
    net = source.notes.get("net")
    net = net if isinstance(net, Mapping) else {}
    for dims in (net.get("input_dim", []), *(shape.get("dim", []) for shape in net.get("input_shape", []))):
        if len(dims) == 4:
            return dims[2], dims[3]
    found = _SIDES.search(str(net.get("name", "")))
    return (int(found[1]), int(found[2])) if found else None


def pixels(source: Source) -> Any:
    """The argument `pixels`: BGR from 0 to 255 minus the authors' means, unless the data layer says other numbers."""
    for layer in layers(source).values():
        said = layer.get("transform_param", {})
        mean, scale = said.get("mean_value", []), said.get("scale", 1.0)
        if len(mean) == 1:
            mean = mean * 3
        if len(mean) == 3 and (tuple(mean) != _MEAN or scale != 1):
            if not scale > 0:
                raise UserError(f"the net multiplies its pixels by {scale}; expected a number above 0")
            return [[value / 255 for value in reversed(mean)], [1 / (255 * scale)] * 3, "bgr"]
    return "caffe_bgr"


@dataclass(frozen=True)
class Priors:
    """The settings of a PriorBox layer."""

    layer: str
    smallest: int
    largest: int | None
    ratios: tuple[float, ...]
    step: float | None
    clip: bool


def priors(source: Source, levels: Sequence[str]) -> list[Priors] | None:
    """The default boxes of each level; None if the file says nothing about them.

    Caffe's layer cuts its sizes to whole pixels, so that is what the weights have learnt.

    Raises:
        UserError: a setting that is not possible here.
    """
    known = layers(source)
    names = [f"{level}_mbox_priorbox" for level in levels]
    if not any("prior_box_param" in known.get(name, {}) for name in names):
        return None
    return [_prior(name, known.get(name, {}).get("prior_box_param", {})) for name in names]


def _prior(name: str, said: Mapping[str, Any]) -> Priors:
    smallest, largest = said.get("min_size", []), said.get("max_size", [])
    variances = tuple(said.get("variance", ()))
    steps = {said[key] for key in ("step", "step_h", "step_w") if key in said}
    problems = {
        "min_size": len(smallest) == 1 and 1 <= smallest[0] < math.inf,
        "max_size": len(largest) <= 1,
        "variance": len(variances) == 4 and all(map(math.isclose, variances, _VARIANCES)),
        "flip": said.get("flip", True) or not said.get("aspect_ratio"),
        "offset": said.get("offset", 0.5) == 0.5,
        "step": len(steps) <= 1,
    }
    if wrong := [key for key, sound in problems.items() if not sound]:
        raise UserError(
            f"layer {name}: {', '.join(f'{key} {said.get(key)}' for key in wrong)}; this is not possible here "
            f"(expected one size, the variances {list(_VARIANCES)}, each ratio also turned, centres amid the cells)"
        )
    ratios = tuple(ratio for ratio in said.get("aspect_ratio", ()) if not math.isclose(ratio, 1))
    return Priors(
        name, int(smallest[0]), int(largest[0]) if largest else None, ratios, steps.pop() if steps else None,
        bool(said.get("clip", False)),
    )  # fmt: skip


def same(found: Sequence[Priors], name: str) -> Any:
    """The setting of this name, which must be the same for all levels."""
    values = {getattr(prior, name) for prior in found}
    if len(values) != 1:
        raise UserError(f"the layers {found[0].layer}, ... have different values of {name}: this is not possible here")
    return values.pop()


def detection(source: Source, *, theta: bool = False) -> dict[str, Any]:
    """The builder's arguments for the postprocessing, from the DetectionOutput layer; empty if there is none.

    `theta`: with that of RefineDet's first module.
    """
    for name, layer in layers(source).items():
        if (said := layer.get("detection_output_param")) is None:
            continue
        nms = said.get("nms_param", {})
        problems = {
            "background_label_id": said.get("background_label_id", 0) == 0,
            "code_type": said.get("code_type") == _CENTER_SIZE,
            "share_location": said.get("share_location", True),
            "variance_encoded_in_target": not said.get("variance_encoded_in_target", False),
            "eta": nms.get("eta", 1.0) == 1,
        }
        if wrong := [key for key, sound in problems.items() if not sound]:
            raise UserError(f"layer {name}: this {' and '.join(wrong)} is not possible here")
        told: dict[str, Any] = {
            "candidates": nms.get("top_k"),
            "threshold": max(0, said.get("confidence_threshold", 0)),
        }
        overlap = nms.get("nms_threshold", 0.3)
        if overlap <= 1:
            told["nms"] = overlap
        elif theta:  # switched off: the authors' program then applies soft-NMS
            told["soft_nms"] = 0.3
        if said.get("keep_top_k", -1) > 0:
            told["detections"] = said["keep_top_k"]
        if theta:
            told["theta"] = 1 - said.get("objectness_score", 0.01)
        return told
    return {}


def unlike(source: Source, expected: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Refuse a net whose layers have other settings than those here: no shape of a tensor shows them.

    `expected`: layer -> setting of its convolution -> the numbers.
    """
    for name, settings in expected.items():
        said = layers(source).get(name, {}).get("convolution_param", {})
        for key, numbers in settings.items():
            if said and said.get(key, _UNSAID[key]) not in (list(numbers), list(numbers) * 2):
                found = said.get(key, _UNSAID[key])
                raise UserError(f"layer {name} has the {key} {found}, expected {list(numbers)}: another network")
