"""The ports of SSD and RefineDet, slow and plain, from their own names and conventions.

Written from the published code of amdegroot/ssd.pytorch, lufficc/SSD and luuuyi/RefineDet.PyTorch: which layer reads
what, the default boxes as (x, y, width, height) in shares of the image, the decoding, the scores, the suppression. It
shares nothing with the package. Weights are random, of the published names; `width` divides the widths of the trunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # of VGG-16, in the flat list of layers
WIDTHS = (64, 128, 256, 512, 512)
FULL = 1024  # of fc6 and fc7
MEANS = (123.0, 117.0, 104.0)  # RGB


@dataclass(frozen=True)
class Project:
    """Names and settings of a project's SSD."""

    trunk: str
    norm: str
    extras: str
    classes: str
    boxes: str
    candidates: int | None
    kept: int


SSD_PYTORCH = Project("vgg.", "L2Norm", "extras.", "conf.", "loc.", candidates=200, kept=200)
_PREDICTOR = "box_head.predictor"
LUFFICC = Project(
    "backbone.vgg.", "backbone.l2_norm", "backbone.extras.", f"{_PREDICTOR}.cls_headers.",
    f"{_PREDICTOR}.reg_headers.", candidates=None, kept=100,
)  # fmt: skip
# (inputs, outputs, kernel, stride, padding) of the flat list of extra convolutions.
EXTRAS_300 = (
    (FULL, 256, 1, 1, 0), (256, 512, 3, 2, 1), (512, 128, 1, 1, 0), (128, 256, 3, 2, 1),
    (256, 128, 1, 1, 0), (128, 256, 3, 1, 0), (256, 128, 1, 1, 0), (128, 256, 3, 1, 0),
)  # fmt: skip
EXTRAS_512 = (
    *EXTRAS_300[:4], (256, 128, 1, 1, 0), (128, 256, 3, 2, 1), (256, 128, 1, 1, 0), (128, 256, 3, 2, 1),
    (256, 128, 1, 1, 0), (128, 256, 4, 1, 1),
)  # fmt: skip
VOC_300 = (30, 60, 111, 162, 213, 264, 315)
COCO_300 = (21, 45, 99, 153, 207, 261, 315)
VOC_512 = (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65)
COCO_512 = (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)
SIDES = {(300, 21): VOC_300, (300, 81): COCO_300, (512, 21): VOC_512, (512, 81): COCO_512}
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}


