"""A detector as a graph: from images to detections, with everything that an engine has to compute inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from singleshot.anchors import AnchorGenerator
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.ops.suppression import survivors
from singleshot.postprocess import vary
from singleshot.postprocess.fixed import Suppress, detections
from singleshot.preprocess.pixels import Pixels
from singleshot.preprocess.preprocess import Size
from singleshot.ranges import check_area
from singleshot.spec import INPUTS, OUTPUTS, Spec
from singleshot.structures import Anchors, Predictions
from singleshot.twin import twin

DETECTIONS = ("boxes", "scores", "labels", "count")
"""The outputs of a graph with `outputs` "detections", in this order."""


class Exportable(nn.Module):
    """A detector from images to detections, as PyTorch, ONNX and OpenVINO take it. `exportable` makes it.

    `forward(images)`, or `forward(images, limits)` for a detector that keeps the aspect ratio:

    - `images`: uint8 RGB [B, H, W, 3] at the network's size, or with `spec.input` "pixels" float32 [B, 3, H, W],
      normalised, with 0 in the padding.
    - `limits`: float32 [B, 2], the (height, width) of each image within the input; the rest is padding, whatever it
      holds.

    Returns `boxes` [B, D, 4] float32 xyxy in pixels of the input, `scores` [B, D] float32, `labels` [B, D] int64 and
    `count` [B] int64, best first; rows after the first `count` are 0. With `spec.outputs` "raw" it returns what the
    network predicts, [B, A, n] for each name in `output_names`, then the anchors.

    The detector's own weights are used: do not train it between the making and the export.
    """

    anchors: Tensor | None
    detector: Detector

    def __init__(self, detector: Detector, spec: Spec, suppress: Suppress) -> None:
        super().__init__()
        self.spec, self.suppress = spec, suppress
        self.__dict__["detector"] = detector  # whose parts are used here: it is no part itself
        self.backbone, self.neck, self.head = detector.backbone, detector.neck, detector.head
        self.refiner, self.anchor_maker, self.postprocess = detector.refiner, detector.anchors, detector.postprocess
        self.padded = detector.preprocess.padded
        self.pixels: Pixels = detector.preprocess.pixels
        self.counts: tuple[int, ...] | None = None
        self._raw_names: tuple[str, ...] | None = None
        made: Tensor | None = None
        if spec.input_size is not None:
            anchors = detector.anchors_for(spec.input_size, "cpu")
            made, self.counts = anchors.boxes.clone(), anchors.counts
        self.register_buffer("anchors", made, persistent=False)
        self.eval()

    # ------------------------------------------------------------------ what it takes and gives
    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return ("images", "limits") if self.padded else ("images",)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        if self.spec.outputs == "detections":
            return DETECTIONS
        if self._raw_names is None:
            with torch.no_grad():
                self._raw_names = tuple(self._raw(*self._predicted(self.example(1))[:3]))
        return self._raw_names

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input; -1 where it is free."""
        least, most = self.spec.batch
        batch = least if least == most else -1
        height, width = self.spec.input_size or (-1, -1)
        image = (batch, height, width, 3) if self.spec.input == "image" else (batch, 3, height, width)
        return (image, (batch, 2)) if self.padded else (image,)

    def example(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Inputs to trace it with: black images of the network's size, or of one that is like most others."""
        height, width = self.spec.input_size or self._usual_size()
        if self.spec.input == "image":
            images = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
        else:
            images = torch.zeros(batch, 3, height, width)
        limits = torch.tensor([[height, width]] * batch, dtype=torch.float32)
        return (images, limits) if self.padded else (images,)

    def _usual_size(self) -> Size:
        """A size, where it is free, at which no map has a side of 1: PyTorch would make this a rule of the graph."""
        step = getattr(self.spec.preprocess, "divisor", 1)
        stride = int(max(cast(AnchorGenerator, self.anchor_maker).strides))
        return -(-3 * stride // step) * step, -(-4 * stride // step) * step

    def program(self) -> torch.export.ExportedProgram:
        """The graph of `torch.export`, with a free batch where `spec.batch` says so."""
        least, most = self.spec.batch
        fixed = least == most
        batch = {} if fixed else {0: torch.export.Dim("batch", min=least, max=most)}
        shapes: list[dict[int, Any]] = [dict(batch) for _ in self.input_names]
        if self.spec.input_size is None:
            step = getattr(self.spec.preprocess, "divisor", 1)
            for name, axis in (("height", 1), ("width", 2)):
                axis = axis if self.spec.input == "image" else axis + 1
                shapes[0][axis] = step * torch.export.Dim(name, min=1) if step > 1 else torch.export.Dim(name)
        with torch.no_grad():
            example = self.example(least if fixed else max(2, least))
            return torch.export.export(self, example, dynamic_shapes=(tuple(shapes),))

    # ------------------------------------------------------------------ what it computes
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Images, and limits if the detector keeps the aspect ratio -> the outputs in the order of `output_names`."""
        predictions, anchors, keep, limits = self._predicted(inputs)
        if self.spec.outputs == "raw":
            return tuple(self._raw(predictions, anchors, keep).values())
        found = detections(self.postprocess, predictions, anchors, keep, limits, self.suppress)
        there = found.scores > 0
        boxes = torch.where(there[..., None], found.boxes, 0.0)
        return boxes, found.scores, torch.where(there, found.labels, 0), there.sum(1)

    def _predicted(self, inputs: Sequence[Tensor]) -> tuple[Predictions, Anchors, Tensor | None, Tensor]:
        """What the network predicts, the anchors of it, which of them are kept, and the limits of the images."""
        images = inputs[0]
        height, width = images.shape[1:3] if self.spec.input == "image" else images.shape[2:4]
        if self.padded:
            limits = inputs[1]
        else:
            limits = torch.tensor([height, width], dtype=torch.float32).expand(images.shape[0], 2)
        pixels = self._normalised(images, limits) if self.spec.input == "image" else images
        predictions, base = self._network(pixels, (height, width))
        anchors, keep = (base, None) if self.refiner is None else self.refiner.refine(predictions, base)
        return predictions, anchors, keep, limits

    def _normalised(self, images: Tensor, limits: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in the network's units and channel order, 0 in the padding."""
        values = images.permute(0, 3, 1, 2)
        mean, std = (torch.tensor(numbers, dtype=torch.float32) for numbers in (self.pixels.mean, self.pixels.std))
        if self.pixels.order == "bgr":
            values, mean, std = values.flip(1), mean.flip(0), std.flip(0)
        values = (values.float() / 255 - mean[:, None, None]) / std[:, None, None]
        if not self.padded:
            return values
        # The middle of each pixel is compared: limits may be a rounding beside a whole number.
        rows, columns = (torch.arange(n, dtype=torch.float32) + 0.5 for n in values.shape[2:])
        inside = (rows[:, None] < limits[:, :1, None]) & (columns < limits[:, 1:, None])  # [B, H, W]
        return torch.where(inside[:, None], values, 0.0)

    def _network(self, pixels: Tensor, size: Size) -> tuple[Predictions, Anchors]:
        maps = self.backbone(pixels)
        levels = self.neck(maps)
        predictions: Predictions = self.head(levels)
        if self.refiner is not None:
            predictions = {**self.refiner(maps), **predictions}
        if self.anchors is not None and self.counts is not None:
            return predictions, Anchors(self.anchors, self.counts)
        return predictions, free_anchors(cast(AnchorGenerator, self.anchor_maker), levels, size)

    def _raw(self, predictions: Predictions, anchors: Anchors, keep: Tensor | None) -> dict[str, Tensor]:
        first = () if self.refiner is None else ("anchor_logits", "anchor_deltas")
        told = {name: values for name, values in predictions.items() if name not in first}
        told["anchors"] = anchors.boxes
        if keep is not None:
            told["keep"] = keep
        return told


def exportable(
    detector: Detector,
    input: str = "image",
    outputs: str = "detections",
    threshold: float | None = None,
    size: Size | None = None,
    batch: tuple[int, int | None] | int = (1, None),
    *,
    free_size: bool | None = None,
    suppress: Suppress = survivors,
) -> Exportable:
    """A detector as a graph to be exported, with its `Spec`.

    Args:
        detector: in any mode and on any device; it is not changed.
        input: "image" (uint8 [B, H, W, 3], normalised inside) or "pixels" (float32 [B, 3, H, W], normalised).
        outputs: "detections", or "raw" for the network alone.
        threshold: the lowest score, in place of the detector's own.
        size: (height, width) of the input. By default it is the detector's, and free for detectors that keep the aspect
            ratio: their anchors are then computed in the graph.
        batch: how many images the graph takes: a number, or the fewest and the most (None: any).
        free_size: whether height and width are free where no size is given; None: where the detector allows it.
        suppress: how greedy NMS is written into the graph.

    Raises:
        UserError: a choice that is not possible for this detector.
    """
    for name, value, choices in (("input", input, INPUTS), ("outputs", outputs, OUTPUTS)):
        if value not in choices:
            raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    least, most = (batch, batch) if isinstance(batch, int) else batch
    own = _own(detector)
    if threshold is not None:
        own.postprocess = vary(own.postprocess, "threshold", threshold)
    wanted = _size(own, own.image_size if size is None and free_size is False else size)
    spec = replace(own.spec, input_size=wanted, batch=(least, most), input=input, outputs=outputs, precision="fp32")
    return Exportable(own, spec, suppress)


def _size(detector: Detector, size: Sequence[int] | None) -> Size | None:
    """The fixed (height, width) of the input; None if it is free."""
    if size is None:
        free = detector.preprocess.padded and type(detector.anchors) is AnchorGenerator
        return None if free else detector.image_size
    height, width = size
    check_area((height, width))
    if not detector.preprocess.padded and (height, width) != detector.image_size:
        told = "x".join(map(str, detector.image_size))
        raise UserError(f"this detector takes images of {told} only, got {height}x{width}; leave the size out")
    return height, width


def free_anchors(maker: AnchorGenerator, levels: Sequence[Tensor], size: Size) -> Anchors:
    """The anchors of maps of any size, computed from the shapes of the maps within the graph."""
    found, counts = [], []
    for stride, sides, level in zip(maker.strides, maker.sizes, levels, strict=True):
        rows, columns = level.shape[-2], level.shape[-1]
        half, first, step = maker.cell(stride, sides, size, (rows, columns))
        y = (torch.arange(rows, dtype=torch.float32) * step[0] + first)[:, None].expand(rows, columns)
        x = (torch.arange(columns, dtype=torch.float32) * step[1] + first)[None].expand(rows, columns)
        centres = torch.stack([x, y], -1).reshape(-1, 1, 2)
        found.append(torch.cat([centres - half.float(), centres + half.float()], -1).reshape(-1, 4))
        counts.append(rows * columns * len(half))
    return Anchors(torch.cat(found), tuple(counts))


def _own(detector: Detector) -> Detector:
    """A detector over the same weights, in eval mode; they are copied if they are not float32 on the CPU."""
    own = twin(detector, shared=() if detector.network == detector._parts else (detector.network,))
    same = own.device.type == "cpu" and own.dtype == torch.float32
    return own if same else copy.deepcopy(own).cpu().float()
