"""The contract of engines. An engine is a module with these names, and one line in `ENGINES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from singleshot.engines.options import Options as Options
from singleshot.spec import Spec

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Run(Protocol):
    """One call of a whole graph, network and post-processing, on arrays."""

    def __call__(self, images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Run on the images of a batch, with the (height, width) of each image within the input, [B, 2].

        The images are uint8 [B, H, W, 3] in RGB if the spec's `input` is "image", and float32 [B, 3, H, W], normalised,
        if it is "pixels".

        Returns boxes [B, D, 4] xyxy in pixels of the input, scores [B, D] (0 in unused rows) and labels [B, D], best
        first. The arrays belong to the caller.
        """


class Engine(Protocol):
    """One way to run a detector, and its kind of file.

    A module of an engine imports nothing heavy at its top: neither PyTorch nor the engine's own package.
    """

    NAME: str
    """What `engine=` and `--engine` call it."""

    TITLE: str
    """Its name for people."""

    SUFFIX: str
    """The ending of its files."""

    PRECISIONS: tuple[str, ...]
    """The number formats that it computes in, such as ("fp32", "int8")."""

    PACKAGES: tuple[str, ...]
    """The packages that it needs to run a model, beside those that this package always has."""

    EXTRA: str | None
    """The extra of this package that installs them, as in `pip install 'singleshot[EXTRA]'`."""

    def export(self, form: Any, path: Path) -> None:
        """Write a detector to one file (and what belongs beside it), completely or not at all.

        `form` is a module of PyTorch that maps images (and limits) to boxes, scores, labels and their count. Its `spec`
        is written too.

        Raises:
            UserError: the detector, the size or the batch is not possible here; the file cannot be written.
        """

    def open(self, path: Path, options: Options) -> tuple[Spec, Run]:
        """The `Spec` of a file, with the sizes and batches that it takes, and a function that runs it.

        Raises:
            UserError: the file is missing, broken or of another kind; the device or the precision is not possible
                here; a package is missing.
        """
