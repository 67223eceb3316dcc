"""Files of mmdetection's published layouts, and a slow, plain form of what mmdetection does with them.

Nothing of the package is used: networks are read from the names in the file, and anchors, decoding, scores and
suppression are written out box by box, as mmdetection 3 has them (`old`: as its versions before 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Box = tuple[float, float, float, float]
Found = list[tuple[int, float, Box]]  # label, score, box, best first

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = {  # of SSD's default boxes: side of the small square of each map, and of the next one
    ("coco", 300): ((21, 45, 99, 153, 207, 261), (45, 99, 153, 207, 261, 315)),
    ("voc", 300): ((30, 60, 111, 162, 213, 264), (60, 111, 162, 213, 264, 315)),
    ("coco", 512): ((20, 51, 133, 215, 296, 378, 460), (51, 133, 215, 296, 378, 460, 542)),
    ("voc", 512): ((35, 76, 153, 230, 307, 384, 460), (76, 153, 230, 307, 384, 460, 537)),
}
STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
BOXES = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
       17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}  # fmt: skip
POOLED = (4, 9, 16, 23)  # the places of the poolings that halve the map
EXTRAS = {  # inputs, outputs, kernel, stride, padding of the extra convolutions
    300: ((1024, 256, 1, 1, 0), (256, 512, 3, 2, 1), (512, 128, 1, 1, 0), (128, 256, 3, 2, 1), (256, 128, 1, 1, 0),
          (128, 256, 3, 1, 0), (256, 128, 1, 1, 0), (128, 256, 3, 1, 0)),
    512: ((1024, 256, 1, 1, 0), (256, 512, 3, 2, 1), (512, 128, 1, 1, 0), (128, 256, 3, 2, 1), (256, 128, 1, 1, 0),
          (128, 256, 3, 2, 1), (256, 128, 1, 1, 0), (128, 256, 3, 2, 1), (256, 128, 1, 1, 0), (128, 256, 4, 1, 1)),
}  # fmt: skip
MAPS = {300: (512, 1024, 512, 256, 256, 256), 512: (512, 1024, 512, 256, 256, 256, 256)}
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Drawn(Weights):
    """A state dict that grows by convolutions and norms with random values."""

    def __init__(self, seed: int = 0, *, empty: bool = False) -> None:
        super().__init__()
        self.draw, self.empty = torch.Generator().manual_seed(seed), empty

    def convolution(self, name: str, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        """He's normal distribution, which keeps the signal's strength."""
        shape = (outputs, inputs, kernel, kernel)
        self[f"{name}.weight"] = torch.zeros(1).expand(shape) if self.empty else torch.randn(
            shape, generator=self.draw
        ) * math.sqrt(2 / (inputs * kernel**2))  # fmt: skip
        if bias:
            self[f"{name}.bias"] = torch.randn(outputs, generator=self.draw) * 0.1

    def norm(self, name: str, width: int, weight: float = 1.0) -> None:
        """Statistics of a layer as it might be."""
        self[f"{name}.weight"] = torch.full((width,), weight)
        self[f"{name}.bias"] = torch.randn(width, generator=self.draw) * 0.1
        self[f"{name}.running_mean"] = torch.randn(width, generator=self.draw) * 0.1
        self[f"{name}.running_var"] = torch.rand(width, generator=self.draw) + 0.5
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)


def ssd_file(size: int, classes: int, *, new: bool, empty: bool = False) -> Weights:
    """The state dict of SSD300 or SSD512. `new`: with the names since version 2.14."""
    made = Drawn(empty=empty)
    for place, (inputs, outputs) in VGG.items():
        made.convolution(f"backbone.features.{place}", inputs, outputs, 3)
    made["backbone.features.0.weight"] = made["backbone.features.0.weight"] / 60  # its input has values up to 150
    made.convolution("backbone.features.31", 512, 1024, 3)
    made.convolution("backbone.features.33", 1024, 1024, 1)
    made[f"{'neck' if new else 'backbone'}.l2_norm.weight"] = torch.linspace(15, 25, 512)
    for place, (inputs, outputs, kernel, *_) in enumerate(EXTRAS[size]):
        name = f"neck.extra_layers.{place // 2}.{place % 2}.conv" if new else f"backbone.extra.{place}"
        made.convolution(name, inputs, outputs, kernel)
    for level, (inputs, boxes) in enumerate(zip(MAPS[size], BOXES[size], strict=True)):
        end = ".0" if new else ""
        made.convolution(f"bbox_head.cls_convs.{level}{end}", inputs, boxes * (classes + 1), 3)
        made[f"bbox_head.cls_convs.{level}{end}.bias"].view(boxes, -1)[:, -1] += 2  # the background
        made.convolution(f"bbox_head.reg_convs.{level}{end}", inputs, boxes * 4, 3)
    return dict(made)


def retinanet_file(
    depth: int,
    classes: int,
    *,
    channels: int = 256,
    groups: tuple[int, int] = (1, 64),
    p6: str = "c5",
    iou: bool = False,
) -> Weights:
    """The state dict of a RetinaNet on a ResNet or ResNeXt (`groups`: their number and width)."""
    made = Drawn()
    made.convolution("backbone.conv1", 3, 64, 7, bias=False)
    made.norm("backbone.bn1", 64)
    inputs, more = 64, 4 if depth >= 50 else 1
    for stage, blocks in enumerate(DEPTHS[depth]):
        width = 64 * 2**stage
        inner = width * groups[1] // 64 * groups[0]
        for number in range(blocks):
            name, outputs = f"backbone.layer{stage + 1}.{number}", width * more
            if more == 4:
                shapes = ((inputs, inner, 1), (inner // groups[0], inner, 3), (inner, outputs, 1))
            else:
                shapes = ((inputs, width, 3), (width, width, 3))
            for k, shape in enumerate(shapes, 1):
                made.convolution(f"{name}.conv{k}", *shape, bias=False)
                made.norm(f"{name}.bn{k}", shape[1], 0.2 if k == len(shapes) else 1.0)
            if number == 0 and inputs != outputs:
                made.convolution(f"{name}.downsample.0", inputs, outputs, 1, bias=False)
                made.norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    for level, width in enumerate((128 * more, 256 * more, 512 * more)):
        made.convolution(f"neck.lateral_convs.{level}.conv", width, channels, 1)
        made.convolution(f"neck.fpn_convs.{level}.conv", channels, channels, 3)
    made.convolution("neck.fpn_convs.3.conv", 512 * more if p6 == "c5" else channels, channels, 3)
    made.convolution("neck.fpn_convs.4.conv", channels, channels, 3)
    for k in range(4):
        made.convolution(f"bbox_head.cls_convs.{k}.conv", channels, channels, 3)
        made.convolution(f"bbox_head.reg_convs.{k}.conv", channels, channels, 3)
    made.convolution("bbox_head.retina_cls", channels, 9 * classes, 3)
    made["bbox_head.retina_cls.weight"] *= 0.2  # else many scores are 1, and have no order
    made["bbox_head.retina_cls.bias"] -= 2
    made.convolution("bbox_head.retina_reg", channels, 36, 3)
    made["bbox_head.retina_reg.weight"] *= 0.005
    if iou:
        made.convolution("bbox_head.retina_iou", channels, 9, 3)
        made["bbox_head.retina_iou.weight"] *= 0.2
    return dict(made)


def ssd_maps(weights: Weights, pixels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Class and box layers' values of each map [1, rows, h, w]."""
    new = "neck.l2_norm.weight" in weights
    maps = []
    x = pixels
    for place in range(30):
        if place in VGG:
            x = F.relu(_convolve(weights, f"backbone.features.{place}", x, padding=1))
        if place in POOLED:
            if place == 23:
                maps.append(x)
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = F.max_pool2d(x, 3, 1, 1)
    x = F.relu(_convolve(weights, "backbone.features.31", x, padding=6, dilation=6))
    x = F.relu(_convolve(weights, "backbone.features.33", x))
    maps.append(x)
    for place, (_, _, _, stride, padding) in enumerate(EXTRAS[size]):
        name = f"neck.extra_layers.{place // 2}.{place % 2}.conv" if new else f"backbone.extra.{place}"
        x = F.relu(_convolve(weights, name, x, stride=stride, padding=padding))
        maps += [x] if place % 2 else []
    scale = weights[f"{'neck' if new else 'backbone'}.l2_norm.weight"][None, :, None, None]
    maps[0] = scale * maps[0] / (maps[0].pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
    end = ".0" if new else ""
    return [
        (
            _convolve(weights, f"bbox_head.cls_convs.{level}{end}", x, padding=1),
            _convolve(weights, f"bbox_head.reg_convs.{level}{end}", x, padding=1),
        )
        for level, x in enumerate(maps)
    ]


def retinanet_maps(
    weights: Weights, pixels: Tensor, *, groups: int = 1, caffe: bool = False
) -> list[tuple[Tensor, ...]]:
    """Class, box and (if there is one) IoU layers' values of each level [1, rows, h, w]."""
    x = F.relu(_norm(weights, "backbone.bn1", _convolve(weights, "backbone.conv1", pixels, stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage in range(1, 5):
        number = 0
        while f"backbone.layer{stage}.{number}.conv1.weight" in weights:
            name, stride = f"backbone.layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            three = f"{name}.conv3.weight" in weights
            first, second = (stride, 1) if caffe or not three else (1, stride)
            y = _convolve(weights, f"{name}.conv1", x, stride=first, padding=0 if three else 1)
            y = F.relu(_norm(weights, f"{name}.bn1", y))
            y = _norm(
                weights,
                f"{name}.bn2",
                _convolve(weights, f"{name}.conv2", y, stride=second, padding=1, groups=groups),
            )
            if three:
                y = _norm(weights, f"{name}.bn3", _convolve(weights, f"{name}.conv3", F.relu(y)))
            if f"{name}.downsample.0.weight" in weights:
                x = _norm(weights, f"{name}.downsample.1", _convolve(weights, f"{name}.downsample.0", x, stride=stride))
            x = F.relu(x + y)
            number += 1
        stages.append(x)
    laterals = [_convolve(weights, f"neck.lateral_convs.{k}.conv", x) for k, x in enumerate(stages[1:])]
    for k in (2, 1):
        laterals[k - 1] = laterals[k - 1] + F.interpolate(laterals[k], size=laterals[k - 1].shape[2:], mode="nearest")
    levels = [_convolve(weights, f"neck.fpn_convs.{k}.conv", x, padding=1) for k, x in enumerate(laterals)]
    on_input = weights["neck.fpn_convs.3.conv.weight"].shape[1] == stages[-1].shape[1]
    source = stages[-1] if on_input else levels[-1]
    levels.append(_convolve(weights, "neck.fpn_convs.3.conv", source, stride=2, padding=1))
    levels.append(_convolve(weights, "neck.fpn_convs.4.conv", levels[-1], stride=2, padding=1))
    found = []
    for level in levels:
        classes = boxes = level
        for k in range(4):
            classes = F.relu(_convolve(weights, f"bbox_head.cls_convs.{k}.conv", classes, padding=1))
            boxes = F.relu(_convolve(weights, f"bbox_head.reg_convs.{k}.conv", boxes, padding=1))
        layers = [("retina_cls", classes), ("retina_reg", boxes)]
        layers += [("retina_iou", boxes)] if "bbox_head.retina_iou.weight" in weights else []
        found.append(tuple(_convolve(weights, f"bbox_head.{name}", x, padding=1) for name, x in layers))
    return found


def ssd_boxes(kind: str, size: int) -> list[list[Box]]:
    """For each map, the default boxes around the middle of its first cell."""
    levels = []
    for small, large, step, count in zip(*SIZES[kind, size], STEPS[size], BOXES[size], strict=True):
        shapes = [(float(small), float(small)), (math.sqrt(small * large), math.sqrt(small * large))]
        for height_by_width in ((1 / 2, 2.0), (1 / 2, 2.0, 1 / 3, 3.0))[count == 6]:
            shapes.append((small / math.sqrt(height_by_width), small * math.sqrt(height_by_width)))
        middle = step / 2
        levels.append([(middle - w / 2, middle - h / 2, middle + w / 2, middle + h / 2) for w, h in shapes])
    return levels


def retinanet_boxes(*, old: bool = False) -> list[list[Box]]:
    """For each level, the anchors of its first cell. `old`: whole pixels, from the first to the last one."""
    levels = []
    for stride in (8, 16, 32, 64, 128):
        level: list[Box] = []
        for ratio in (0.5, 1.0, 2.0):
            for octave in range(3):
                side = 4 * stride * 2 ** (octave / 3)
                w, h = side / math.sqrt(ratio), side * math.sqrt(ratio)
                if old:
                    middle = (stride - 1) / 2
                    corners = [middle - (w - 1) / 2, middle - (h - 1) / 2, middle + (w - 1) / 2, middle + (h - 1) / 2]
                    level.append(tuple(float(round(edge)) for edge in corners))  # type: ignore[arg-type]
                else:
                    level.append((-w / 2, -h / 2, w / 2, h / 2))
        levels.append(level)
    return levels


def detections(
    maps: Sequence[Sequence[Tensor]],
    cells: Sequence[Sequence[Box]],
    strides: Sequence[int],
    image: tuple[int, int],
    scores: Callable[..., Tensor],
    *,
    deviations: tuple[float, float] = (1.0, 1.0),
    threshold: float,
    iou: float,
    most: int,
    old: bool = False,
) -> Found:
    """Boxes in an image of (height, width) that is not resized: best 1,000 of each map, suppression by class, the best.

    `scores`: the values of one cell and box -> the score of each class. `old`: a side is x2 - x1 + 1.
    """
    more = 1.0 if old else 0.0
    candidates: Found = []
    for values, boxes, stride in zip(maps, cells, strides, strict=True):
        height, width = values[0].shape[-2:]
        flat = [value[0].reshape(len(boxes), -1, height, width).permute(2, 3, 0, 1) for value in values]
        score = scores(flat[0], *flat[2:])  # [h, w, boxes, classes]
        places = (score > threshold).nonzero().tolist()
        places.sort(key=lambda place: -float(score[tuple(place)]))
        for row, column, box, label in places[:1000]:
            x1, y1, x2, y2 = (edge + stride * (column, row)[k % 2] for k, edge in enumerate(boxes[box]))
            dx, dy, dw, dh = flat[1][row, column, box].double().tolist()
            w, h = x2 - x1 + more, y2 - y1 + more
            limit = math.log(1000 / 16)
            middle = (x1 + x2) / 2 + dx * deviations[0] * w, (y1 + y2) / 2 + dy * deviations[0] * h
            sides = (
                w * math.exp(min(max(dw * deviations[1], -limit), limit)),
                h * math.exp(min(max(dh * deviations[1], -limit), limit)),
            )
            corners = [
                *(centre - (side - more) / 2 for centre, side in zip(middle, sides, strict=True)),
                *(centre + (side - more) / 2 for centre, side in zip(middle, sides, strict=True)),
            ]
            kept = [min(max(edge, 0.0), (image[1], image[0])[k % 2] - more) for k, edge in enumerate(corners)]
            if old or (kept[2] > kept[0] and kept[3] > kept[1]):
                candidates.append((label, float(score[row, column, box, label]), tuple(kept)))  # type: ignore[arg-type]
    candidates.sort(key=lambda one: -one[1])
    survivors: Found = []
    for one in candidates:
        if all(one[0] != other[0] or _iou(one[2], other[2], more) <= iou for other in survivors):
            survivors.append(one)
    return survivors[:most]


def normalised(image: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, *, bgr: bool = False) -> Tensor:
    """[3, H, W] RGB in 0..1 -> what the network reads [1, 3, H, W]; `mean` and `std` are RGB's."""
    pixels = (image * 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return (pixels.flip(0) if bgr else pixels)[None]


def padded(pixels: Tensor, divisor: int = 32) -> Tensor:
    """Zeros to the right and below, to multiples of `divisor`."""
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, -width % divisor, 0, -height % divisor))


def check(found: Mapping[str, Tensor], expected: Found, *, shift: float = 0.0, tolerance: float = 1e-4) -> None:
    """The same objects: labels, scores and boxes. `shift` is added to the expected far edges."""
    assert len(found["scores"]) == len(expected)
    labels, scores, boxes = (torch.tensor(column) for column in zip(*expected, strict=True))
    boxes = (boxes + torch.tensor([0.0, 0.0, shift, shift])).float()
    torch.testing.assert_close(found["scores"], scores.float(), rtol=0, atol=tolerance)
    free = torch.ones(len(labels), dtype=torch.bool)
    for label, box, score in zip(labels, boxes, scores, strict=True):  # scores that are almost equal may be exchanged
        alike = free & (found["labels"] == label) & ((found["scores"] - score).abs() <= tolerance)
        apart = (found["boxes"] - box).abs().amax(1).where(alike, math.inf)
        assert apart.min() <= tolerance * max(10.0, float(box.abs().max()))
        free[apart.argmin()] = False


def _convolve(weights: Weights, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)


def _norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)


def _iou(a: Box, b: Box, more: float) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + more
    height = min(a[3], b[3]) - max(a[1], b[1]) + more
    shared = max(width, 0.0) * max(height, 0.0)
    own = sum((box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (a, b))
    return shared / (own - shared)
