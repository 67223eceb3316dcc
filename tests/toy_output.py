"""An extra output as somebody would add one: how large the object is, which has no part in the score."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from singleshot.losses.quality import quality_loss
from singleshot.ops.boxes import box_area
from singleshot.outputs.output import ExtraOutput
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class ToySize:
    """The area of the object, as a share of `largest` square pixels."""

    largest: float = 10_000.0

    def output(self) -> ExtraOutput:
        return ExtraOutput("size_logits", "size", self, factor=None)

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        return quality_loss(predictions["size_logits"], (box_area(matched.boxes) / self.largest).clamp(max=1), matched)
