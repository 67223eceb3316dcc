"""PyTorch, from a weights file: the reference for all other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from singleshot.engines.engine import Floats, Integers, Options, Run
from singleshot.spec import Spec

NAME, TITLE, SUFFIX = "torch", "PyTorch", ".safetensors"
PRECISIONS = ("fp32", "bf16")
PACKAGES: tuple[str, ...] = ()
EXTRA: str | None = None


def export(form: Any, path: Path) -> None:
    """Write the weights file of the detector that the form was made from."""
    from singleshot.weights import checkpoint

    checkpoint.save(form.detector, path)


def open(path: Path, options: Options) -> tuple[Spec, Run]:
    """Load the detector of a weights file, with a builder of this package. Raises `UserError` as `checkpoint.load`."""
    import torch

    from singleshot.detectors.whole import Whole
    from singleshot.weights import checkpoint

    whole = Whole(prepared(checkpoint.load(path, device=options.device), options)).eval()

    def run(images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Run on PyTorch: arrays to tensors and back."""
        device = whole.detector.device
        with torch.inference_mode():
            boxes, scores, labels = whole(torch.from_numpy(images).to(device), torch.from_numpy(limits).to(device))
        return boxes.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()

    return whole.detector.spec, run


def prepared(detector: Any, options: Options) -> Any:
    """Let a detector that was loaded run as the options say. The number of threads is that of the process."""
    import torch

    from singleshot.errors import UserError

    if options.precision == "int8":
        raise UserError(
            "PyTorch computes in fp32 or bf16 here, and int8 is asked for: "
            "singleshot export MODEL --precision int8 --calibrate DATA --out MODEL.xml"
        )
    if options.precision != "auto" or options.exact:
        detector.precision = "bf16" if options.precision == "bf16" else "fp32"
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return detector
