"""The one detector class: its parts, given by keyword, and the data flow between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from singleshot.anchors import AnchorMaker
from singleshot.data.deep import DeepRange
from singleshot.detectors.classes import Classes
from singleshot.detectors.fast import FastNetworks, in_training
from singleshot.detectors.images import check_images
from singleshot.detectors.sizes import Sizes
from singleshot.detectors.targets import checked_targets
from singleshot.detectors.whole import found_in
from singleshot.devices import fastest_precision
from singleshot.errors import UserError
from singleshot.eval_mode import evaluating
from singleshot.forked import torch_computes
from singleshot.image_input import Given, to_tensor
from singleshot.losses.criterion import Criterion
from singleshot.memory import keep_freed_memory
from singleshot.postprocess import Postprocess, stored
from singleshot.prediction import Prediction
from singleshot.preprocess import Preprocess
from singleshot.preprocess.preprocess import by_input_size
from singleshot.refiner import AnchorRefiner
from singleshot.spec import Spec, known_rule
from singleshot.stream import stream
from singleshot.structures import Anchors, Detections, ImageBatch, Matched, Predictions, Targets
from singleshot.twin import twin

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Raw:
    """What the network predicts for a batch, before losses or detections are computed."""

    predictions: Predictions
    anchors: Anchors  # the anchors of `box_deltas`; refined if there is a refiner
    batch: ImageBatch
    preprocess: Preprocess  # what made the batch
    base: Anchors  # before the refinement
    keep: Tensor | None = None  # [B, A] bool: the other anchors give no detections and are never hard negatives


class Detector(nn.Module):
    """A single-stage detector, put together from parts.

    Called with a list of images [3, H, W] (float in 0..1, or uint8) of any sizes. In training mode it needs targets and
    returns a dict of losses. Targets are a list of dicts with `boxes` [N, 4] xyxy pixels, `labels` [N] int64 in 0..K-1
    (background is not counted: torchvision counts from 1) and optionally `iscrowd` [N]. In eval mode it returns a list
    of `{"boxes", "scores", "labels"}` in pixels of each image, best first. `losses_and_detections` gives both from one
    forward pass.

    A detector in eval mode may be used by any number of threads at once; each gets what it would get alone. `predict`
    may also be called while another thread trains the detector, unless `network` was replaced: such a network is
    switched to eval mode meanwhile.

    `network` is the raw part: normalised pixels [B, 3, H, W] to a dict name -> float32 [B, A, n]. It may be replaced,
    for example by a compiled one. `singleshot.detectors.whole.Whole` is the part that is exported, including
    post-processing. `precision`, "fp32" or "bf16", is that of the network only; losses and boxes are always float32.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        anchors: AnchorMaker,
        criterion: Criterion,
        postprocess: Postprocess,
        preprocess: Preprocess,
        classes: Classes,
        refiner: AnchorRefiner | None = None,
    ) -> None:
        super().__init__()
        torch_computes()
        self.preprocess = preprocess
        self.backbone, self.refiner, self.neck, self.head = backbone, refiner, neck, head
        self.anchors, self.criterion, self.postprocess = anchors, criterion, postprocess
        self.class_names, self.category_ids = classes.names, classes.category_ids
        self.num_classes = len(classes.names)
        self.builder: str | None = None  # name and arguments of the builder, set by the builder; needed to save
        self.arguments: dict[str, Any] = {}
        self._precision: str | None = None  # fp32 in training, and the fastest to detect with
        self._deep_range: DeepRange | None = None
        self._network: Network | None = None  # replaces the parts if set
        self._sizes, self._fast = Sizes(), FastNetworks()

    # ------------------------------------------------------------------ what it is
    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.preprocess.size

    def seen_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image -> those to which it is resized for the network: no more needs to be decoded."""
        rule = known_rule(self.preprocess)
        return size if rule is None else rule.layout([size])[0][0]

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU for a detector without weights."""
        held = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if held is None else held.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights: float32, or 16 bits after `.half()`. The network's input becomes it too."""
        return next((held.dtype for held in self.parameters() if held.is_floating_point()), torch.float32)

    @property
    def spec(self) -> Spec:
        """What surrounds the network, as plain data: classes, pre-processing, numbers of the post-processing."""
        return Spec(
            self.class_names,
            self.category_ids,
            known_rule(self.preprocess),
            stored.store(self.postprocess),
            deep_range=self.deep_range,
        )

    @property
    def precision(self) -> str:
        """Precision of the network: "fp32" or "bf16".

        Until it is set, the detector trains in fp32, and `predict`, `detect` and `detect_dataset` compute in bf16 where
        the machine has it in hardware (AMX, AVX512-BF16, CUDA).
        """
        return self._precision or "fp32"

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {value!r}")
        self._precision = value

    @property
    def deep_range(self) -> DeepRange | None:
        """How grey images of more than 8 bits are read: (black, white), such as (0, 4095); None: the type's range.

        Set by training (`data.deep_range`) and kept in the detector's files.
        """
        return self._deep_range

    @deep_range.setter
    def deep_range(self, value: DeepRange | Sequence[float] | None) -> None:
        self._deep_range = DeepRange.of(value)

    # ------------------------------------------------------------------ the network
    @property
    def network(self) -> Network:
        """Normalised pixels [B, 3, H, W] -> name -> float32 [B, A, n], A the same for all names.

        Another function or module may be assigned, such as `torch.compile(detector.network)`; None restores the parts.
        It is only called: the detector moves, saves and switches between training and eval mode its own parts only.
        """
        return self._parts if self._network is None else self._network

    @network.setter
    def network(self, value: Network | None) -> None:
        if value is not None and not callable(value):
            raise UserError(f"network must be a function or a module of pixels, got {type(value).__name__}")
        self.__dict__["_network"] = None if value == self._parts else value

    def __setattr__(self, name: str, value: Any) -> None:
        # PyTorch would register an assigned module as a part, and the property `network` would then hide it.
        if name == "network":
            object.__setattr__(self, name, value)
        else:
            if name in ("backbone", "neck", "anchors"):  # another part may give other maps
                self._sizes = Sizes()
            super().__setattr__(name, value)

    def _parts(self, pixels: Tensor) -> Predictions:
        with self._autocast(pixels.device):
            maps = self.backbone(pixels.to(self.dtype))
            predictions = cast(Predictions, self.head(self.neck(maps)))
            return predictions if self.refiner is None else {**self.refiner(maps), **predictions}

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(device.type, torch.bfloat16)
        return nullcontext()

    def map_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """(h, w) of each map for an input of (height, width), from the network itself, without computing values."""
        return self._sizes.shapes(size, self.backbone, self.neck)

    def anchors_for(self, size: tuple[int, int], device: torch.device | str = "cpu") -> Anchors:
        """The anchors for an input of (height, width), on a device. Those of the latest sizes are kept."""

        def make() -> Anchors:
            with torch.inference_mode(False):  # ordinary tensors, because they are kept for training too
                made = self.anchors(self.map_shapes(size), size)
                usable = None if made.usable is None else made.usable.to(device)
                return Anchors(made.boxes.to(device), made.counts, usable)

        return self._sizes.anchors(size, torch.device(device), make)

    def evaluator(self) -> Detector | None:
        """The detector for `evaluating`: in eval mode this one with a `FastNetwork`, the same numbers up to rounding.

        In training mode it is a second one over the same weights. None where there can be no second one: `network` was
        replaced and may belong to this one, or a part cannot be copied.
        """
        if not in_training(self):
            return self if self._network is not None else self._with_fast_network()
        if self._network is not None:
            return None
        try:
            return twin(self, shared=(self._sizes,))
        except Exception:  # a user's part may fail in any way; it is then used as it is, in eval mode
            return None

    def _with_fast_network(self) -> Detector:
        """This detector, but with the network in its fastest form; all else is shared."""
        keep_freed_memory(self.device)
        self.map_shapes(self.image_size)  # they are kept, and asked from the usual network
        fast = self._fast.find(self, self._precision or fastest_precision(self.device))
        if fast is None:
            return self
        second = object.__new__(type(self))
        second.__dict__.update(self.__dict__, _network=fast)
        return second

    def train(self, mode: bool = True) -> Detector:
        """As `nn.Module.train`. In training mode no copy of the weights is kept that is there to detect with."""
        if mode:
            self._fast = FastNetworks()
        return super().train(mode)

    # ------------------------------------------------------------------ training and detection
    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        counts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in eval mode. As in torchvision, but labels are 0..K-1.

        `counts`: what to divide each loss by, in place of the counts of these images (`Detector.counts`).
        """
        if self.training:
            if targets is None:
                raise UserError("a detector in training mode needs targets; call .eval() to detect")
            truth = self._truth(images, targets)
            return self._losses(self.raw(images), truth, counts)
        batch = self._batch(images, self.preprocess)
        boxes, scores, labels = found_in(self, batch.pixels, batch.limits)
        return self.preprocess.restore(Detections(boxes, scores, labels), batch).to_list()

    def counts(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The number that each loss of these images is divided by, by name, 0-dim: mostly the number of positives.

        Give `forward` the sum of these over several batches. The losses of the batches then add up to the loss of one
        batch with all the images. The network runs only if its predictions decide the numbers (moved anchors, a loss
        with its own number). It runs in the current mode, with the operations of a training step, so that the step
        itself predicts the same.
        """
        truth = self._truth(images, targets)
        if self.refiner is None and not self.criterion.reads_predictions:
            batch = self._batch(images, self.preprocess)
            height, width = batch.pixels.shape[-2:]
            anchors = self.anchors_for((height, width), batch.pixels.device)
            return self.criterion.counts({}, anchors, self.preprocess.targets(truth, batch))
        raw = self.raw(images)
        boxes = raw.preprocess.targets(truth, raw.batch)
        predictions = {name: value.detach() for name, value in raw.predictions.items()}
        first = {} if self.refiner is None else self.refiner.counts(predictions, raw.base, boxes)
        return {**first, **self.criterion.counts(predictions, raw.anchors, boxes, raw.keep)}

    def losses_and_detections(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Both from one forward pass, in either mode (validation loss without a second pass)."""
        truth, raw = self._truth(images, targets), self.raw(images)
        return self._losses(raw, truth), self.detections(raw)

    def raw(self, images: Sequence[Tensor], *, preprocess: Preprocess | None = None) -> Raw:
        """The first half of `forward`: from images to predictions, with their anchors and sizes.

        `preprocess`: replaces the detector's own, for example with another size.
        """
        preprocess = preprocess or self.preprocess
        batch = self._batch(images, preprocess)
        predictions, base = self.predictions(batch.pixels)
        anchors, keep = self.refined(predictions, base)
        return Raw(predictions, anchors, batch, preprocess, base, keep)

    def predictions(self, pixels: Tensor) -> tuple[Predictions, Anchors]:
        """The network's predictions for normalised pixels [B, 3, H, W], and the regular anchors of that input size."""
        return self.network(pixels), self.anchors_for((pixels.shape[-2], pixels.shape[-1]), pixels.device)

    def refined(self, predictions: Predictions, anchors: Anchors) -> tuple[Anchors, Tensor | None]:
        """The anchors that the head's predictions refer to, and which of them are kept (None: all)."""
        return (anchors, None) if self.refiner is None else self.refiner.refine(predictions, anchors)

    @torch.no_grad()
    def detections(self, raw: Raw, postprocess: Postprocess | None = None) -> list[dict[str, Tensor]]:
        """The second half of `forward` in eval mode. Another post-processing may rank the same predictions again."""
        found = (postprocess or self.postprocess)(raw.predictions, raw.anchors, raw.keep, raw.batch.limits)
        return raw.preprocess.restore(found, raw.batch).to_list()

    def matched(self, raw: Raw, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Matched:
        """What each anchor should predict, as the criterion sees it."""
        truth = raw.preprocess.targets(self._truth(images, targets), raw.batch)
        return self.criterion.match(raw.anchors, truth, raw.keep)

    def _losses(self, raw: Raw, truth: Targets, counts: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        targets = raw.preprocess.targets(truth, raw.batch)
        first = {} if self.refiner is None else self.refiner.losses(raw.predictions, raw.base, targets, counts)
        return {**first, **self.criterion(raw.predictions, raw.anchors, targets, raw.keep, counts)}

    def _batch(self, images: Sequence[Tensor], preprocess: Preprocess) -> ImageBatch:
        check_images(images)
        return preprocess(images, self.device, training=self.training)

    def _truth(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Targets:
        if len(images) != len(targets):
            raise UserError(f"got {len(images)} images but {len(targets)} targets")
        return checked_targets(targets, self.num_classes, self.device)

    # ------------------------------------------------------------------ pictures
    def predict(
        self, source: ImageInput | Sequence[ImageInput], *, batch_size: int = 8
    ) -> Prediction | list[Prediction]:
        """Find objects in a path, PIL image, array [H, W, 3] uint8 RGB, or tensor [3, H, W]; a list gives a list.

        Always uses eval mode, and leaves the detector's own mode as it is. The network gets up to `batch_size` images
        of a list at a time. Images of a batch have the same input size, so none is padded, and results equal those of
        single images, up to rounding.
        """
        several = isinstance(source, (list, tuple))
        given = cast(Sequence[ImageInput], source) if several else (source,)
        images = (to_tensor(one, self.deep_range, seen=self.seen_size) for one in given)
        found = [prediction for _, prediction in stream(images, self._predict, batch_size=batch_size)]
        return found if several else found[0]

    @torch.no_grad()  # not inference mode: users get ordinary tensors
    def _predict(self, batch: list[Given[Tensor]]) -> list[Prediction]:
        """Images -> the prediction for each."""
        alike = by_input_size(self.preprocess, [image.reduced.picture for image in batch])
        found: dict[int, dict[str, Tensor]] = {}
        with evaluating(self) as detector:
            for places in alike.values():
                results = cast(list[dict[str, Tensor]], detector([batch[place].pixels for place in places]))
                found.update(zip(places, results, strict=True))
        predictions = []
        for place, image in enumerate(batch):
            whole = {**found[place], "boxes": image.reduced.boxes(found[place]["boxes"])}
            predictions.append(self.prediction(whole, image.reduced.size, image.path))
        return predictions

    def prediction(self, found: dict[str, Tensor], size: tuple[int, int], path: str | None = None) -> Prediction:
        """Detections of one image with the names of the classes, on the CPU."""
        return Prediction(
            found["boxes"], found["scores"], found["labels"], self.class_names, self.category_ids, size, path
        )


Network = Callable[[Tensor], Predictions]
ImageInput = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
