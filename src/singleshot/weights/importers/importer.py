"""The contract of importers of other projects' weights, and the common part: giving the tensors our names.

An importer is a module with the names of `Importer`, and one line in `IMPORTERS`. It needs nothing else: the file is
read, the layout is found, classes without names get them, every tensor is checked, and messages name the file for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from singleshot.detectors import BUILDERS, Detector
from singleshot.errors import UserError, short, some
from singleshot.ops.shapes import without_values
from singleshot.source import CLASS_NAMES
from singleshot.source import Source as Source
from singleshot.tensor_files import refuse_broken
from singleshot.weights.readers import read

_BACKGROUNDS = ("background", "???")  # what lists of labels call the first line that is no class


class Importer(Protocol):
    """One layout of another project.

    A module may also have `prepare(source: Source) -> Source`, for files whose tensors are not one to one with ours
    (batch norm folded into convolutions or split in two, transposed kernels). It returns tensors from which renaming
    works (`dataclasses.replace(source, tensors=...)`), and does not change the given ones. All functions but
    `recognises` then get what it returned.

    `source.notes` has the plain data of the file. If the user names the classes, or the file does, the names are its
    `CLASS_NAMES`. So an importer can see whether the first class is a background.
    """

    TITLE: str
    """The name of the layout in messages: "torchvision's RetinaNet"."""

    def recognises(self, source: Source) -> bool:
        """Whether a file has this layout, by the names and shapes of its tensors. It looks at no values."""

    def builder(self, source: Source) -> tuple[str, dict[str, Any]]:
        """The builder of this package for the same network, and all arguments that follow from the weights.

        They are the number of classes (without a background; their names only where the layout implies them),
        backbone, size, pixels, anchors, and the numbers of the other project's postprocessing.

        Raises:
            UserError: the layout is this one, but the weights have an option that is not possible here.
        """

    def rename(self, key: str, source: Source) -> Sequence[str]:
        """The other project's names for a tensor of our state dict: every name that it has had, the newest first."""

    def unneeded(self, key: str) -> bool:
        """Whether a tensor of the file is known to be unneeded here."""

    def finish(self, state: dict[str, Tensor], source: Source) -> None:
        """Convert, in place, values of the state dict (under our names) that have another meaning in that project.

        Such as the order of boxes in a cell, the column of the background, the order of channels, or an epsilon.
        """


def built(
    source: Source,
    importer: Importer,
    *,
    finish: Callable[[dict[str, Tensor]], None] | None = None,
    class_names: Sequence[str] | None = None,
    **arguments: Any,
) -> Detector:
    """Build the detector of a layout with the weights of a file, on the CPU, in eval mode.

    Args:
        source: what the file holds.
        importer: the importer of the layout.
        finish: used in place of the importer's own, by a caller that knows more about the weights than they say.
        class_names: the names of the classes. None: as the importer says, else the file's note, if it has as many
            as there are classes, else "class 1", "class 2", ...
        arguments: arguments of the builder; they take precedence over what the weights say.

    Raises:
        UserError: as `translated` and the importer raise; the number of names is another one.
    """
    if isinstance(class_names, str):
        raise UserError(f"class_names: expected a list of names, got the text {short(class_names)}")
    if class_names is not None:
        class_names = list(class_names)
        if class_names and class_names[0].casefold() in _BACKGROUND:
            del class_names[0]
        source = dataclasses.replace(source, notes={**source.notes, CLASS_NAMES: class_names})
    with _naming(source, importer):
        if (prepare := getattr(importer, "prepare", None)) is not None:
            source = prepare(source)
        name, told = importer.builder(source)
        arguments = {**told, **arguments}
        arguments["class_names"] = _class_names(class_names, arguments, source)
        with without_values():
            detector = BUILDERS[name](**arguments)
        state = translated(source, detector, importer)
        if finish is None:
            importer.finish(state, source)
        else:
            finish(state)
    detector.load_state_dict(state, assign=True)
    return detector.eval()


