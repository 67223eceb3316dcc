"""A toy engine: the graph of `torch.export` in a file of its own kind. One file, and one line in `ENGINES`."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from singleshot.detectors.whole import Whole
from singleshot.engines.engine import Floats, Integers, Run
from singleshot.spec import Spec

PRECISIONS = ("fp32",)


def export(whole: Whole, spec: Spec, path: Path) -> None:
    """The graph for the spec's input size, with what surrounds it beside it."""
    assert spec.input_size is not None
    least, most = spec.batch
    batch = torch.export.Dim("batch", min=least, max=most)
    example = torch.zeros(2, 3, *spec.input_size), torch.tensor([spec.input_size] * 2, dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(whole, example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, path, extra_files={"spec": spec.to_text()})


def open(path: Path, device: str) -> tuple[Spec, Run]:
    """The graph and what surrounds it."""
    told = {"spec": ""}
    graph = torch.export.load(path, extra_files=told).module()

    def run(pixels: Floats, limits: Floats) -> tuple[Floats, Floats, Integers]:
        with torch.no_grad():
            boxes, scores, labels = graph(torch.from_numpy(pixels), torch.from_numpy(limits))
        return boxes.numpy(), scores.numpy(), labels.numpy()

    return Spec.from_json(json.loads(told["spec"])), run
