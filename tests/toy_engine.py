"""A toy engine: the graph of `torch.export` in a file of its own kind. One file, and one line in `ENGINES`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from singleshot.engines.engine import Floats, Integers, Options, Run
from singleshot.spec import Spec

NAME, TITLE, SUFFIX = "toy", "the toy", ".toy"
PRECISIONS = ("fp32",)
PACKAGES: tuple[str, ...] = ()
EXTRA: str | None = None


def export(form: Any, path: Path) -> None:
    """The graph for the spec's input size, with what surrounds it beside it."""
    import torch

    spec = form.spec
    assert spec.input_size is not None
    least, most = spec.batch
    batch = torch.export.Dim("batch", min=least, max=most)
    images = torch.zeros(2, *spec.input_size, 3, dtype=torch.uint8)
    if spec.input == "pixels":
        images = images.permute(0, 3, 1, 2).float()
    example = images, torch.tensor([spec.input_size] * 2, dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(form, example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, path, extra_files={"spec": spec.to_text()})


def open(path: Path, options: Options) -> tuple[Spec, Run]:
    """The graph and what surrounds it."""
    import torch

    told = {"spec": ""}
    graph = torch.export.load(path, extra_files=told).module()

    def run(images: NDArray[Any], limits: Floats) -> tuple[Floats, Floats, Integers]:
        with torch.no_grad():
            boxes, scores, labels = graph(torch.from_numpy(images), torch.from_numpy(limits))[:3]
        return boxes.numpy(), scores.numpy(), labels.numpy()

    spec = Spec.from_json(json.loads(told["spec"]))
    options.computed(spec.precision, title=TITLE, bf16=False, where=f"{path}: ")
    return spec, run
