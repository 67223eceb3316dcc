"""The table of backbones by name. A backbone turns normalised pixels into a list of maps."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike, fspath
from typing import Any

from torch import Tensor

from singleshot.backbones.backbone import Backbone
from singleshot.backbones.efficientnet import SCALINGS, EfficientNet
from singleshot.backbones.mobilenet import MobileNetV2
from singleshot.backbones.mobilenetv1 import MobileNetV1
from singleshot.backbones.mobilenetv3 import MobileNetV3
from singleshot.backbones.pretrained import fitted, load_backbone_weights, read_weights, told_options
from singleshot.backbones.resnet import DESIGNS, ResNet
from singleshot.backbones.timm import TimmBackbone
from singleshot.backbones.vgg import VGG16
from singleshot.catalogue import is_name, named_backbone, obtain
from singleshot.errors import UserError, did_you_mean
from singleshot.ops.shapes import without_values
from singleshot.paths import to_path
from singleshot.signature import check_types
from singleshot.source import Source

__all__ = [
    "BACKBONES",
    "VGG16",
    "Backbone",
    "EfficientNet",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "ResNet",
    "build",
    "load_backbone_weights",
]

BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    "vgg16": VGG16,
    "vgg16_full": partial(VGG16, "full"),
    "vgg16_refinedet": partial(VGG16, "refinedet"),
    "vgg16_bn": partial(VGG16, batch_norm=True),
    "vgg16_refinedet_bn": partial(VGG16, "refinedet", batch_norm=True),
    **{name: partial(ResNet, name) for name in DESIGNS},
    "mobilenetv1": MobileNetV1,
    "mobilenetv2": MobileNetV2,
    "mobilenetv3_large": MobileNetV3,
    **{name: partial(EfficientNet, name) for name in SCALINGS},
}


def build(
    name: str,
    *,
    norm: str = "train",
    frozen_stages: int = 0,
    weights: str | PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: a key of `BACKBONES`, or "timm/MODEL" if timm is installed.
        norm: which batch norms train; see `Backbone.fix`.
        frozen_stages: how many stages do not train; see `Backbone.fix`.
        weights: a file for `load_backbone_weights`; or `imagenet`, or a name of `singleshot.catalogue`, whose file is
            fetched if it is not here. Without it the trunk is initialised at random (He normal).
        options: the class's own arguments, such as `sources` or `width`.

    Raises:
        UserError: an unknown name, an option that this backbone does not have, or weights that do not fit.
    """
    factory: Callable[..., Backbone]
    if name.startswith("timm/"):
        factory = partial(TimmBackbone, name.removeprefix("timm/"))
    elif name in BACKBONES:
        factory = BACKBONES[name]
    else:
        hint = did_you_mean(name.lower(), BACKBONES, number=1)
        raise UserError(f"unknown backbone {name!r}: expected one of {', '.join(BACKBONES)}, or timm/MODEL; {hint}")
    options = dict(options or {})
    _check_options(name, factory, options)
    backbone = factory(norm=norm, frozen_stages=frozen_stages, **options)
    if weights is not None:
        given = fspath(weights)
        named = named_backbone(given, name) if is_name(given) else None
        source = read_weights(to_path(given) if named is None else obtain(named))
        _check_told(name, told_options(source), options, source.where)
        backbone.load_state_dict(taken(backbone, source), strict=False)
        if named is not None:
            backbone.expect(named.pixels)
    return backbone


def taken(backbone: Backbone, source: Source) -> dict[str, Tensor]:
    """The tensors of a file for a backbone, as `fitted`; an error says whose weights they are, if they are another's.

    Raises:
        UserError: the file does not fit.
    """
    try:
        return fitted(backbone, source)
    except UserError as error:
        other = fitting(source, {})
        if other is None:  # or damaged
            raise
        raise UserError(f"{error}. They fit {other} with its usual options: --arguments.backbone {other}") from error


def fitting(source: Source, options: Mapping[str, Any]) -> str | None:
    """The first backbone of the table that takes a file, by names and shapes of tensors."""
    for name, make in BACKBONES.items():
        try:
            with without_values(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitted(make(**options), source)
        except (UserError, TypeError):
            continue
        return name
    return None


def _check_told(name: str, told: Mapping[str, Any], options: Mapping[str, Any], where: str) -> None:
    """Refuse weights of the same names and shapes that belong to another network, with other strides or padding."""
    if any(options.get(key) != value for key, value in told.items()):
        words = ", ".join(f"{key}: {json.dumps(value)}" for key, value in {**options, **told}.items())
        raise UserError(
            f"{where}these weights belong to the backbone {name} with other options: give "
            f"--arguments.backbone_options '{{{words}}}' (in Python the argument backbone_options)"
        )


def _check_options(name: str, factory: Callable[..., Backbone], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    ours = ("norm", "frozen_stages", "weights")  # arguments of the builder
    anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    known = [key for key, one in parameters.items() if one.kind is not one.VAR_KEYWORD and key not in ours]
    for key in options:
        if key in ours or (key not in known and not anything):
            hint = did_you_mean(key, known, otherwise=f"it takes {', '.join(known) or 'none'}")
            raise UserError(f"backbone {name!r} has no option {key!r}; {hint}")
    kind: Any = factory.func if isinstance(factory, partial) else factory
    check_types(kind.__init__, options, name=f"backbone {name!r}")
