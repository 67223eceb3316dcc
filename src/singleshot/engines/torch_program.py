"""PyTorch's own exported graph, for `.pt2` files: written here, and run by `torch.export.load` without this package.

Only files that the same process wrote are opened. Reading this format can run code that a file holds: PyTorch unpickles
parts of it and calls any function that it names.
"""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from singleshot.engines.engine import Floats, Integers, Options, Run
from singleshot.engines.graph_file import KEY
from singleshot.errors import UserError
from singleshot.files import write_atomically
from singleshot.spec import Spec

NAME, TITLE, SUFFIX = "torch", "PyTorch", ".pt2"
PRECISIONS = ("fp32",)
PACKAGES: tuple[str, ...] = ()
EXTRA: str | None = None

_written: dict[Path, Spec] = {}


def export(form: Any, path: Path) -> None:
    """Write the `.pt2` file of a form. Greedy NMS becomes a loop of PyTorch's operators, which needs no package."""
    import torch

    from singleshot.ops.suppression import survivors_in_loops

    own = copy.copy(form)
    own.suppress = survivors_in_loops
    held = io.BytesIO()
    torch.export.save(own.program(), held, extra_files={KEY: form.spec.to_text()})
    write_atomically(path, held.getvalue())
    _written[path.resolve()] = form.spec


def open(path: Path, options: Options) -> tuple[Spec, Run]:
    """A file that `export` wrote in this process, to compare it with its detector.

    Raises:
        UserError: for every other file.
    """
    import torch

    spec = _written.get(path.resolve())
    if spec is None:
        raise UserError(
            f"{path}: a .pt2 file is for PyTorch itself (torch.export.load), which may run code that the file holds; "
            "give the .safetensors file from which it was exported, or export it as .onnx or .xml"
        )
    # Its guards tell how PyTorch would order memory, which images with next to no height or width would change.
    program: Any = torch.export.load(path).module(check_guards=False)

    def run(images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        """Run on PyTorch: arrays to tensors and back."""
        given = (images, limits) if spec.preprocess is None or spec.preprocess.padded else (images,)
        with torch.no_grad():
            boxes, scores, labels = program(*map(torch.from_numpy, given))[:3]
        return boxes.numpy(), scores.numpy(), labels.numpy()

    return spec, run
