"""The kinds of faults that the standing suite looks for: what a kind is, and the table of all.

A kind makes case after case (a file with some bytes changed, a run killed at one write) and knows what a right answer
to each is. A case depends only on the seed, the name of the kind and the number of the case, so that every one can be
made again. A new kind is one file with a `KIND`, and one line in `KINDS`.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KINDS: dict[str, str] = {
    "images": "faults.images",
    "annotations": "faults.annotations",
    "results": "faults.results",
    "recipes": "faults.recipes",
    "weights": "faults.weights",
    "downloads": "faults.downloads",
    "foreign": "faults.foreign",
    "ceilings": "faults.ceilings",
    "crash-train": "faults.crash:TRAIN",
    "crash-resume": "faults.crash:RESUME",
    "crash-detect": "faults.crash:DETECT",
    "crash-evaluate": "faults.crash:EVALUATE",
    "crash-analyse": "faults.crash:ANALYSE",
    "crash-shapes": "faults.crash:SHAPES",
    "crash-split": "faults.crash:SPLIT",
    "crash-show": "faults.crash:SHOW",
    "reading": "faults.reading",
    "threads": "faults.threads",
    "kill": "faults.kills:KILL",
    "signal": "faults.kills:SIGNAL",
    "two": "faults.kills:TWO",
    "worker": "faults.kills:WORKER",
}
"""Name -> module:name of the `Kind` (`KIND` where it is left out), imported when it is asked for."""


@dataclass(frozen=True)
class Case:
    """What one case does to the program."""

    what: str  # in words, for the report
    content: bytes = b""  # the file of the case; it is kept where there was a fault
    name: str = "content"  # the name of that file
    plan: Any = None  # what `check` needs besides


@dataclass(frozen=True)
class Kind:
    """Cases of one kind, and how an answer is judged.

    `make(rng, number)` gives case `number`; all chance comes from `rng`. `check(case, shared, folder)` does it in
    `folder`, which is empty and removed afterwards, and raises any exception where the answer is wrong: what the
    program may raise (a `UserError`) is caught there. `shared` is what `prepare(folder)` returned. It is called once in
    each process that runs cases.

    Each process runs many cases one after another. It is a fork of a process that has imported torch and singleshot and
    has no second thread. A case that ends the process, takes longer than `seconds` or more than `memory` is a fault.
    """

    line: str  # what is done, and what has to come of it
    make: Callable[[np.random.Generator, int], Case]
    check: Callable[[Case, Any, Path], None]
    cases: int  # in the long suite
    fast: int  # in the fast tests; 0: none
    prepare: Callable[[Path], Any] = lambda folder: None
    seconds: float = 30.0
    memory: int = 600  # megabytes above what the process had before the case


def find(name: str) -> Kind:
    """The kind of a name."""
    module, _, attribute = KINDS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute or "KIND")
    assert isinstance(kind, Kind), f"{KINDS[name]} is no Kind"
    return kind


def make(name: str, seed: int, number: int) -> Case:
    """One case, always the same for the same three values."""
    return find(name).make(np.random.default_rng([seed, zlib.crc32(name.encode()), number]), number)
