"""What every engine offers. An engine is a module with these names, and one line in `ENGINES`."""

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
    """A network with all that follows it, on arrays: what `singleshot.detectors.whole.Whole` is on tensors."""

    def __call__(self, pixels: Floats, limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Normalised pixels [B, 3, H, W] and the (height, width) of each image within them [B, 2].

        Returns boxes [B, D, 4] xyxy in pixels of the input, scores [B, D] (0 where there are no more) and labels
        [B, D], best first.
        """


class Engine(Protocol):
    """One way to run a detector, and the kind of file that it is run from."""

    PRECISIONS: tuple[str, ...]
    """The number formats that it computes in, such as ("fp32", "int8")."""

    def export(self, whole: Whole, spec: Spec, path: Path) -> None:
        """Write a detector and what surrounds it to one file, which appears whole or not at all.

        `spec` says which input size and batch the file is made for.

        Raises:
            UserError: the detector, the size or the batch is not possible here; the file cannot be written.
        """

    def open(self, path: Path, device: str) -> tuple[Spec, Run]:
        """What surrounds the network of a file, with the sizes and batches that it takes, and the way to run it.

        Raises:
            UserError: the file is missing, broken or of another kind; the device is not possible here.
        """
