"""Where an exported model goes, and how it gets there: complete, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from singleshot.errors import UserError, did_you_mean, in_brackets, short, shown
from singleshot.paths import to_path

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "triton": ".onnx"}
"""The formats of `singleshot export`, and the suffix of their file; `triton` is a folder with such a file inside."""

FOLDERS = ("triton",)
"""The formats that are a folder."""

BESIDE = {".xml": (".bin",)}
"""The suffixes of what lies beside a file and belongs to it: OpenVINO's weights."""


def find_format(name: str | None, out: str | Path) -> str:
    """The format of a name; without a name that of the suffix of `out`. Raises `UserError` if that is not clear."""
    if name is None:
        suffix = to_path(out).suffix.lower()
        known = {ending: one for one, ending in FORMATS.items() if one not in FOLDERS}
        if suffix not in known:
            raise UserError(
                f"{shown(out)}: the format is not clear from this name; give --format, one of {', '.join(FORMATS)}, "
                f"or a name that ends in {', '.join(known)}"
            )
        return known[suffix]
    if name not in FORMATS:
        hint = in_brackets(did_you_mean(str(name), FORMATS, number=1, show=repr))
        raise UserError(f"format {short(name)} is not known{hint}; expected one of {', '.join(FORMATS)}")
    return name


def find_target(out: str | Path, *, format: str, stem: str) -> Path:
    """The path of the exported model: `out` itself, or `out`/`stem` with the format's suffix if `out` has no suffix.

    Raises `UserError` for another format's suffix, and if the model, or what lies beside it, exists already.
    """
    path, suffix = to_path(out), FORMATS[format]
    if format in FOLDERS:
        target = path
        if path.suffix.lower() in FORMATS.values():
            raise UserError(f"{shown(path)}: format {format} is a folder, but this names a file; leave out the ending")
    elif path.suffix.lower() == suffix:
        target = path
    elif path.suffix and not path.is_dir():
        raise UserError(
            f"{shown(path)}: a model of format {format} ends in {suffix}, and this name ends in {shown(path.suffix)}; "
            f"change the name, or give the name of a folder"
        )
    else:
        if path.exists() and not path.is_dir():
            raise UserError(f"{shown(path)}: is a file, and without the ending {suffix} a folder is expected")
        target = path / f"{stem}{suffix}"
    refuse_standing(target)
    return target


def files_of(target: Path) -> list[Path]:
    """A model's file, and what lies beside it and belongs to it."""
    return [target, *(target.with_suffix(suffix) for suffix in BESIDE.get(target.suffix, ()))]


def refuse_standing(target: Path) -> None:
    """Raise `UserError` if the model, or what would lie beside it, exists."""
    for path in files_of(target):
        if os.path.lexists(path):
            raise UserError(f"{shown(path)} exists already; choose another name for --out, or remove it")


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Gives the path to make the model at: in a folder of its own, on the same disk, which is removed in any case.

    At the end of the block the model is moved to its place. After an error or Ctrl-C in it nothing is left.

    Raises `UserError` if something has come to stand there meanwhile, and the `OSError` of a folder that cannot be
    written.
    """
    near = next(one for one in target.absolute().parents if one.exists())  # folders are made when the model is complete
    folder = near / f".{target.name[:40]}.{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        model = folder / target.name
        yield model
        target.parent.mkdir(parents=True, exist_ok=True)
        refuse_standing(target)
        # What lies beside a model first: whoever sees the model finds all of it.
        for made, place in reversed(list(zip(files_of(model), files_of(target), strict=True))):
            os.rename(made, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