@dataclass
class Maker:
    """Makes random convolutions whose outputs are about as large as their inputs."""

    generator: torch.Generator
    made: dict[str, Tensor] = field(default_factory=dict)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, *, turned: bool = False) -> None:
        shape = (inputs, outputs) if turned else (outputs, inputs)
        deviation = math.sqrt(2 / (inputs * (1 if turned else kernel**2)))
        self.made[f"{name}.weight"] = torch.randn(*shape, kernel, kernel, generator=self.generator) * deviation
        self.made[f"{name}.bias"] = torch.randn(outputs, generator=self.generator) * 0.3

    def head(self, name: str, inputs: int, boxes: int, numbers: int, *, background: float = 0.0) -> None:
        self.conv(name, inputs, boxes * numbers, 3)
        self.made[f"{name}.weight"] *= 0.3
        self.made[f"{name}.bias"].view(boxes, numbers)[:, 0] += background

    def trunk(self, start: str, width: int) -> tuple[int, int, int]:
        """Returns the widths of conv4_3, conv5_3 and fc7."""
        before = 3
        for numbers, outputs in zip(CONVOLUTIONS, WIDTHS, strict=True):
            for number in numbers:
                self.conv(f"{start}{number}", before, outputs // width, 3)
                before = outputs // width
        self.made[f"{start}0.weight"] /= 60  # pixels from -123 to 151
        self.conv(f"{start}31", before, FULL, 3)
        self.conv(f"{start}33", FULL, FULL, 1)
        return WIDTHS[3] // width, before, FULL


def ssd_weights(project: Project, *, size: int, outputs: int, width: int, seed: int) -> dict[str, Tensor]:
    """A state dict of an SSD of a project."""
    maker = Maker(torch.Generator().manual_seed(seed))
    conv4, _, full = maker.trunk(project.trunk, width)
    maker.made[f"{project.norm}.weight"] = 20 + torch.rand(conv4, generator=maker.generator)
    extras = EXTRAS_300 if size == 300 else EXTRAS_512
    for number, (inputs, channels, kernel, _, _) in enumerate(extras):
        maker.conv(f"{project.extras}{number}", inputs, channels, kernel)
    for level, (inputs, boxes) in enumerate(
        zip((conv4, full, *(row[1] for row in extras[1::2])), _boxes(len(extras) // 2 + 2), strict=True)
    ):
        maker.head(f"{project.classes}{level}", inputs, boxes, outputs, background=6.0 if outputs < 10 else 8.0)
        maker.head(f"{project.boxes}{level}", inputs, boxes, 4)
    return maker.made


def _boxes(levels: int) -> list[int]:
    return [4, *[6] * (levels - 3), 4, 4]


def ssd(weights: Mapping[str, Tensor], project: Project, image: Tensor, *, size: int, sides: Sequence[float]) -> Found:
    """What the project's SSD finds in an image [3, H, W], 0 to 1."""
    x = prepared(image, size)
    conv4, _, full = trunk(weights, project.trunk, x, pool5=(3, 1, 1), dilation=6)
    maps = [normalised(conv4, weights[f"{project.norm}.weight"]), full]
    for number, (_, _, _, stride, padding) in enumerate(EXTRAS_300 if size == 300 else EXTRAS_512):
        full = conv(weights, f"{project.extras}{number}", full, stride=stride, padding=padding).relu()
        if number % 2:
            maps.append(full)
    logits = predicted(weights, project.classes, maps, len(weights[f"{project.classes}0.bias"]) // 4)
    deltas = predicted(weights, project.boxes, maps, 4)
    priors = []
    for level, features in enumerate(maps):
        side, ratios = sides[level], (2, 3) if _boxes(len(maps))[level] == 6 else (2,)
        shapes = [(side, side), (math.sqrt(side * sides[level + 1]),) * 2]
        for ratio in ratios:
            shapes += [
                (side * math.sqrt(ratio), side / math.sqrt(ratio)),
                (side / math.sqrt(ratio), side * math.sqrt(ratio)),
            ]
        priors += cells(features, STEPS[size][level], size, shapes)
    boxes = corners(decoded(deltas, torch.tensor(priors, dtype=torch.float64).clamp(0, 1)))
    return best(boxes, logits.softmax(1), image, candidates=project.candidates, kept=project.kept)


REFINED = "arm_loc", "arm_conf", "odm_loc", "odm_conf"


def refinedet_weights(*, outputs: int, width: int, seed: int) -> dict[str, Tensor]:
    """A state dict of luuuyi's RefineDet."""
    maker = Maker(torch.Generator().manual_seed(seed))
    inputs = [*maker.trunk("vgg.", width), 512]
    for name, channels, scale in (("conv4_3", inputs[0], 10.0), ("conv5_3", inputs[1], 8.0)):
        maker.made[f"{name}_L2Norm.weight"] = scale + torch.rand(channels, generator=maker.generator)
    maker.conv("extras.0", FULL, 256, 1)
    maker.conv("extras.1", 256, 512, 3)
    for level, channels in enumerate(inputs):
        maker.head(f"arm_loc.{level}", channels, 3, 4)
        maker.head(f"arm_conf.{level}", channels, 3, 2, background=3.0)
        maker.head(f"odm_loc.{level}", 256, 3, 4)
        maker.head(f"odm_conf.{level}", 256, 3, outputs, background=6.0 if outputs < 10 else 7.0)
        maker.conv(f"tcb0.{3 * level}", channels, 256, 3)
        maker.conv(f"tcb0.{3 * level + 2}", 256, 256, 3)
        maker.conv(f"tcb2.{3 * level + 1}", 256, 256, 3)
        if level < 3:
            maker.conv(f"tcb1.{level}", 256, 256, 2, turned=True)
    return maker.made


def refinedet(weights: Mapping[str, Tensor], image: Tensor, *, size: int) -> Found:
    """What luuuyi's RefineDet finds in an image [3, H, W], 0 to 1."""
    x = prepared(image, size)
    conv4, conv5, full = trunk(weights, "vgg.", x, pool5=(2, 2, 0), dilation=3)
    last = conv(weights, "extras.1", conv(weights, "extras.0", full).relu(), stride=2, padding=1).relu()
    maps = [
        normalised(conv4, weights["conv4_3_L2Norm.weight"]), normalised(conv5, weights["conv5_3_L2Norm.weight"]),
        full, last,
    ]  # fmt: skip
    finished: dict[int, Tensor] = {}
    for level in (3, 2, 1, 0):
        features = conv(weights, f"tcb0.{3 * level}", maps[level], padding=1).relu()
        features = conv(weights, f"tcb0.{3 * level + 2}", features, padding=1)
        if level < 3:
            name = f"tcb1.{level}"
            features = features + F.conv_transpose2d(
                finished[level + 1], weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2
            )
        finished[level] = conv(weights, f"tcb2.{3 * level + 1}", features.relu(), padding=1).relu()
    pyramid = [finished[level] for level in range(4)]
    moved = predicted(weights, "arm_loc.", maps, 4)
    objects = predicted(weights, "arm_conf.", maps, 2).softmax(1)[:, 1]
    logits = predicted(weights, "odm_conf.", pyramid, len(weights["odm_conf.0.bias"]) // 3)
    deltas = predicted(weights, "odm_loc.", pyramid, 4)
    priors = []
    for features, step, side in zip(maps, (8, 16, 32, 64), (32, 64, 128, 256), strict=True):
        root = math.sqrt(2)
        priors += cells(features, step, size, [(side, side), (side * root, side / root), (side / root, side * root)])
    scores = logits.softmax(1)
    scores[objects <= 0.01] = 0
    anchors = decoded(moved, torch.tensor(priors, dtype=torch.float64).clamp(0, 1))
    return best(corners(decoded(deltas, anchors)), scores, image, candidates=1000, kept=500)


Found = list[tuple[float, int, list[float]]]
"""(score, class with the background as 0, corners in pixels of the image), best first."""


def prepared(image: Tensor, size: int) -> Tensor:
    """RGB from 0 to 255 minus the means."""
    resized = F.interpolate(image[None], (size, size), mode="bilinear", align_corners=False)
    return 255 * resized - torch.tensor(MEANS)[:, None, None]


def conv(
    weights: Mapping[str, Tensor], name: str, x: Tensor, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """A convolution of the state dict."""
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding, dilation)


def trunk(
    weights: Mapping[str, Tensor], start: str, x: Tensor, *, pool5: tuple[int, int, int], dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """conv4_3, conv5_3 and fc7 after their ReLUs. Only the third pool rounds up."""
    found = []
    for block, numbers in enumerate(CONVOLUTIONS, 1):
        for number in numbers:
            x = conv(weights, f"{start}{number}", x, padding=1).relu()
        if block >= 4:
            found.append(x)
        x = F.max_pool2d(x, *pool5) if block == 5 else F.max_pool2d(x, 2, 2, ceil_mode=block == 3)
    x = conv(weights, f"{start}31", x, padding=dilation, dilation=dilation).relu()
    return found[0], found[1], conv(weights, f"{start}33", x).relu()


def normalised(x: Tensor, scale: Tensor) -> Tensor:
    """Each cell's vector gets the length 1, then each channel its scale."""
    return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) * scale[:, None, None]


def predicted(weights: Mapping[str, Tensor], start: str, maps: Sequence[Tensor], numbers: int) -> Tensor:
    """[boxes of all maps, numbers], float64."""
    parts = [
        conv(weights, f"{start}{level}", features, padding=1)[0].permute(1, 2, 0).reshape(-1, numbers)
        for level, features in enumerate(maps)
    ]
    return torch.cat(parts).double()


def cells(features: Tensor, step: float, size: int, shapes: Sequence[tuple[float, float]]) -> list[list[float]]:
    """(x, y, width, height) in shares of the image: rows, columns, boxes."""
    rows, columns = features.shape[-2:]
    return [
        [(j + 0.5) * step / size, (i + 0.5) * step / size, width / size, height / size]
        for i, j in product(range(rows), range(columns))
        for width, height in shapes
    ]


def decoded(deltas: Tensor, boxes: Tensor) -> Tensor:
    """(x, y, width, height), moved."""
    return torch.cat([boxes[:, :2] + deltas[:, :2] * 0.1 * boxes[:, 2:], boxes[:, 2:] * (deltas[:, 2:] * 0.2).exp()], 1)


def corners(boxes: Tensor) -> Tensor:
    """(x, y, width, height) -> corners."""
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def best(boxes: Tensor, scores: Tensor, image: Tensor, *, candidates: int | None, kept: int) -> Found:
    """Scores above 0.01, the best of each class, suppression from an IoU of 0.45 on, the best of all; on the image."""
    height, width = image.shape[1:]
    found: Found = []
    for label in range(1, scores.shape[1]):
        column = scores[:, label]
        order = column.argsort(descending=True)[: int((column > 0.01).sum())][:candidates].tolist()
        for one in suppressed(boxes[order], 0.45):
            x1, y1, x2, y2 = boxes[order[one]].tolist()
            box = [x1 * width, y1 * height, x2 * width, y2 * height]
            limits = (width, height, width, height)
            found.append(
                (float(column[order[one]]), label, [min(max(v, 0), m) for v, m in zip(box, limits, strict=True)])
            )
    return sorted(found, key=lambda one: -one[0])[:kept]


def suppressed(boxes: Tensor, threshold: float) -> list[int]:
    """The survivors of boxes that are sorted by score."""
    alive, kept = torch.ones(len(boxes), dtype=torch.bool), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for one, box in enumerate(boxes):
        if alive[one]:
            kept.append(one)
            sides = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])
            common = sides.clamp(min=0).prod(1)
            alive &= common / (areas[one] + areas - common) <= threshold
    return kept
