"""Caffe's files and nets without Caffe: a writer of `.caffemodel` bytes, the nets that SSD's and RefineDet's authors
published, and a plain and slow execution of them.

It knows nothing of the package. The nets follow the authors' scripts (model_libs.py, ssd_pascal.py, ssd_coco.py,
VGG16_VOC2007_320.py, ResNet101_COCO_320.py) and the deploy.prototxt of RefineDet with ResNet-101, layer by layer under
their names. Layers do what Caffe's do: pooling rounds up, PriorBox loops over cells, DetectionOutput takes one class
after the other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MEAN = (104.0, 117.0, 123.0)  # blue, green, red
Blobs = dict[str, list[NDArray[Any]]]


@dataclass(frozen=True)
class Layer:
    """A layer of a prototxt: `settings` is its one parameter message, with Caffe's names."""

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()  # of its blobs
    top: str = ""  # another blob than the layer's name; the layer works in place


# ------------------------------------------------------------------------------------------------------------- the file
def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(key: int, value: int) -> bytes:
    """A whole number of a message."""
    return _varint(key << 3) + _varint(value)


def real(key: int, value: float) -> bytes:
    """A float of a message."""
    return _varint(key << 3 | 5) + struct.pack("<f", value)


def inner(key: int, content: bytes | str) -> bytes:
    """A text, or a message within a message."""
    content = content.encode() if isinstance(content, str) else content
    return _varint(key << 3 | 2) + _varint(len(content)) + content


def blob(values: NDArray[Any], *, old: bool = False, packed: bool = True, double: bool = False) -> bytes:
    """A BlobProto, also in the forms of old versions: four sides, numbers that are not packed, doubles."""
    sides = values.shape
    if old:
        shape = b"".join(number(key, side) for key, side in enumerate((1,) * (4 - len(sides)) + sides, 1))
    else:
        shape = inner(7, inner(1, b"".join(map(_varint, sides))))
    kind, key, wire = ("<f8", 8, 1) if double else ("<f4", 5, 5)
    flat = np.ascontiguousarray(values, kind).reshape(-1)
    if packed:
        return inner(key, flat.tobytes()) + shape
    keys = np.full((len(flat), 1), key << 3 | wire, np.uint8)
    return np.concatenate([keys, flat.view(np.uint8).reshape(len(flat), -1)], 1).tobytes() + shape


_MESSAGES = {
    "Convolution": 106, "Deconvolution": 106, "InnerProduct": 117, "Pooling": 121, "BatchNorm": 139, "Input": 143,
    "PriorBox": 203, "DetectionOutput": 204, "Normalize": 206, "AnnotatedData": 100,
}  # fmt: skip
_KEYS: dict[str, dict[str, tuple[int, Callable[[int, Any], bytes]]]] = {
    "Convolution": {
        "num_output": (1, number), "pad": (3, number), "kernel_size": (4, number), "stride": (6, number),
        "dilation": (18, number),
    },
    "Pooling": {"pad": (4, number), "kernel_size": (2, number), "stride": (3, number)},
    "PriorBox": {
        "min_size": (1, real), "max_size": (2, real), "aspect_ratio": (3, real), "flip": (4, number),
        "clip": (5, number), "variance": (6, real), "step": (10, real), "offset": (13, real),
    },
    "DetectionOutput": {
        "num_classes": (1, number), "background_label_id": (3, number), "code_type": (6, number),
        "keep_top_k": (7, number), "confidence_threshold": (9, real), "objectness_score": (24, real),
    },
    "Normalize": {"across_spatial": (1, number), "channel_shared": (3, number)},
    "AnnotatedData": {"mean_value": (5, real)},
    "BatchNorm": {"eps": (3, real)},
}  # fmt: skip
_KEYS["Deconvolution"] = _KEYS["Convolution"]


