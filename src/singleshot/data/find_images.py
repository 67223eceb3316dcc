"""Finds the images that an annotation file names, without asking the disk for each one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from singleshot.data.folders import files, folders
from singleshot.data.splits import is_split_name


class ImageFinder:
    """Finds images by name in the usual folders, and lists each folder once.

    A name may be a stranger's: it may not lead out of the folder `inside` (None: it may lead anywhere). Links in this
    folder are followed, since its owner has put them there.
    """

    def __init__(self, source: Path, split: str, inside: Path | None) -> None:
        here = source.absolute().parent
        near, far = [here, here.parent], [here.parent.parent, here.parent.parent.parent]
        own = [split, f"images/{split}", f"{split}/images"]
        inner = [*own, "images", "JPEGImages", "Images", "img", "imgs", "data"]
        places = [root / name for root in near for name in inner]
        self.expected = next((place for place in places if place.is_dir()), here)
        # Of the folders further up, only those with a usual name count: an unrelated folder must not be taken for ours.
        places += [*near, *(root / name for root in far for name in inner)]
        self.folders = [place for place in dict.fromkeys(places) if place.is_dir()]
        self.inside = inside
        # By its last part alone, a name that leads elsewhere is searched for here.
        self.searched = [place for place in self.folders if place not in near]
        self.searched += [place for place in near if inside is None or _lies_in(place, [inside])]
        self.subfolders: dict[Path, set[str]] = {}  # place -> the names in it
        self.tables: dict[str, dict[str, Path]] = {}
        # A split without its own folder uses the images of other splits: valminusminival2014 lies in val2014.
        self.has_own = any((root / name).is_dir() for root in near for name in own)
        self.near = near
        self.others: dict[str, Path] | None = None

    def path(self, name: str) -> Path | None:
        """The image of this name, or the place where it is expected if it is not found. None if that is outside."""
        name = _plain(name)
        parent, _, base = name.rpartition("/")
        for inner in dict.fromkeys((parent, "")):  # with the folders in its name, then without
            folder = self._table(inner).get(base)
            if folder is not None and (not _leads(name) or _leads(inner) or _lies_in(folder, self.searched)):
                return folder / base
        if not self.has_own and (folder := self._other_splits().get(base)) is not None:
            return folder / base
        return self._within(self.expected, name)

    def replaced(self, name: str, found: Path) -> Path | None:
        """Where a name leads, by `..` or as an absolute path, if `found` is another image that has its last part only.

        None if the name means `found` itself.
        """
        name = _plain(name)
        if not _leads(name) or "/" not in name:
            return None
        meant = [Path(os.path.normpath(place / name)) for place in (self.expected, *self.folders)]
        return None if found in meant else meant[0]

    def _within(self, place: Path, inner: str) -> Path | None:
        """What `inner` means below a place; None if it leads out of the data. The disk is not asked for that."""
        if not _leads(inner):  # nearly always
            return place / inner
        path = Path(os.path.normpath(place / inner))
        return path if self.inside is None or _lies_in(path, [self.inside]) else None

    def _may_be(self, place: Path, inner: str) -> bool:
        """Whether a place can have a folder `inner`, without asking the disk for each of very many."""
        first = inner.partition("/")[0]
        if not first or first.startswith(".") or _leads(inner):
            return True
        if place not in self.subfolders:
            self.subfolders[place] = {name.casefold() for name in folders(place)}
        return first.casefold() in self.subfolders[place]

    def _table(self, inner: str) -> dict[str, Path]:
        """File name -> its folder, over all places; the first place counts."""
        if inner not in self.tables:
            table: dict[str, Path] = {}
            for place in self.folders:
                folder = self._within(place, inner)
                if folder is not None and self._may_be(place, inner):
                    for base in files(folder):
                        table.setdefault(base, folder)
            self.tables[inner] = table
        return self.tables[inner]

    def _other_splits(self) -> dict[str, Path]:
        """File name -> its folder, over the folders of other splits; without the names that two of them have."""
        if self.others is None:
            places = [place for root in self.near for base in (root, root / "images") for place in _split_folders(base)]
            found: dict[str, Path] = {}
            twice: set[str] = set()
            for place in dict.fromkeys(places):
                for name in files(place):
                    if found.setdefault(name, place) != place:
                        twice.add(name)
            self.others = {name: place for name, place in found.items() if name not in twice}
        return self.others


def _plain(name: str) -> str:
    return name.replace("\\", "/")


def _lies_in(path: Path, places: Sequence[Path]) -> bool:
    text = f"{path}{os.sep}"
    return any(text.startswith(str(place).rstrip(os.sep) + os.sep) for place in places)


def _leads(name: str) -> bool:
    """Whether a name may lead out of the folder in which it is searched: by `..`, as an absolute path, by a drive."""
    return name.startswith("/") or ".." in name or ":" in name


def _split_folders(root: Path) -> list[Path]:
    """The subfolders that have the name of a split."""
    return [folder for name, folder in folders(root).items() if is_split_name(name)]