_BACKGROUND = ("background", "__background__", "???")  # as lists of classes of softmax detectors begin


@contextmanager
def _naming(source: Source, importer: Importer) -> Iterator[None]:
    """Let messages begin with the file. A file may contain anything, and an importer may stumble over it in any way."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source.where}{error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{source.where}these weights are not those of {importer.TITLE} ({error})") from error


def _class_names(given: Sequence[str] | None, arguments: Mapping[str, Any], source: Source) -> Sequence[str]:
    count = arguments["num_classes"]
    if given is not None and len(given) == count + 1 and given[0].casefold().strip("_") in _BACKGROUNDS:
        given = given[1:]
    if given is not None and len(given) != count:
        background = "; the background is no class" if len(given) == count + 1 else ""
        raise UserError(f"these weights have {count} classes, but {len(given)} names were given{background}")
    told: Sequence[str] | None = given if given is not None else arguments.get("class_names")
    if told is None:
        noted = source.notes.get(CLASS_NAMES)
        told = noted if isinstance(noted, list | tuple) and len(noted) == count else None
    return told if told is not None else [f"class {number}" for number in range(1, count + 1)]


def translated(source: Source, detector: Detector, importer: Importer) -> dict[str, Tensor]:
    """Make the state dict of a detector from the tensors of a file: complete, of the right shapes, copied.

    Every tensor of the file is used, known to be unneeded, or named in an error. Counters of batch norm may be absent.

    Args:
        source: what the file holds.
        detector: the detector that it is for; its own weights may be on the device "meta".
        importer: the importer of the layout.

    Raises:
        UserError: tensors are missing, unexpected, of another shape, or not finite.
    """
    given = source.tensors
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    others: list[str] = []
    kinds: list[str] = []
    used: set[str] = set()
    for key, own in detector.state_dict().items():
        names = importer.rename(key, source)
        name = next((name for name in names if name in given), None)
        if key.endswith("num_batches_tracked"):  # absent from released files, and not needed for fixed statistics
            state[key] = torch.zeros((), dtype=own.dtype)
            used.update(names)
        elif name is None:
            missing.append(names[0] if names else key)
        elif given[name].shape != own.shape:
            others.append(f"{name} is {tuple(given[name].shape)}, expected {tuple(own.shape)}")
            used.add(name)
        elif not _holds_numbers(given[name]):
            kinds.append(f"{name} ({given[name].layout}, {given[name].dtype}, on {given[name].device})")
            used.add(name)
        else:
            state[key] = given[name].detach().to("cpu", own.dtype, copy=True)
            used.add(name)
    unexpected = [name for name in given if name not in used and not importer.unneeded(name)]
    problems = [some(missing, "missing"), some(unexpected, "unexpected"), some(others, "of another shape")]
    problems.append(some(kinds, "that cannot be read, where ordinary floating-point numbers were expected"))
    if any(problems):
        trunk = detector.arguments.get("backbone", "its usual backbone")
        raise UserError(
            f"these weights are not those of {importer.TITLE} on {trunk}: {'; '.join(filter(None, problems))}. "
            "If they have another backbone, name it, such as backbone='resnet101'"
        )
    refuse_broken(state, "", "the weights are damaged")
    return state


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether these are floating-point numbers, all of them and really there: not sparse, quantised, or on "meta"."""
    return tensor.layout == torch.strided and tensor.is_floating_point() and not tensor.is_meta


def opened(weights: str | Path | Mapping[str, Tensor] | Source) -> Source:
    """What a file or state dict holds, without DataParallel's prefix."""
    if isinstance(weights, Source):
        source = weights
    else:
        source = Source(dict(weights)) if isinstance(weights, Mapping) else read(weights)
    for key, value in source.tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{source.where}{short(key)} is {type(value).__name__}, expected a state dict: names and tensors"
            )
    return dataclasses.replace(
        source, tensors={key.removeprefix("module."): value for key, value in source.tensors.items()}
    )