def settings_bytes(layer: Layer) -> bytes:
    """The parameter message of a layer, with its key."""
    said, keys = layer.settings, _KEYS.get(layer.type, {})
    content = b""
    for name, (key, write) in keys.items():
        for value in said.get(name, ()) if isinstance(said.get(name, ()), tuple) else (said[name],):
            content += write(key, value)
    if layer.type == "DetectionOutput":
        content += inner(4, real(1, said["nms_threshold"]) + (number(2, said["top_k"]) if "top_k" in said else b""))
    if layer.type == "AnnotatedData":
        side = said["side"]
        content += inner(8, number(3, side) + number(4, side))
    if layer.type == "Input":
        content += inner(1, inner(1, b"".join(map(_varint, said["dim"]))))
    return inner(_MESSAGES[layer.type], content) if content else b""


def caffemodel(name: str, layers: Iterable[Layer], blobs: Blobs, *, settings: bool = True, **form: bool) -> bytes:
    """The bytes that Caffe writes for a net. `settings`: with the layers' parameter messages."""
    content = [inner(1, name)]
    for layer in layers:
        said = inner(1, layer.name) + inner(2, layer.type)
        said += b"".join(inner(3, bottom) for bottom in layer.bottoms) + inner(4, layer.top or layer.name)
        said += b"".join(inner(7, blob(values, **form)) for values in blobs.get(layer.name, ()))
        content.append(inner(100, said + (settings_bytes(layer) if settings else b"")))
    return b"".join(content)


_OLD_TYPES = {"Convolution": 4, "InnerProduct": 14, "Pooling": 17, "ReLU": 18, "Dropout": 6, "Softmax": 20}


def old_caffemodel(name: str, layers: Iterable[Layer], blobs: Blobs, **form: bool) -> bytes:
    """The same in the form of before 2014: `layers`, types as numbers, blobs with four sides."""
    content = inner(1, name)
    for layer in layers:
        said = b"".join(inner(2, bottom) for bottom in layer.bottoms) + inner(3, layer.top or layer.name)
        said += inner(4, layer.name) + number(5, _OLD_TYPES[layer.type])
        said += b"".join(inner(6, blob(values, old=True, **form)) for values in blobs.get(layer.name, ()))
        content += inner(2, said)
    return content


