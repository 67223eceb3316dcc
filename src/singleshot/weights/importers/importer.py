"""The contract of importers of other projects' weights, and the common part: giving the tensors our names.

An importer is a module with the names of `Importer`, and one line in `IMPORTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from singleshot.backbones.pretrained import read_tensors
from singleshot.detectors import BUILDERS, Detector
from singleshot.errors import UserError, some
from singleshot.ops.shapes import without_values
from singleshot.tensor_files import refuse_broken

Shapes = Mapping[str, tuple[int, ...]]
"""The tensors of a file, for recognising the layout: name -> shape."""


class Importer(Protocol):
    """One layout of another project."""

    TITLE: str
    """The name of the layout in messages: "torchvision's RetinaNet"."""

    def recognises(self, shapes: Shapes) -> bool:
        """Whether weights of these names and shapes have this layout."""

    def builder(self, shapes: Shapes) -> tuple[str, dict[str, Any]]:
        """The builder of this package for the same network, and the arguments that follow from the weights.

        Raises:
            UserError: the layout is this one, but the weights have an option that is not possible here.
        """

    def rename(self, key: str, shapes: Shapes) -> Sequence[str]:
        """The other project's names for a tensor of our state dict: every name that it has had, the newest first."""

    def unneeded(self, key: str) -> bool:
        """Whether a tensor of the file is known to be unneeded here."""

    def finish(self, state: dict[str, Tensor], shapes: Shapes) -> None:
        """Convert, in place, values of the state dict (under our names) that have another meaning in that project."""


def built(
    given: Mapping[str, Tensor],
    importer: Importer,
    *,
    where: str = "",
    finish: Callable[[dict[str, Tensor]], None] | None = None,
    **arguments: Any,
) -> Detector:
    """Build the detector of a layout with the weights of a file, on the CPU, in eval mode.

    Args:
        given: the tensors of the file under their own names.
        importer: the importer of the layout.
        where: the start of messages: the file.
        finish: used in place of the importer's own, by a caller that knows more about the weights than they say.
        arguments: arguments of the builder; they take precedence over what the weights say.

    Raises:
        UserError: as `translated` and the importer raise.
    """
    shapes = shapes_of(given)
    try:
        name, told = importer.builder(shapes)
    except UserError as error:
        raise UserError(f"{where}{error}") from error
    with without_values():
        detector = BUILDERS[name](**{**told, **arguments})
    state = translated(given, detector, importer, where=where)
    if finish is None:
        importer.finish(state, shapes)
    else:
        finish(state)
    detector.load_state_dict(state, assign=True)
    return detector.eval()


def translated(
    given: Mapping[str, Tensor], detector: Detector, importer: Importer, *, where: str = ""
) -> dict[str, Tensor]:
    """Make the state dict of a detector from the tensors of a file: complete, of the right shapes, copied.

    Every tensor of the file is used, known to be unneeded, or named in an error. Counters of batch norm may be absent.

    Args:
        given: the tensors of the file under their own names.
        detector: the detector that they are for; its own weights may be on the device "meta".
        importer: the importer of the layout.
        where: the start of messages: the file.

    Raises:
        UserError: tensors are missing, unexpected, of another shape, or not finite.
    """
    shapes = shapes_of(given)
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    others: list[str] = []
    used: set[str] = set()
    for key, own in detector.state_dict().items():
        names = importer.rename(key, shapes)
        name = next((name for name in names if name in given), None)
        if key.endswith("num_batches_tracked"):  # absent from released files, and not needed for fixed statistics
            state[key] = torch.zeros((), dtype=own.dtype)
            used.update(names)
        elif name is None:
            missing.append(names[0])
        elif given[name].shape != own.shape:
            others.append(f"{name} is {tuple(given[name].shape)}, expected {tuple(own.shape)}")
            used.add(name)
        else:
            state[key] = given[name].detach().to("cpu", own.dtype, copy=True)
            used.add(name)
    unexpected = [name for name in given if name not in used and not importer.unneeded(name)]
    problems = [some(missing, "missing"), some(unexpected, "unexpected"), some(others, "of another shape")]
    if any(problems):
        trunk = detector.arguments.get("backbone", "its usual backbone")
        raise UserError(
            f"{where}these weights are not those of {importer.TITLE} on {trunk}: {'; '.join(filter(None, problems))}. "
            "If they have another backbone, name it, such as backbone='resnet101'"
        )
    refuse_broken(state, where, "the weights are damaged")
    return state


def opened(weights: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file or state dict, without DataParallel's prefix, and what messages begin with: the file."""
    where = f"{weights}: " if isinstance(weights, str | Path) else ""
    given = read_tensors(weights) if isinstance(weights, str | Path) else dict(weights)
    return {key.removeprefix("module."): value for key, value in given.items()}, where


def shapes_of(given: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape of each tensor."""
    return {name: tuple(value.shape) for name, value in given.items()}
