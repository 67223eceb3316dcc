"""PyTorch, from a weights file: the reference for all other engines."""

from __future__ import annotations

from pathlib import Path

import torch

from singleshot.detectors.detector import PRECISIONS as PRECISIONS
from singleshot.detectors.whole import Whole
from singleshot.engines.engine import Floats, Integers, Run
from singleshot.spec import Spec
from singleshot.weights import checkpoint


def export(whole: Whole, spec: Spec, path: Path) -> None:
    """Write the detector's weights file; `spec` is the detector's own."""
    checkpoint.save(whole.detector, path)


def open(path: Path, device: str) -> tuple[Spec, Run]:
    """Load the detector of a weights file, with a builder of this package. Raises `UserError` as `checkpoint.load`."""
    whole = Whole(checkpoint.load(path, device=device)).eval()

    def run(pixels: Floats, limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Run on PyTorch: arrays to tensors and back."""
        with torch.inference_mode():
            boxes, scores, labels = whole(torch.from_numpy(pixels).to(device), torch.from_numpy(limits).to(device))
        return boxes.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()

    return whole.detector.spec, run