# ------------------------------------------------------------------------------------------------------------- the nets
class Net:
    """Layers one after the other, as the authors' scripts write them."""

    def __init__(self, side: int, *, deploy: bool = False, narrow: int = 1) -> None:
        self.channels, self.narrow = {"data": 3}, narrow
        self.layers: list[Layer] = []
        if deploy:
            self.layers.append(Layer("data", "Input", (), {"dim": (1, 3, side, side)}))
        else:
            self.layers.append(Layer("data", "AnnotatedData", (), {"mean_value": MEAN, "side": side}))

    def add(self, name: str, kind: str, *bottoms: str, **settings: Any) -> str:
        self.layers.append(Layer(name, kind, bottoms, settings))
        self.channels[name] = self.channels[bottoms[0]]
        return name

    def place(self, name: str, kind: str, blob: str, shapes: tuple[tuple[int, ...], ...] = ()) -> None:
        """A layer that works in place."""
        self.layers.append(Layer(name, kind, (blob,), {}, shapes, blob))

    def convolve(
        self, bottom: str, name: str, channels: int, kernel: int, *, pad: int = 0, stride: int = 1, dilation: int = 1,
        norm: tuple[str, str] | None = None, relu: bool = True, up: bool = False,
    ) -> str:  # fmt: skip
        """A convolution with ReLU, or with BatchNorm and Scale (their names) in place of the bias."""
        ends = (self.channels[bottom], channels) if up else (channels, self.channels[bottom])
        shapes: tuple[tuple[int, ...], ...] = ((*ends, kernel, kernel),)
        settings: dict[str, Any] = {"num_output": channels, "pad": pad, "kernel_size": kernel, "stride": stride}
        if dilation > 1:
            settings["dilation"] = dilation
        kind = "Deconvolution" if up else "Convolution"
        self.layers.append(Layer(name, kind, (bottom,), settings, shapes if norm else (*shapes, (channels,))))
        self.channels[name] = channels
        if norm:
            self.place(norm[0], "BatchNorm", name, ((channels,), (channels,), (1,)))
            self.place(norm[1], "Scale", name, ((channels,), (channels,)))
        if relu:
            self.place(f"{name}_relu", "ReLU", name)
        return name

    def normalise(self, bottom: str) -> str:
        name = f"{bottom}_norm"
        channels = self.channels[bottom]
        self.layers.append(
            Layer(name, "Normalize", (bottom,), {"across_spatial": 0, "channel_shared": 0}, ((channels,),))
        )
        self.channels[name] = channels
        return name

    def vgg(self, *, dilated: bool) -> None:
        last = "data"
        for block, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
            for index in range(1, count + 1):
                last = self.convolve(last, f"conv{block}_{index}", channels // self.narrow, 3, pad=1)
            if block == 5 and dilated:
                last = self.add("pool5", "Pooling", last, kernel_size=3, stride=1, pad=1)
            else:
                last = self.add(f"pool{block}", "Pooling", last, kernel_size=2, stride=2)
        last = self.convolve(last, "fc6", 1024, 3, pad=6 if dilated else 3, dilation=6 if dilated else 3)
        self.convolve(last, "fc7", 1024, 1)

    def heads(self, level: str, boxes: int, classes: int) -> None:
        for kind, count in (("loc", 4), ("conf", classes)):
            name = f"{level}_mbox_{kind}"
            self.convolve(level, name, boxes * count, 3, pad=1, relu=False)
            self.add(f"{name}_perm", "Permute", name)
            self.add(f"{name}_flat", "Flatten", f"{name}_perm")

    def prior(self, level: str, sizes: Sequence[float], ratios: tuple[float, ...], step: float, **more: Any) -> None:
        largest = {"max_size": (sizes[1],)} if len(sizes) > 1 else {}
        self.add(
            f"{level}_mbox_priorbox", "PriorBox", level, "data", min_size=(sizes[0],), **largest, aspect_ratio=ratios,
            flip=1, clip=0, variance=(0.1, 0.1, 0.2, 0.2), step=step, offset=0.5, **more,
        )  # fmt: skip

    def predictions(self, prefix: str, levels: Sequence[str], classes: int) -> None:
        self.add(f"{prefix}_loc", "Concat", *(f"{level}_mbox_loc_flat" for level in levels))
        self.add(f"{prefix}_conf", "Concat", *(f"{level}_mbox_conf_flat" for level in levels))
        self.add(f"{prefix}_conf_softmax", "Softmax", f"{prefix}_conf", classes=classes)

    def residual(self, bottom: str, block: str, inside: int, outside: int, stride: int, project: bool) -> str:
        """A bottleneck of the authors: the stride is in both first 1x1 convolutions."""

        def branch(name: str, bottom: str, channels: int, kernel: int, stride: int, relu: bool) -> str:
            norms = (f"bn{block}_{name}", f"scale{block}_{name}")
            return self.convolve(
                bottom, f"res{block}_{name}", channels, kernel, pad=kernel // 2, stride=stride, norm=norms, relu=relu
            )

        shortcut = branch("branch1", bottom, outside, 1, stride, False) if project else bottom
        last = branch("branch2a", bottom, inside, 1, stride, True)
        last = branch("branch2b", last, inside, 3, 1, True)
        last = branch("branch2c", last, outside, 1, 1, False)
        name = self.add(f"res{block}", "Eltwise", shortcut, last)
        self.place(f"{name}_relu", "ReLU", name)
        return name

    def resnet(self, depths: Sequence[int], *, numbered: bool = True) -> None:
        last = self.convolve("data", "conv1", 64, 7, pad=3, stride=2, norm=("bn_conv1", "scale_conv1"))
        last = self.add("pool1", "Pooling", last, kernel_size=3, stride=2)
        for stage, depth in enumerate(depths, 2):
            for index in range(depth):
                long = numbered and stage in (3, 4)
                letter = "a" if index == 0 else f"b{index}" if long else "abcdef"[index]
                width, stride = 64 * 2 ** (stage - 2), 2 if index == 0 and stage > 2 else 1
                last = self.residual(last, f"{stage}{letter}", width, 4 * width, stride, index == 0)

    def transfer(self, levels: Sequence[str], *, norm: bool) -> None:
        """RefineDet's transfer connection blocks."""

        def layer(bottom: str, name: str, relu: bool = True, up: bool = False) -> str:
            norms = (f"{name}_bn", f"{name}_scale") if norm else None
            kernel, pad, stride = (2, 0, 2) if up else (3, 1, 1)
            return self.convolve(bottom, name, 256, kernel, pad=pad, stride=stride, norm=norms, relu=relu, up=up)

        for place, level in zip((6, 5, 4, 3), reversed(levels), strict=True):
            last = layer(layer(level, f"TL{place}_1"), f"TL{place}_2", relu=place == 6)
            if place < 6:
                above = layer(f"P{place + 1}", f"P{place + 1}-up", relu=False, up=True)
                last = self.add(f"Elt{place}", "Eltwise", last, above)
                self.place(f"Elt{place}_relu", "ReLU", last)
            layer(last, f"P{place}")


SSD_SIZES = {
    (300, 21): (30, 60, 111, 162, 213, 264, 315),
    (300, 81): (21, 45, 99, 153, 207, 261, 315),
    (512, 21): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    (512, 81): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}


def ssd(side: int, classes: int, sizes: Sequence[float] | None = None, *, narrow: int = 1) -> list[Layer]:
    """SSD300 or SSD512 as trained: with the data layer, and without DetectionOutput.

    `narrow` divides the channels of the trunk's convolutions.
    """
    net = Net(side, narrow=narrow)
    net.vgg(dilated=True)
    extras = [("conv6", 256, 512, 3, 2, 1), ("conv7", 128, 256, 3, 2, 1)]
    if side == 300:
        extras += [(f"conv{k}", 128, 256, 3, 1, 0) for k in (8, 9)]
    else:
        extras += [(f"conv{k}", 128, 256, 3, 2, 1) for k in (8, 9)] + [("conv10", 128, 256, 4, 1, 1)]
    last, levels = "fc7", [net.normalise("conv4_3"), "fc7"]
    for name, inside, outside, kernel, stride, pad in extras:
        last = net.convolve(
            net.convolve(last, f"{name}_1", inside, 1), f"{name}_2", outside, kernel, stride=stride, pad=pad
        )
        levels.append(last)
    sizes = SSD_SIZES[side, classes] if sizes is None else sizes
    steps = (8, 16, 32, 64, 100, 300) if side == 300 else (8, 16, 32, 64, 128, 256, 512)
    for place, level in enumerate(levels):
        few = place in (0, len(levels) - 2, len(levels) - 1)
        net.heads(level, 4 if few else 6, classes)
        net.prior(level, sizes[place : place + 2], (2.0,) if few else (2.0, 3.0), steps[place])
    net.predictions("mbox", levels, classes)
    net.add("mbox_priorbox", "Concat", *(f"{level}_mbox_priorbox" for level in levels))
    return net.layers


def refinedet(side: int, classes: int, trunk: str = "vgg16", *, narrow: int = 1) -> list[Layer]:
    """RefineDet as trained; on "resnet101" with its eight bottlenecks before the heads."""
    net = Net(side, narrow=narrow)
    if trunk == "vgg16":
        net.vgg(dilated=False)
        net.convolve(net.convolve("fc7", "conv6_1", 256, 1), "conv6_2", 512, 3, pad=1, stride=2)
        arm = sources = [net.normalise("conv4_3"), net.normalise("conv5_3"), "fc7", "conv6_2"]
        net.transfer(sources, norm=False)
        odm = ["P3", "P4", "P5", "P6"]
    else:
        net.resnet((3, 4, 23, 3))
        net.residual("res5c", "6", 128, 512, 2, True)
        sources = ["res3b3", "res4b22", "res5c", "res6"]
        net.transfer(sources, norm=True)
        arm = [net.residual(level, f"{level}_relu_inter", 256, 1024, 1, True) for level in sources]
        odm = [net.residual(level, f"{level}_inter", 256, 1024, 1, True) for level in ("P3", "P4", "P5", "P6")]
    for place, level in enumerate(arm):
        net.heads(level, 3, 2)
        net.prior(level, (32 * 2**place,), (2.0,), 8 * 2**place)
    net.predictions("arm", arm, 2)
    net.add("arm_priorbox", "Concat", *(f"{level}_mbox_priorbox" for level in arm))
    for level in odm:
        net.heads(level, 3, classes)
    net.predictions("odm", odm, classes)
    return net.layers


def random_blobs(layers: Iterable[Layer], seed: int = 0) -> Blobs:
    """Weights that keep activations at about 1 and give scores and boxes of all kinds."""
    rng = np.random.default_rng(seed)
    blobs: Blobs = {}
    for layer in layers:
        values = [rng.standard_normal(shape, np.float32) for shape in layer.shapes]
        if layer.type in ("Convolution", "Deconvolution", "InnerProduct"):
            gain = 2.0 / math.prod(layer.shapes[0][1:])
            values[0] *= math.sqrt(gain) / (60 if "data" in layer.bottoms else 1)
            values[1:] = [0.1 * bias for bias in values[1:]]
            if "_mbox_" in layer.name:
                reads_large = layer.name.startswith(("conv4_3_norm", "conv5_3_norm"))
                factor = 0.3 if layer.name.endswith("_loc") else 0.7
                values[0] *= factor * (1.5 if reads_large else 1)
        elif layer.type == "BatchNorm":
            values[:2] = [998.5 * 0.2 * values[0], 998.5 * (0.5 + np.abs(values[1]))]
            values[2] = np.full(1, 998.5, np.float32)
        elif layer.type == "Scale":
            small = 0.3 if layer.name.endswith("branch2c") else 1.0  # so that sums of many blocks do not grow
            values[0] = small * (1 + 0.2 * values[0])
            values[1] *= 0.1
        elif layer.type == "Normalize":
            values[0] = 15 + 2 * values[0]
        if values:
            blobs[layer.name] = values
    return blobs


# -------------------------------------------------------------------------------------------------------- the execution
def run(layers: Iterable[Layer], blobs: Blobs, image: Tensor) -> dict[str, Any]:
    """All blobs of a net for one image [3, H, W] of BGR values from 0 to 255, before the mean is subtracted."""
    found: dict[str, Any] = {}
    size = tuple(image.shape[-2:])
    for layer in layers:
        weights = [torch.from_numpy(values) for values in blobs.get(layer.name, ())]
        bottoms = [found[name] for name in layer.bottoms]
        found[layer.top or layer.name] = _LAYERS[layer.type](layer.settings, weights, bottoms, image, size)
    return found


def _data(said: Any, weights: Any, bottoms: Any, image: Tensor, size: Any) -> Tensor:
    return (image - torch.tensor(MEAN)[:, None, None])[None]


def _convolution(said: Any, weights: Any, bottoms: Any, *_: Any) -> Tensor:
    bias = weights[1] if len(weights) > 1 else None
    return F.conv2d(bottoms[0], weights[0], bias, said["stride"], said["pad"], said.get("dilation", 1))


def _deconvolution(said: Any, weights: Any, bottoms: Any, *_: Any) -> Tensor:
    """Kernel and stride of 2: each cell becomes 2x2 cells."""
    x = torch.einsum("bihw,ioyx->bohywx", bottoms[0], weights[0])
    x = x.flatten(2, 3).flatten(3, 4)
    return x + weights[1][:, None, None] if len(weights) > 1 else x


def _pooling(said: Any, weights: Any, bottoms: Any, *_: Any) -> Tensor:
    """Each window by itself, cut at the map's border; their number is rounded up."""
    kernel, stride, pad = said["kernel_size"], said["stride"], said.get("pad", 0)
    for dimension in (2, 3):
        x, side = bottoms[0], bottoms[0].shape[dimension]
        count = math.ceil((side + 2 * pad - kernel) / stride) + 1
        if pad and (count - 1) * stride >= side + pad:
            count -= 1
        starts = [place * stride - pad for place in range(count)]
        rows = [x.narrow(dimension, max(a, 0), min(a + kernel, side) - max(a, 0)).amax(dimension) for a in starts]
        bottoms = [torch.stack(rows, dimension)]
    return bottoms[0]


def _batch_norm(said: Any, weights: Any, bottoms: Any, *_: Any) -> Tensor:
    factor = 0 if weights[2] == 0 else 1 / weights[2]
    mean, variance = (part[:, None, None] * factor for part in weights[:2])
    return (bottoms[0] - mean) / (variance + said.get("eps", 1e-5)) ** 0.5


def _normalize(said: Any, weights: Any, bottoms: Any, *_: Any) -> Tensor:
    length = (bottoms[0].square().sum(1, keepdim=True) + 1e-10).sqrt()
    return bottoms[0] / length * weights[0][:, None, None]


def _prior_box(said: Any, weights: Any, bottoms: Any, image: Any, size: tuple[int, int]) -> Tensor:
    """[A, 4] as shares of the image. Sizes are whole numbers within the layer."""
    rows, columns = bottoms[0].shape[-2:]
    boxes = []
    for y in range(rows):
        for x in range(columns):
            cx, cy = (x + said["offset"]) * said["step"], (y + said["offset"]) * said["step"]
            smallest = int(said["min_size"][0])
            shapes = [(smallest, smallest)]
            if "max_size" in said:
                side = math.sqrt(smallest * int(said["max_size"][0]))
                shapes.append((side, side))
            for ratio in said["aspect_ratio"]:
                for r in (ratio, 1 / ratio):
                    shapes.append((smallest * math.sqrt(r), smallest / math.sqrt(r)))
            boxes += [
                [(cx - w / 2) / size[1], (cy - h / 2) / size[0], (cx + w / 2) / size[1], (cy + h / 2) / size[0]]
                for w, h in shapes
            ]
    return torch.tensor(boxes)


_LAYERS: dict[str, Callable[..., Any]] = {
    "DetectionOutput": lambda *_: None,  # `detections`
    "Input": _data,
    "AnnotatedData": _data,
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "Pooling": _pooling,
    "BatchNorm": _batch_norm,
    "Normalize": _normalize,
    "PriorBox": _prior_box,
    "ReLU": lambda said, weights, bottoms, *_: bottoms[0].relu(),
    "Scale": lambda said, weights, bottoms, *_: bottoms[0] * weights[0][:, None, None] + weights[1][:, None, None],
    "Eltwise": lambda said, weights, bottoms, *_: bottoms[0] + bottoms[1],
    "Permute": lambda said, weights, bottoms, *_: bottoms[0].permute(0, 2, 3, 1),
    "Flatten": lambda said, weights, bottoms, *_: bottoms[0].flatten(),
    "Concat": lambda said, weights, bottoms, *_: torch.cat(bottoms),
    "Softmax": lambda said, weights, bottoms, *_: bottoms[0].view(-1, said["classes"]).softmax(-1),
}


def decoded(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Boxes that were coded as CENTER_SIZE with the variances 0.1 and 0.2."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    cx = 0.1 * deltas[:, 0] * width + (boxes[:, 0] + boxes[:, 2]) / 2
    cy = 0.1 * deltas[:, 1] * height + (boxes[:, 1] + boxes[:, 3]) / 2
    w, h = (0.2 * deltas[:, 2]).exp() * width, (0.2 * deltas[:, 3]).exp() * height
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)


def detections(
    found: Mapping[str, Any], *, threshold: float, nms: float, top_k: int, keep_top_k: int
) -> list[tuple[int, float, list[float]]]:
    """DetectionOutput: (class from 1, score, box as shares of the image), the best first."""
    if "arm_loc" in found:
        boxes = decoded(found["arm_loc"].view(-1, 4), found["arm_priorbox"])
        boxes = decoded(found["odm_loc"].view(-1, 4), boxes)
        scores = found["odm_conf_softmax"].clone()
        scores[found["arm_conf_softmax"][:, 1] < 0.01, 1:] = 0
    else:
        boxes = decoded(found["mbox_loc"].view(-1, 4), found["mbox_priorbox"])
        scores = found["mbox_conf_softmax"]
    kept, rows = [], boxes.tolist()
    for label in range(1, scores.shape[1]):
        score = scores[:, label].numpy()
        order = [k for k in np.argsort(-score, kind="stable") if score[k] > threshold][:top_k]
        mine: list[int] = []
        for k in order:
            if all(_overlap(rows[k], rows[other]) <= nms for other in mine):
                mine.append(int(k))
        kept += [(label, float(score[k]), rows[k]) for k in mine]
    return sorted(kept, key=lambda one: -one[1])[:keep_top_k]


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)
