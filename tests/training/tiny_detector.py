"""A detector small enough to be trained in a test: two maps, no batch norm, dropout as a switch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from singleshot.anchors import DefaultBoxes
from singleshot.backbones.backbone import Backbone
from singleshot.coders import DeltaCoder
from singleshot.detectors import Detector, remembers_arguments, ssd_boxes
from singleshot.detectors.classes import Classes
from singleshot.heads import Branch, Head
from singleshot.losses.classification import SoftmaxLoss
from singleshot.losses.criterion import Criterion
from singleshot.losses.regression import SmoothL1
from singleshot.matchers import IoUMatcher
from singleshot.ops.fit import ShortSide
from singleshot.postprocess import ClassScores, PerClassPostprocess
from singleshot.preprocess import KeepAspect, Stretch

OWN = "tiny_detector:tiny"  # how a user names it


class Trunk(Backbone):
    """Strides 8 and 16."""

    channels = (8, 12)
    strides = (8, 16)

    def __init__(self, dropout: float, norm: bool) -> None:
        super().__init__()
        between: nn.Module = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 8, 8), between, nn.Tanh(), nn.Dropout(dropout))
        self.second = nn.Sequential(nn.Conv2d(8, 12, 2, 2), nn.Tanh())

    def forward(self, pixels: Tensor) -> list[Tensor]:
        first = self.first(pixels)
        return [first, self.second(first)]

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        return [[self.first], [self.second]]


@remembers_arguments
def tiny(
    *,
    num_classes: int,
    dropout: float = 0.0,
    norm: bool = False,
    short_side: int | None = None,
    jitter: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int | str] | None = None,
) -> Detector:
    trunk = Trunk(dropout, norm)
    loss, coder = SoftmaxLoss(ratio=3), DeltaCoder((0.1, 0.2))
    anchors = DefaultBoxes(ssd_boxes.level_groups((16, 32, 60)))
    sizes = None if jitter is None else (jitter[0], jitter[1])
    return Detector(
        preprocess=KeepAspect(ShortSide(short_side, 96), divisor=16, jitter=sizes) if short_side else Stretch((64, 64)),
        backbone=trunk,
        neck=nn.Identity(),
        head=Head(
            trunk.channels,
            anchors.per_location,
            branches=[
                Branch({"class_logits": loss.num_logits(num_classes)}, {"class_logits": loss.initial_bias}),
                Branch({"box_deltas": 4}),
            ],
        ),
        anchors=anchors,
        criterion=Criterion(IoUMatcher(positive=0.5, negative=0.5), {"classification": loss, "box": SmoothL1()}, coder),
        postprocess=PerClassPostprocess(coder, ClassScores(loss)),
        classes=Classes.of(num_classes, class_names, category_ids),
    )
