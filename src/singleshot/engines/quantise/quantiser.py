"""The contract of quantisers: how the graph of an engine's file becomes one with int8 layers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

RANKED = 12
"""Samples for the costs of layers: their order needs fewer than the ranges of values."""

Feed = Mapping[str, NDArray[Any]]
"""The inputs of a graph for one image, by name."""


class Samples(Protocol):
    """The images that show which values occur. They may be gone through several times, always in the same order."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[Feed]:
        """Their feeds, one by one."""


class Quantiser(Protocol):
    """An exported float32 graph and samples, from which int8 files are made.

    Only layers with weights become int8 (convolutions, also those of the head), with what lies between them. What
    comes after the last of them (decoding, scores, top-k, NMS) stays float32: the graph itself tells which that is.
    """

    PACKAGES: tuple[str, ...]
    """The packages that it needs."""

    @property
    def layers(self) -> Sequence[str]:
        """The names of the layers in the graph, in order."""

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """The shapes of the layers' weights, in the same order."""

    def write(self, path: Path, keep: Collection[str] = ()) -> None:
        """Write the int8 file; the layers in `keep` stay float32. The same call writes the same file again."""

    def costs(self) -> Mapping[str, float]:
        """By layer, how far the outputs of the last layers move if only this layer is int8."""


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """Without nncf's log and bars."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
