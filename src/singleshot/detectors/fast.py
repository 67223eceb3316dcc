"""A detector's network in the form that is fastest to detect with: batch norm folded, the channels last in memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from singleshot.fused import FusedConv2d
from singleshot.layers import BatchNorm2d, StridedConv2d
from singleshot.structures import Predictions
from singleshot.twin import twin

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector

_CONVOLUTIONS = (nn.Conv2d, StridedConv2d)
_NORMS = (nn.BatchNorm2d, BatchNorm2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PACKAGE = __name__.partition(".")[0]
_NUMBERED = re.compile(r"conv(\d+)$")


class FastNetwork:
    """The parts of a detector's network as a second tree: pixels -> predictions, as `Detector.network`.

    Every convolution is a copy (`FusedConv2d`), so this takes as much memory again as the weights of the convolutions;
    all other parameters and buffers are shared. Not for training, and only for weights that stay as they are.
    """

    def __init__(self, detector: Detector, precision: str) -> None:
        names = ("backbone", "neck", "head", "refiner")
        parts = {name: part for name in names if isinstance(part := getattr(detector, name), nn.Module)}
        self.parts = twin(nn.ModuleDict(parts))
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.no_grad():
            fuse(self.parts, self.dtype)

    def __call__(self, pixels: Tensor) -> Predictions:
        """Normalised pixels [B, 3, H, W] -> name -> float32 [B, A, n]."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            maps = self.parts["backbone"](pixels)
            found = cast(Predictions, self.parts["head"](self.parts["neck"](maps)))
            if "refiner" in self.parts:
                found = {**self.parts["refiner"](maps), **found}
            return found


class FastNetworks:
    """The `FastNetwork` of a detector's weights as they are now, made when it is asked for, for any number of threads.

    There is no lock: threads that miss it at the same time only make it twice. A copy or pickle of a detector begins
    without it.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, FastNetwork | None, _FirstValues] | None = None

    def __reduce__(self) -> Any:
        return FastNetworks, ()

    def find(self, detector: Detector, precision: str) -> FastNetwork | None:
        """The network; None where the detector cannot have one: a part cannot be copied, or has hooks of a user."""
        held = _state(detector)
        if held is None:
            return None
        state, kept = (precision, held), self._kept
        if kept is None or kept[0] != state or kept[2].changed():
            self._kept = None  # before the new one is made: both need not fit in memory
            self._kept = kept = (state, _made(detector, precision), _FirstValues(detector))
        return kept[1]


class _FirstValues:
    """The first value of each weight, to see writes through `.data`, which PyTorch does not count.

    Values on a GPU are not read, because that waits for it.
    """

    def __init__(self, detector: Detector) -> None:
        with torch.no_grad():
            self.places = [
                held.as_strided((1,), (1,))
                for held in (*detector.parameters(), *detector.buffers())
                if held.device.type == "cpu" and held.dtype == torch.float32 and held.numel()
            ]
            self.values = torch.cat(self.places) if self.places else torch.empty(0)

    def changed(self) -> bool:
        """Whether one of them is another now."""
        with torch.no_grad():
            return bool(self.places) and not torch.equal(torch.cat(self.places), self.values)


def _made(detector: Detector, precision: str) -> FastNetwork | None:
    if detector.dtype != torch.float32:
        return None
    try:
        return FastNetwork(detector, precision)
    except Exception:  # a user's part may fail in any way; it is then used as it is
        return None


def in_training(module: nn.Module) -> bool:
    """Whether any part is in training mode."""
    return any(part.training for part in _parts(module))


def _state(detector: Detector) -> list[int] | None:
    """What tells that weights are as before: which tensors, where they lie, and how often they were written.

    None if a part has hooks, which a copy would not call.
    """
    state: list[int] = []
    for part in _parts(detector):
        if part._forward_hooks or part._forward_pre_hooks:
            return None
        for tensors in (part._parameters, part._buffers):
            for held in tensors.values():
                if held is not None:
                    state += (id(held), held.data_ptr(), 0 if held.is_inference() else held._version)
    return state


def _parts(module: nn.Module) -> list[nn.Module]:
    """As `module.modules()`, which takes longer because it names each part; what is shared may come twice."""
    parts = [module]
    for part in parts:  # it grows
        parts += [child for child in part._modules.values() if child is not None]
    return parts


def fuse(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Replace the convolutions below a module by fused ones, with the norms and activations that follow each of them.

    They follow where they stand so in an `nn.Sequential`, or where a module calls `conv_norm` on its `conv1` and `bn1`.
    Norms and activations in the place of which nothing is left to do become `nn.Identity`. Modules of a class that is
    not of this package are left as they are: what they do between their parts is not known.
    """
    parts = _own(module)
    for part in parts:
        if isinstance(part, nn.Sequential):
            _fuse_sequence(part, dtype)
        else:
            _fuse_numbered(part, dtype)
    for part in parts:
        for name, child in list(part.named_children()):
            if type(child) in _CONVOLUTIONS:
                setattr(part, name, _fused(child, None, None, dtype))


def _own(module: nn.Module) -> list[nn.Module]:
    """The modules of this package below a module, and PyTorch's containers in them, without what lies in others."""
    own = [module]
    for part in own:  # it grows
        own += [
            child
            for child in part.children()
            if type(child) in _CONTAINERS or type(child).__module__.partition(".")[0] == _PACKAGE
        ]
    return own


def _fuse_sequence(part: nn.Sequential, dtype: torch.dtype) -> None:
    names = list(part._modules)
    for at, name in enumerate(names):
        convolution = part._modules[name]
        if type(convolution) not in _CONVOLUTIONS:
            continue
        following = names[at + 1 : at + 3]
        norm = activation = None
        if following and type(part._modules[following[0]]) in _NORMS:
            norm = part._modules[following.pop(0)]
        if following and type(part._modules[following[0]]) in _ACTIVATIONS:
            activation = part._modules[following[0]]
        if norm is None and activation is None:
            continue
        part._modules[name] = _fused(convolution, norm, activation, dtype)
        for other in names[at + 1 : at + 1 + (norm is not None) + (activation is not None)]:
            part._modules[other] = nn.Identity()


def _fuse_numbered(part: nn.Module, dtype: torch.dtype) -> None:
    for name in list(part._modules):
        found = _NUMBERED.match(name)
        norm = part._modules.get(f"bn{found[1]}") if found else None
        if norm is None or type(norm) not in _NORMS:
            continue
        convolution = part._modules[name]
        within = convolution if isinstance(convolution, nn.Sequential) else part  # ResNet-D's three: the last of them
        last = list(within._modules)[-1] if within is convolution else name
        convolution = within._modules[last]
        if type(convolution) in _CONVOLUTIONS:
            within._modules[last] = _fused(convolution, norm, None, dtype)
            part._modules[f"bn{found[1]}"] = nn.Identity()  # type: ignore[index]


def _fused(convolution: Any, norm: Any, activation: Any, dtype: torch.dtype) -> FusedConv2d:
    padded = convolution.pad if isinstance(convolution, StridedConv2d) and convolution.same else None
    return FusedConv2d(convolution, norm, activation, dtype=dtype, padded=padded)
