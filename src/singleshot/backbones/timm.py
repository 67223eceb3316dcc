"""Any convolutional or hierarchical network of the timm library, if it is installed."""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from singleshot.backbones.backbone import NORMS, Backbone
from singleshot.errors import UserError, did_you_mean

_TRIAL = 160  # pixels; the maps of a padded network have 20, 10 and 5 cells


class TimmBackbone(Backbone):
    """A timm model's feature maps at strides 8, 16 and 32, as far as it has them; keys are timm's.

    `padded`: give the convolutions and pools that have no padding the one that keeps the size. The Inceptions were made
    without it: their maps lose a border in every such layer, so that no cell lies where its stride says and no map is
    twice as large as the next. The weights stay the same; detectors have long been trained from them in this way
    (TensorFlow's Object Detection API). Default: only if the maps would not have whole cells without it.
    """

    def __init__(
        self,
        name: str,
        *,
        padded: bool | None = None,
        norm: str = "train",
        frozen_stages: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        timm = _library()
        if name not in timm.list_models():
            hint = did_you_mean(name, timm.list_models(), otherwise="timm.list_models() lists them", cutoff=0.4)
            raise UserError(f"timm has no model {name!r}; {hint}")
        try:
            # No downloads: weights come from a file that the user names.
            everything = timm.create_model(name, features_only=True, pretrained=False, **options)
            strides = everything.feature_info.reduction()
            wanted = [index for index, stride in enumerate(strides) if stride in (8, 16, 32)]
            if not wanted:
                raise UserError(
                    f"timm model {name!r} has maps at strides {strides}, but maps at 8, 16 or 32 are needed; "
                    "choose another model"
                )
            self.model: nn.Module = timm.create_model(
                name, features_only=True, pretrained=False, out_indices=wanted, **options
            )
        except UserError:
            raise
        except (RuntimeError, AttributeError, AssertionError, TypeError, ValueError) as error:
            raise UserError(f"timm model {name!r} cannot give feature maps ({error}); choose another model") from error
        info: Any = self.model.feature_info
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        about = getattr(self.model, "pretrained_cfg", None) or {}
        if about.get("mean") and about.get("std"):
            self.pixels = (tuple(about["mean"]), tuple(about["std"]), "rgb")
        bare = _without_padding(self.model) if padded is not False else []
        if bare and self._whole_cells() is False:
            _pad(bare)
            if not self._whole_cells():  # some of its pools are no modules, or it cuts its maps by itself
                _pad(bare, sides=0)
                if padded:
                    raise UserError(f"timm model {name!r} cannot be padded; leave padded out, or choose another model")
        self.channels_last_output = getattr(self.model, "output_fmt", None) == "NHWC"
        self.norm = "train"
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps at strides 8, 16, 32, channels first."""
        maps: list[Tensor] = list(self.model(pixels))
        return [features.permute(0, 3, 1, 2) for features in maps] if self.channels_last_output else maps

    def _whole_cells(self) -> bool | None:
        """Whether every map has one cell for each `stride` pixels, as elsewhere; none: not known."""
        device = next(self.model.parameters()).device
        training = self.model.training
        try:
            with torch.no_grad():
                maps = self.model.eval()(torch.zeros(1, 3, _TRIAL, _TRIAL, device=device))
        except (RuntimeError, AssertionError, ValueError):  # it takes images of one size only
            return None
        finally:
            self.model.train(training)
        sides = (1, 2) if getattr(self.model, "output_fmt", None) == "NHWC" else (2, 3)
        found = [tuple(features.shape[side] for side in sides) for features in maps]
        return found == [(-(-_TRIAL // stride),) * 2 for stride in self.strides]

    def stages(self) -> list[list[nn.Module]]:
        """Empty: timm's models have no common structure, so their stages are not known."""
        return []

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename timm's own keys to this module's. The classifier is dropped; its name differs from model to model."""
        own = self.state_dict().keys()
        adapted = {}
        for key, value in weights.items():
            bare = key.removeprefix("model.")
            for name in (bare, bare.replace(".", "_", 1)):  # for feature maps timm renames `stages.0` to `stages_0`
                if f"model.{name}" in own:
                    adapted[f"model.{name}"] = value
        return adapted

    def fix(self, *, norm: str = "train", frozen_stages: int = 0) -> None:
        """As `Backbone.fix`, for timm's own batch norms."""
        if norm not in NORMS:
            raise UserError(f"norm {norm!r}: expected one of {', '.join(NORMS)}")
        if frozen_stages:
            raise UserError(f"frozen_stages={frozen_stages}: the stages of a timm model are not known here; give 0")
        self.norm = norm
        for part in self.modules():
            if isinstance(part, _BatchNorm) and norm == "frozen":
                part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> TimmBackbone:
        """As `nn.Module.train`, but batch norms stay in evaluation mode unless `norm` is "train"."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm) and self.norm != "train":
                part.eval()
        return self


_Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def _without_padding(model: nn.Module) -> list[_Windowed]:
    """Layers whose windows overlap or leave cells out at the border because nothing is padded.

    Layers of timm's own classes pad by themselves. Windows without an overlap (patches) need no padding.
    """
    found: list[_Windowed] = []
    for part in model.modules():
        if type(part) in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):
            layer = cast(_Windowed, part)
            kernel, stride, padding = (_two(value) for value in (layer.kernel_size, layer.stride, layer.padding))
            if padding == (0, 0) and any(k > s for k, s in zip(kernel, stride, strict=True)):
                found.append(layer)
    return found


def _pad(layers: list[_Windowed], sides: int = 1) -> None:
    """Pad each side by half of the kernel, or by nothing."""
    for layer in layers:
        padding = tuple(sides * (side // 2) for side in _two(layer.kernel_size))
        layer.padding = padding
        if isinstance(layer, nn.Conv2d):
            layer._reversed_padding_repeated_twice = [side for side in reversed(padding) for _ in range(2)]


def _two(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _library() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UserError("backbones named timm/... need the timm library: pip install 'singleshot[timm]'") from error
    except RuntimeError as error:  # raised by a torchvision that was built for another torch
        raise UserError(
            f"timm is installed but cannot be imported ({error}); install the torchvision that fits your torch"
        ) from error
