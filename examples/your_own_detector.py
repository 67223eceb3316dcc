"""Your own detector, built from parts: SSD's boxes and matching, with a focal loss in place of the softmax.

    python examples/your_own_detector.py

A part is a frozen dataclass or a module. A builder is a function that puts parts together, in the order of the data
flow. With `remembers_arguments` the detector can be saved and loaded. On the command line the builder is given by its
path: `singleshot train my_data --builder my_lab.models:my_detector`. It gets the `arguments` of the recipe; for
`finetune` these are `backbone` and `image_size`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import singleshot as ss
from singleshot import backbones
from singleshot.anchors import BoxGroup, DefaultBoxes
from singleshot.coders import DeltaCoder
from singleshot.detectors import remembers_arguments
from singleshot.detectors.classes import Classes
from singleshot.heads import Branch, Head
from singleshot.losses.criterion import Criterion
from singleshot.losses.regression import SmoothL1
from singleshot.matchers import IoUMatcher
from singleshot.necks import Extra, ExtraLevels
from singleshot.postprocess import ClassScores, PerClassPostprocess
from singleshot.preprocess import Stretch
from singleshot.structures import Matched, Predictions


@dataclass(frozen=True)
class FocalLoss:
    """One sigmoid per class; easy anchors have little weight (Lin et al., 2017, equation 5)."""

    alpha: float = 0.25
    gamma: float = 2.0
    prior: float = 0.01  # probability of an object at the start of training (section 4.1)

    @property
    def initial_bias(self) -> float:
        """The bias that makes every probability equal to `prior`."""
        return -math.log((1 - self.prior) / self.prior)

    def num_logits(self, num_classes: int) -> int:
        """One for each class; the background has no logit."""
        return num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [B, A, K] -> probability of each class [B, A, K]."""
        return logits.sigmoid()

    def __call__(self, predictions: Predictions, matched: Matched) -> Tensor:
        """The sum over all classes and all anchors that count."""
        logits = predictions["class_logits"]  # [B, A, K]
        truth = F.one_hot(matched.labels, logits.shape[-1]).float() * matched.positive[..., None]
        p = logits.sigmoid()
        p_t = p * truth + (1 - p) * (1 - truth)
        alpha_t = self.alpha * truth + (1 - self.alpha) * (1 - truth)
        loss = alpha_t * (1 - p_t) ** self.gamma * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return torch.where(matched.counted[..., None], loss, 0.0).sum()


@remembers_arguments
def focal_ssd(
    *,
    num_classes: int,
    backbone: str = "mobilenetv2",
    image_size: int = 256,
    backbone_weights: str | None = None,
    alpha: float = 0.25,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> ss.Detector:
    """A backbone and two extra levels, four boxes in each cell, focal loss."""
    maps = ExtraLevels(backbones.build(backbone, weights=backbone_weights), [Extra(128, 256), Extra(128, 256)])
    sizes = [image_size * share for share in torch.linspace(0.1, 0.8, len(maps.channels) + 1).tolist()]
    anchors = DefaultBoxes([[BoxGroup(a, b, (2.0,))] for a, b in pairwise(sizes)])
    coder = DeltaCoder((0.1, 0.2))
    loss = FocalLoss(alpha)
    outputs = [
        Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias}),
        Branch({"box_deltas": 4}),
    ]
    return ss.Detector(
        preprocess=Stretch((image_size, image_size)),
        backbone=maps,
        neck=nn.Identity(),
        head=Head(maps.channels, anchors.per_location, outputs),
        anchors=anchors,
        criterion=Criterion(IoUMatcher(positive=0.5, negative=0.4), {"classification": loss, "box": SmoothL1()}, coder),
        postprocess=PerClassPostprocess(coder, ClassScores(loss)),
        classes=Classes.of(num_classes, class_names, category_ids),
    )


def main() -> None:
    """Build it, compute the losses of one step, save it, load it, and check that nothing has changed."""
    torch.manual_seed(0)
    detector = focal_ssd(num_classes=3, image_size=128, class_names=("cat", "dog", "bird"))
    image = torch.rand(3, 120, 160)
    losses = detector([image], [{"boxes": torch.tensor([[20.0, 30, 90, 100]]), "labels": torch.tensor([1])}])
    print("losses:", {name: round(loss.item(), 3) for name, loss in losses.items()})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.safetensors"
        ss.save(detector, path)
        again = ss.load(path, builder=focal_ssd)
    before, after = detector.eval().predict(image), again.predict(image)
    assert torch.equal(before.boxes, after.boxes)
    print("saved, loaded and equal;", sum(p.numel() for p in again.parameters()), "parameters")


if __name__ == "__main__":
    main()
