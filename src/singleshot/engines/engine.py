"""The contract of engines. An engine is a module with these names, and one line in `ENGINES`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from singleshot.spec import Spec

if TYPE_CHECKING:
    from singleshot.detectors.whole import Whole

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Run(Protocol):
    """A network with its post-processing, on arrays: the same as `singleshot.detectors.whole.Whole` on tensors."""

    def __call__(self, pixels: Floats, limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Run on normalised pixels [B, 3, H, W], with the (height, width) of each image within them [B, 2].

        Returns boxes [B, D, 4] xyxy in pixels of the input, scores [B, D] (0 in unused rows) and labels [B, D], best
        first.
        """


class Engine(Protocol):
    """One way to run a detector, and its kind of file."""

    PRECISIONS: tuple[str, ...]
    """The number formats that it computes in, such as ("fp32", "int8")."""

    def export(self, whole: Whole, spec: Spec, path: Path) -> None:
        """Write a detector and its `Spec` to one file. The file is written completely or not at all.

        `spec` gives the input size and the batch that the file is made for.

        Raises:
            UserError: the detector, the size or the batch is not possible here; the file cannot be written.
        """

    def open(self, path: Path, device: str) -> tuple[Spec, Run]:
        """The `Spec` of a file, with the sizes and batches that it takes, and a function that runs it.

        Raises:
            UserError: the file is missing, broken or of another kind; the device is not possible here.
        """
