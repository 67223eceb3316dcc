"""Makes files of this package from weights of other programs: a detector, or a backbone to begin a training with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from singleshot.backbones import BACKBONES, fitting, taken
from singleshot.backbones.pretrained import OPTIONS, PIXELS
from singleshot.detectors import BUILDERS, VARIANTS, Detector
from singleshot.errors import UserError, did_you_mean
from singleshot.files import write_atomically
from singleshot.paths import to_path
from singleshot.preprocess import Pixels
from singleshot.source import Source
from singleshot.tensor_files import packed
from singleshot.weights import checkpoint
from singleshot.weights.importers import find_importer, fits, recognised
from singleshot.weights.importers.importer import built, opened

FORMAT = "singleshot backbone"
"""The metadata `format` of a backbone's file."""


@dataclass(frozen=True)
class Brought:
    """What became of a file of another program."""

    layout: str  # the name of the layout: of `IMPORTERS`, or of a backbone
    title: str  # as people call it
    detector: Detector | None  # None: it is a backbone
    pixels: Pixels  # the pixel values that the weights expect
    unneeded: tuple[str, ...]  # tensors of the file that are not used
    named: bool  # whether the classes have names of their own
    source: Source
    save: Callable[[Path], None]  # writes it
    backbone_options: Mapping[str, Any] = field(default_factory=dict)  # that a backbone was made with


def bring(
    path: str | Path,
    *,
    kind: str | None = None,
    layout: str | None = None,
    class_names: Sequence[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Brought:
    """Recognise a file of weights of another program, and make a detector or a backbone of it.

    Args:
        path: a file of a kind in `READERS`.
        kind: what it is, if the file does not tell: a variant or builder of this package, or a backbone.
        layout: a name of `IMPORTERS`; None: the one that recognises the tensors.
        class_names: the names of the classes, in the order of the weights.
        arguments: arguments of the builder; of a backbone, `backbone_options`.

    Raises:
        UserError: as `import_weights`; or the file is a detector of this package already.
    """
    source = opened(to_path(path))
    if source.notes.get("format") == checkpoint.FORMAT:
        raise UserError(f"{path}: this is a detector of this package already; use it as it is")
    given = dict(arguments or {})
    if kind is not None and kind not in (known := [*VARIANTS, *BUILDERS, *BACKBONES]):
        hint = did_you_mean(kind, known, otherwise="`singleshot models` lists detectors")
        raise UserError(f"{kind!r} is no detector and no backbone; {hint}")
    unknown = kind not in BACKBONES and layout is None and not fits(source)
    if kind in BACKBONES or (kind is None and unknown):
        return _backbone(source, kind, given, class_names)
    if unknown and (name := fitting(source, {})) is not None:
        raise UserError(
            f"{source.where}these are weights of the backbone {name} alone, and not of a detector {kind}; "
            "without --as it becomes a file for --backbone-weights"
        )
    importer = find_importer(layout := layout if layout is not None else recognised(source))
    variant = VARIANTS.get(kind or "")
    builder = variant.builder if variant is not None else kind
    detector = built(
        source, importer, class_names=class_names, **{**(variant.arguments if variant is not None else {}), **given}
    )
    if builder is not None and detector.builder != builder:
        raise UserError(f"{source.where}these are weights of {importer.TITLE}, a {detector.builder}, and not of {kind}")
    return Brought(
        layout=layout,
        title=importer.TITLE,
        detector=detector,
        pixels=detector.preprocess.pixels,
        unneeded=tuple(name for name in source.tensors if importer.unneeded(name)),
        named=detector.class_names[0] != "class 1",
        source=source,
        save=partial(checkpoint.save, detector),
    )


def _backbone(
    source: Source, kind: str | None, arguments: Mapping[str, Any], class_names: Sequence[str] | None
) -> Brought:
    options = dict(arguments)
    inner = options.pop("backbone_options", None) or {}
    name = kind if kind is not None else fitting(source, inner)
    if name is None:
        recognised(source)  # the message for files of no known layout
        raise AssertionError
    told = options.pop("pixels", None)
    if options or class_names is not None:
        surplus = "names of classes" if class_names is not None else f"arguments.{next(iter(options))}"
        raise UserError(f"{source.where}these are weights of the backbone {name}, which takes no {surplus}")
    backbone = BACKBONES[name](**inner)
    tensors = taken(backbone, source)
    pixels = Pixels.named(told if told is not None else backbone.pixels)
    metadata = {
        "format": FORMAT,
        "backbone": name,
        OPTIONS: json.dumps(inner),
        PIXELS: json.dumps(pixels.choice()),
    }
    return Brought(
        layout=name,
        title=f"the backbone {name}",
        detector=None,
        pixels=pixels,
        unneeded=(),
        named=False,
        source=source,
        save=lambda path: _write(path, tensors, metadata),
        backbone_options=inner,
    )


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    write_atomically(path, packed(tensors, metadata))
