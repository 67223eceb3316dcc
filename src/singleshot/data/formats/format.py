"""What a dataset format is: the contract that every module of this folder fulfils with its `FORMAT`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.gather import Gather


@dataclass(frozen=True)
class Split:
    """One split that a path offers. A format that has to remember more for reading it derives a class of its own."""

    name: str  # as a user names it
    place: Path  # the file or folder that it stands in; messages name it


S = TypeVar("S", bound=Split)


@dataclass(frozen=True)
class Format(Generic[S]):
    """A way to keep images and their boxes on disk.

    `find(path)` gives the splits that a file or folder offers, and nothing where the path is not of this format. Every
    format is asked about every path, so it looks at names and at the start of a few files only. Folders are listed with
    `data.folders`, which lists each folder once for all formats. A broken file that was meant as one of this format
    counts as one, so that `read` can say what is wrong with it.

    `read(split, gather)` puts the images and objects of one split into a `Gather`, in the order of the files. It is
    called once for each split where several are joined. It may read the headers of images, where boxes are shares of
    the size (`data.images.image_size`), but never pixels, and it does not ask whether an image exists: the check does.
    What is wrong with one image goes to `gather.problem`; UserError is for a file of which nothing can be read.
    A format without `read` is only written.

    `write(dataset, out)` writes a dataset into a new folder.

    `lists(splits, parts)` says how images are divided into splits beside the data: for the splits that are divided, and
    the records of each new split, it gives files and their contents. It writes nothing.
    """

    title: str  # what people call it
    looks_like: str  # the files by which it is known, as a part of "expected ..."
    holds: tuple[str, ...]  # what it can say of an image and its objects
    find: Callable[[Path], Sequence[S]]
    read: Callable[[S, Gather], None] | None = None
    write: Callable[[Dataset, Path], None] | None = None
    lists: Callable[[Sequence[S], Mapping[str, Sequence[ImageRecord]]], dict[Path, bytes]] | None = None

    def to_json(self) -> dict[str, Any]:
        """The plain facts: whether it is read and written, how it looks, what it holds."""
        return {
            "reads": self.read is not None,
            "writes": self.write is not None,
            "looks_like": self.looks_like,
            "holds": list(self.holds),
        }
