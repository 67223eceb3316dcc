"""A new detector in 25 lines: RetinaNet, with anchors that RefineDet's first module moves and filters.

    python examples/new_detector.py

Neither paper has it, but all its parts are theirs. docs/new_detector.md explains line by line what each part needs from
the others. It is trained like any detector, in the folder of this file:

    singleshot train my_data --builder new_detector:refined_retinanet
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import singleshot as ss
from singleshot import backbones
from singleshot.anchors import AnchorGenerator, octave_sizes
from singleshot.coders import DeltaCoder
from singleshot.data.shapes import CLASS_NAMES, draw_shapes
from singleshot.detectors import remembers_arguments
from singleshot.detectors.classes import Classes
from singleshot.heads import Branch, Head
from singleshot.losses.criterion import Criterion
from singleshot.losses.focal import FocalLoss
from singleshot.losses.regression import SmoothL1
from singleshot.matchers import IoUMatcher
from singleshot.necks import FPN, Extra, ExtraLevels
from singleshot.postprocess import ClassScores, PerLevelPostprocess
from singleshot.preprocess import Stretch
from singleshot.refiner import OUTPUTS, AnchorRefiner


@remembers_arguments
def refined_retinanet(
    *,
    num_classes: int,
    backbone: str = "mobilenetv2",
    image_size: int = 320,
    backbone_weights: str | None = None,
    channels: int = 64,
    theta: float = 0.99,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> ss.Detector:
    """A refiner on the backbone's maps, followed by RetinaNet's pyramid, shared towers, focal loss and inference."""
    maps = ExtraLevels(backbones.build(backbone, weights=backbone_weights), [Extra(128, 256), Extra(128, 256)])
    pyramid = FPN(maps.channels, maps.strides, channels, coarser=False)
    anchors = AnchorGenerator(maps.strides, octave_sizes([4.0 * stride for stride in maps.strides], 3))
    coder, loss = DeltaCoder((0.1, 0.2)), FocalLoss()
    first = Head(maps.channels, anchors.per_location, [Branch(outputs) for outputs in OUTPUTS])
    classes = Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias}, 2, "group")
    boxes = Branch({"box_deltas": 4}, depth=2, norm="group")
    return ss.Detector(
        preprocess=Stretch((image_size, image_size)),
        backbone=maps,
        refiner=AnchorRefiner(first, coder, theta=theta),
        neck=pyramid,
        head=Head(pyramid.channels, anchors.per_location, [classes, boxes], shared=True),
        anchors=anchors,
        criterion=Criterion(
            IoUMatcher(positive=0.5, negative=0.4, low_quality="all"),
            {"classification": loss, "box": SmoothL1()},
            coder,
            at_least_one=True,
        ),
        postprocess=PerLevelPostprocess(coder, ClassScores(loss)),
        classes=Classes.of(num_classes, class_names, category_ids),
    )


def batch(step: int, count: int = 4) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Generated pictures [3, H, W], and their boxes in pixels."""
    drawn = [draw_shapes(np.random.default_rng([step, i])) for i in range(count)]
    images = [torch.from_numpy(one.image.transpose(2, 0, 1).copy()) for one in drawn]
    targets = [{"boxes": torch.from_numpy(one.boxes).float(), "labels": torch.from_numpy(one.labels)} for one in drawn]
    return images, targets


def main(steps: int = 20) -> list[float]:
    """Train a little, save, load, and check that nothing has changed. Returns the loss of each step."""
    torch.manual_seed(0)
    detector = refined_retinanet(num_classes=len(CLASS_NAMES), class_names=CLASS_NAMES, image_size=128).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    totals = []
    for step in range(steps):
        losses = detector(*batch(step))  # "anchor_classification" and "anchor_box" are the refiner's losses
        total = sum(losses.values(), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
        print(f"step {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.safetensors"
        ss.save(detector, path)
        again = ss.load(path, builder=refined_retinanet)
    images, _ = batch(steps)
    with torch.no_grad():
        pairs = zip(detector.eval()(images), again(images), strict=True)
        assert all(torch.equal(one[key], other[key]) for one, other in pairs for key in one)
    print("saved, loaded and equal;", sum(p.numel() for p in again.parameters()), "parameters")
    return totals


if __name__ == "__main__":
    main()
