"""The contract of a dataset format. The `FORMAT` of every module in this folder fulfils it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.gather import Gather


@dataclass(frozen=True)
class Split:
    """One split that a path offers. A format that must remember more for reading it derives its own class."""

    name: str  # the name that a user gives
    place: Path  # its file or folder; messages name it


S = TypeVar("S", bound=Split)


@dataclass(frozen=True)
class Format(Generic[S]):
    """A way to store images and their boxes on disk.

    `find(path)` returns the splits that a file or folder offers, or nothing if the path is not of this format. Every
    format is asked about every path, so `find` looks only at names and at the start of a few files. Use `data.folders`
    to list folders: it lists each folder once for all formats. A broken file that was meant for this format counts, so
    that `read` can say what is wrong with it.

    `read(split, gather)` puts the images and objects of one split into a `Gather`, in file order. It is called for
    each split when several are joined. It may read the headers of images, if boxes are relative to the size
    (`data.images.image_size`), but never pixels. It does not ask whether an image exists: the check does. Numbers,
    flags, ids and names of the file go through `conversions`, and no name in it leads out of `gather.inside`. A
    problem with one image goes to `gather.problem(image=...)`, which leaves that image out; UserError is for a file
    from which nothing can be read. A format without `read` can only be written.

    `write(dataset, out)` writes a dataset into a new folder.

    `lists(splits, parts)` describes a division into splits as lists beside the data. From the splits that are divided
    and the records of each new split it makes file -> content. It writes nothing.
    """

    title: str  # its usual name
    looks_like: str  # its typical files; the text follows "expected"
    holds: tuple[str, ...]  # what it can store about an image and its objects
    find: Callable[[Path], Sequence[S]]
    read: Callable[[S, Gather], None] | None = None
    write: Callable[[Dataset, Path], None] | None = None
    lists: Callable[[Sequence[S], Mapping[str, Sequence[ImageRecord]]], dict[Path, bytes]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data: whether it can be read and written, its typical files, and what it can store."""
        return {
            "reads": self.read is not None,
            "writes": self.write is not None,
            "looks_like": self.looks_like,
            "holds": list(self.holds),
        }
