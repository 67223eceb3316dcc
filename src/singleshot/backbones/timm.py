"""Any convolutional or hierarchical network of the timm library, if it is installed."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from singleshot.backbones.backbone import NORMS, Backbone
from singleshot.errors import UserError, did_you_mean


class TimmBackbone(Backbone):
    """A timm model's feature maps at strides 8, 16 and 32, as far as it has them; keys are timm's."""

    def __init__(self, name: str, *, norm: str = "train", frozen_stages: int = 0, **options: Any) -> None:
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
        self.channels_last_output = getattr(self.model, "output_fmt", None) == "NHWC"
        self.norm = "train"
        self.fix(norm=norm, frozen_stages=frozen_stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps at strides 8, 16, 32, channels first."""
        maps: list[Tensor] = list(self.model(pixels))
        return [features.permute(0, 3, 1, 2) for features in maps] if self.channels_last_output else maps

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


def _library() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UserError("backbones named timm/... need the timm library: pip install 'singleshot[timm]'") from error
    except RuntimeError as error:  # raised by a torchvision that was built for another torch
        raise UserError(
            f"timm is installed but cannot be imported ({error}); install the torchvision that fits your torch"
        ) from error
