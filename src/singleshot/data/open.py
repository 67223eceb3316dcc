"""Opens a dataset: finds the format of a path, and the split that is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from singleshot.conversions import FARTHEST
from singleshot.data.dataset import Dataset, Problem
from singleshot.data.folders import each_listed_once
from singleshot.data.formats import FORMATS, load
from singleshot.data.formats.format import Format, Split
from singleshot.data.formats.unread import advice
from singleshot.data.gather import Gather
from singleshot.data.splits import choose_splits
from singleshot.errors import UserError
from singleshot.paths import to_path

_SHOWN = 20  # problems that one message lists


def open_dataset(
    path: str | Path,
    *,
    split: str | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    need_truth: bool = True,
    prefer: Sequence[str] = (),
    strict: bool = True,
    allow_outside: bool = False,
) -> Dataset:
    """Read the images of one split and their ground truth. No image is opened, and none needs to exist.

    The format is found automatically, or given as `format`: its name in `data.formats.FORMATS`. The split is `split`,
    else the first of `prefer` that exists, else the only one. A name also finds the only split that has it as a word
    (val: val2017, valid), and splits may be joined: VOC2007:trainval+VOC2012:trainval. Labels index `class_names` if
    given (from a checkpoint, for example), else the classes of the data. `need_truth=False` accepts images without
    annotations.

    A file of strangers can name any file of this computer. An image is read only if it lies in the folder `path` (for a
    file: in its folder, or in the one above if that is called annotations), or with `allow_outside` anywhere.

    Use `strict=False` if `data.check.check` follows: problems are then in `Dataset.problems`, and the images concerned
    are not in the records. Raises UserError for everything else that is wrong.
    """
    with each_listed_once():
        found = find_dataset(path, format=format)
        dataset = found.read(found.choose(split, prefer), class_names, allow_outside=allow_outside)
    if need_truth and not any(record.annotated for record in dataset.records) and not dataset.problems:
        raise UserError(
            f"{path}: split {dataset.split!r} has no annotations, but ground truth is needed here. "
            f"Choose a split that has them; the splits are: {', '.join(dataset.splits)}."
        )
    if strict:
        refuse(dataset, _unusable(dataset, need_truth))
    return dataset


def find_splits(path: str | Path, *, format: str | None = None) -> tuple[str, ...]:
    """The splits that a dataset offers, as `open_dataset` names them."""
    return tuple(find_dataset(path, format=format).splits)


@dataclass(frozen=True)
class FoundDataset:
    """A dataset before it is read: its format, and the splits that it offers, by name."""

    root: Path
    name: str  # the format's name in the table
    format: Format[Any]
    splits: Mapping[str, Split]

    def choose(self, split: str | None, prefer: Sequence[str] = ()) -> tuple[Split, ...]:
        """The splits that are meant; several if they are joined with +. UserError if that is not clear."""
        names = choose_splits(list(self.splits), split, prefer, str(self.root))
        return tuple(self.splits[name] for name in names)

    def read(
        self, chosen: Sequence[Split], class_names: Sequence[str] | None = None, *, allow_outside: bool = False
    ) -> Dataset:
        """Read these splits as one dataset. UserError if they are empty."""
        assert self.format.read is not None  # `find_dataset` asks only formats that can be read
        gather = Gather(class_names, inside=None if allow_outside else _data_folder(self.root))
        with each_listed_once():
            for split in chosen:
                gather.begin(split.name, split.place)
                self.format.read(split, gather)
        dataset = gather.dataset(self.root, self.name, tuple(self.splits))
        if not dataset.records and not dataset.problems:
            raise UserError(
                f"{self.root}: split {dataset.split!r} is empty: no image is listed or found. Choose another split, or "
                "add images."
            )
        return dataset


def find_dataset(path: str | Path, *, format: str | None = None) -> FoundDataset:
    """Ask every format, or only the one that is named, which splits a path holds.

    Raises UserError if no format recognises the path, or if several do and `format` is not given.
    """
    root = to_path(path)
    formats = {name: load(name) for name in (FORMATS if format is None else (format,))}
    asked = {name: one for name, one in formats.items() if one.read is not None}
    if not asked:
        raise UserError(
            f"format {format!r} can be written but not read; choose another one (`singleshot data formats` lists them)"
        )
    try:
        if not root.exists():
            raise UserError(f"{root}: no such file or folder; {_expected(asked)}.")
        if not root.is_dir() and not root.is_file():  # reading from a pipe or a device may never end
            raise UserError(f"{root}: neither a file nor a folder; {_expected(asked)}.")
    except OSError as error:  # a name that is too long, no permission
        raise UserError(f"{root}: cannot be opened ({error.strerror or error}); {_expected(asked)}.") from error
    with each_listed_once():
        claims = {name: splits for name, one in asked.items() if (splits := one.find(root))}
        if len(claims) > 1:
            raise UserError(_two_formats(root, asked, claims))
        if not claims:
            raise UserError(_nothing_found(root, asked, format))
    ((name, splits),) = claims.items()
    return FoundDataset(root, name, asked[name], {split.name: split for split in splits})


def _data_folder(root: Path) -> Path:
    """The folder in which the images of a dataset must lie. `annotations/val.json` belongs to the folder above."""
    root = root.absolute()
    if root.is_dir():
        return root
    return root.parent.parent if root.parent.name.lower() == "annotations" else root.parent


def _two_formats(root: Path, asked: Mapping[str, Format[Any]], claims: Mapping[str, Sequence[Split]]) -> str:
    places = [f"{asked[name].title} ({splits[0].place})" for name, splits in claims.items()]
    number = {2: "two", 3: "three"}.get(len(claims), str(len(claims)))
    return (
        f"{root} holds {number} formats: {' and '.join(places)}. Choose with "
        f"{' or '.join(f'--format {name}' for name in claims)} (export: --data-format; in Python: format=), or give "
        "the path of one of them."
    )


def _nothing_found(root: Path, asked: Mapping[str, Format[Any]], wanted: str | None) -> str:
    if wanted is not None:
        title = asked[wanted].title
        what = f"no {title} data in this folder" if root.is_dir() else f"this file cannot be read as {title}"
    else:
        what = "no dataset found in this folder" if root.is_dir() else "this file is in none of the known formats"
    if (hint := advice(root)) is not None:
        return f"{root}: {what}. {hint}"
    return f"{root}: {what}; {_expected(asked)}."


def _expected(asked: Mapping[str, Format[Any]]) -> str:
    return f"expected {', '.join(one.looks_like for one in asked.values())}"


def _unusable(dataset: Dataset, need_truth: bool) -> list[Problem]:
    """All problems that make this ground truth unusable."""
    problems = list(dataset.problems)
    for record in dataset.records:
        where = str(record.annotation or record.path)
        if need_truth and not record.annotated:
            problems.append(Problem("no annotation", where, f"image {record.name} has no annotation"))
        elif not (near := np.abs(record.boxes) <= FARTHEST).all():  # NaN is not either
            row = int(np.argmin(near.all(axis=1)))
            box = record.boxes[row].tolist()
            message = (
                f"image {record.name}, object {row + 1}: the box {box} is not finite, or beyond {FARTHEST:g} pixels"
            )
            problems.append(Problem("invalid box", where, message))
    return problems


def refuse(dataset: Dataset, problems: Sequence[Problem]) -> None:
    """Raise UserError if there are problems."""
    if not problems:
        return
    # The message of each unknown class has both class lists, so one of them is enough.
    shown = [problem for problem in problems if problem.kind != "unknown class"][:_SHOWN]
    shown += [problem for problem in problems if problem.kind == "unknown class"][:1]
    lines = [f"{dataset.root}, split {dataset.split}: {len(problems)} problems in the annotations"]
    lines += [f"  {problem}" for problem in shown]
    if len(problems) > len(shown):
        lines.append(f"  ... and {len(problems) - len(shown)} more")
    raise UserError(*lines)
