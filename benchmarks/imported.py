"""Compares torchvision's own models with the same weights in this package, on photographs.

    python benchmarks/imported.py FOLDER [FOLDER ...] [--photos 20] [--side 800] [--only NAME [NAME ...]] [--json]

It needs torchvision beside this package, in an environment of its own: torchvision asks for one exact torch.

Each model gets random weights (seed 0). Batch norms and the last layers are then scaled by what two of the photographs
give, so that scores spread as in a trained detector and hundreds of boxes pass the thresholds. torchvision saves the
state dict as a `.pth` file, `import_weights` reads it, and both look at the same photographs. Each detection of
torchvision is paired with ours of the same label and the nearest box. The script prints how many there are, how many
have no partner within a pixel ("alone"), and the largest differences of scores and of boxes (as shares of the
photograph's longer side). torchvision's RetinaNet keeps boxes that are cut to no area at the photograph's border; this
package does not, so these are only counted ("flat"). The maps of backbones are compared too, relative to their largest
value. The exit code is 1 if a difference is above 1e-4 (backbones: 1e-5), or if a detection has no partner.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.functional import pil_to_tensor

from singleshot import backbones
from singleshot.weights.importers import import_weights

SEED = 0
BEFORE = ".jpg", ".jpeg", ".png", ".bmp"
CLOSE, MAPS_CLOSE = 1e-4, 1e-5


def photographs(folders: Sequence[Path], number: int) -> list[Tensor]:
    """The first pictures of the folders by name, [3, H, W] in 0..1."""
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.suffix.lower() in BEFORE]
    if len(files) < number:
        raise SystemExit(f"found {len(files)} pictures, expected {number} or more")
    step = len(files) // number
    return [pil_to_tensor(Image.open(file).convert("RGB")).float() / 255 for file in files[::step][:number]]


@torch.no_grad()
def scale(layers: Sequence[nn.Conv2d], spread: float, mean: float) -> list[Callable[[], None]]:
    """Watch what the layers give; each of the functions then makes the channels of one have that spread and mean."""
    return [_watched(layer, spread, mean) for layer in layers]


def _watched(layer: nn.Conv2d, spread: float, mean: float) -> Callable[[], None]:
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, _inputs, result: seen.append(result.transpose(0, 1).flatten(1)))

    def finish() -> None:
        hook.remove()
        values = torch.cat(seen, 1)
        # A map of one cell has two values, which may be nearly equal.
        factor = spread / values.std(1).clamp(min=1e-6) if values.shape[1] > 10 else torch.ones(len(values))
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.copy_((layer.bias - values.mean(1)) * factor + mean)

    return finish


@torch.no_grad()
def settle(model: nn.Module, pictures: Sequence[Tensor]) -> None:
    """Give batch norms the statistics of the pictures."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    epsilons = [norm.eps for norm in norms]
    for norm in norms:
        norm.eps = norm.eps or 1e-5  # none is not possible in training
        norm.reset_running_stats()
        norm.momentum = None  # the average over all
        norm.train()
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.2, 0.2)
    for name, module in model.named_modules():  # blocks that add little, as after training: less rounding adds up
        if name.endswith(".bn3"):
            module.weight.mul_(0.3)
        elif getattr(module, "use_res_connect", False):
            [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)][-1].weight.mul_(0.3)
    model(list(pictures))
    model.eval()
    for norm, epsilon in zip(norms, epsilons, strict=True):
        norm.eps = epsilon


def detectors() -> dict[str, Callable[[int], nn.Module]]:
    """The models by name, from the short side of RetinaNet's images; 91 outputs are torchvision's for COCO."""
    made: dict[str, Callable[[int], nn.Module]] = {}
    for name in (
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
    ):
        for outputs in (91, 21):
            made[f"{name}, {outputs} outputs"] = partial(_plain, name, outputs)
    for trunk in ("resnet18", "resnet101", "resnext50_32x4d"):
        made[f"RetinaNet on {trunk}, 21 outputs"] = partial(_retinanet_on, trunk, 21)
    return made


def _plain(name: str, outputs: int, side: int) -> nn.Module:
    sizes = {} if name.startswith("ssd") else {"min_size": side, "max_size": longest(side)}
    model: Any = getattr(models.detection, name)(weights=None, weights_backbone=None, num_classes=outputs, **sizes)
    if name == "retinanet_resnet50_fpn" and outputs == 91:  # what torchvision does to its released weights
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return model  # type: ignore[no-any-return]


def _retinanet_on(trunk: str, outputs: int, side: int) -> nn.Module:
    build = importlib.import_module("torchvision.models.detection.backbone_utils").resnet_fpn_backbone
    pyramid = importlib.import_module("torchvision.ops.feature_pyramid_network").LastLevelP6P7(256, 256)
    own: Any = importlib.import_module("torchvision.models.detection.retinanet")
    body = build(
        backbone_name=trunk, weights=None, returned_layers=[2, 3, 4], extra_blocks=pyramid, trainable_layers=5,
        norm_layer=nn.BatchNorm2d,
    )  # fmt: skip
    anchors = own._default_anchorgen()
    made = own.RetinaNet(body, outputs, anchor_generator=anchors, min_size=side, max_size=longest(side))
    return made  # type: ignore[no-any-return]


def longest(side: int) -> int:
    """The limit of the long side that belongs to a short side: 1333 to 800."""
    return side * 1333 // 800


@torch.no_grad()
def lively(model: Any, pictures: Sequence[Tensor]) -> nn.Module:
    """Weights whose detections are many, of all classes, with scores far apart."""
    model.eval()
    settle(model, pictures)
    if isinstance(model, models.detection.ssd.SSD):
        lists = model.head.classification_head.module_list, model.head.regression_head.module_list
        # SSDlite's predicting layer comes after a depthwise one.
        classes, boxes = ([one[-1] if isinstance(one, nn.Sequential) else one for one in heads] for heads in lists)
        watched = scale(classes, 2.0, 0.0) + scale(boxes, 1.0, 0.0)
    else:
        classes = [model.head.classification_head.cls_logits]
        watched = scale(classes, 1.0, -4.0) + scale([model.head.regression_head.bbox_reg], 0.3, 0.0)
    model(list(pictures))
    for finish in watched:
        finish()
    for layer in classes:
        if len(classes) > 1:
            layer.bias.view(-1, model.head.classification_head.num_columns)[:, 0] += 5.0  # the background
        else:
            layer.bias.view(9, -1)[:, 0] = -30.0  # class 0, which is never trained on, and never found
    return model  # type: ignore[no-any-return]


def paired(
    theirs: dict[str, Tensor], ours: dict[str, Tensor], ids: Sequence[int], side: float
) -> Iterator[tuple[float, float]]:
    """For each of torchvision's detections: the differences of score and box (a share of `side`); inf: no partner."""
    free = torch.ones(len(ours["scores"]), dtype=torch.bool)
    labels = torch.tensor(ids)[ours["labels"]]
    for box, score, label in zip(theirs["boxes"], theirs["scores"], theirs["labels"], strict=True):
        apart = (ours["boxes"] - box).abs().amax(1).where(free & (labels == label), math.inf)
        best = int(apart.argmin()) if len(apart) else -1
        if best < 0 or apart[best] > 1:
            yield math.inf, math.inf
            continue
        free[best] = False
        yield float((ours["scores"][best] - score).abs()), float(apart[best]) / side


@torch.no_grad()
def compared(model: nn.Module, pictures: Sequence[Tensor], **arguments: Any) -> dict[str, float]:
    """The numbers of one model; `arguments` are those that no file of weights tells."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pth")
        detector = import_weights(Path(folder) / "weights.pth", **arguments)
    pairs: list[tuple[float, float]] = []
    surplus, flat = 0, 0
    for picture in pictures:
        theirs, ours = model([picture])[0], detector([picture])[0]
        surplus += abs(len(ours["scores"]) - len(theirs["scores"]))
        if isinstance(model, models.detection.retinanet.RetinaNet):
            some = (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(1)
            flat += int((~some).sum())
            theirs = {key: value[some] for key, value in theirs.items()}
        pairs += paired(theirs, ours, [int(one) for one in detector.category_ids], max(picture.shape[1:]))
    found = [pair for pair in pairs if pair[0] < math.inf]
    return {
        "detections": len(pairs),
        "flat": flat,
        "alone": len(pairs) - len(found) + surplus,
        "score": max(pair[0] for pair in found),
        "box": max(pair[1] for pair in found),
    }


TRUNKS = {
    "vgg16": "vgg16",
    "vgg16_bn": "vgg16_bn",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "resnext101_64x4d": "resnext101_64x4d",
    "mobilenet_v2": "mobilenetv2",
    "mobilenet_v3_large": "mobilenetv3_large",
    **{f"efficientnet_b{size}": f"efficientnet_b{size}" for size in range(4)},
}
"""torchvision's classifiers, and the backbones that read their weights."""


@torch.no_grad()
def trunk_maps(name: str, picture: Tensor) -> dict[str, float]:
    """The largest difference of the maps of a trunk, relative to the largest value of each."""
    torch.manual_seed(SEED)
    model = getattr(models, name)(weights=None).eval()
    pixels = torch.nn.functional.interpolate(picture[None], (256, 320), mode="bilinear")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    model(pixels)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pth")
        ours = backbones.build(TRUNKS[name], weights=Path(folder) / "weights.pth").eval()
    theirs = _maps(model, name, pixels)
    found = ours(pixels)[: len(theirs)]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, theirs, strict=True))
    return {"maps": len(theirs), "difference": worst}


def _maps(model: Any, name: str, pixels: Tensor) -> list[Tensor]:
    """The maps of torchvision's; of VGG-16 conv4_3, before SSD's own scale and layers."""
    if name.startswith("vgg"):
        layers = list(model.features)
        last = [k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)][3]
        for layer in layers[:last]:
            pixels = layer(pixels)
        return [20 * nn.functional.normalize(pixels)]
    expansions = {
        "mobilenet_v2": ("7.conv.0", "14.conv.0", "18"),
        "mobilenet_v3_large": ("7.block.0", "13.block.0", "16"),
    }
    if name.startswith("resn"):
        wanted = ["layer2", "layer3", "layer4"]
    else:
        wanted = [f"features.{part}" for part in expansions.get(name, ("4.0.block.0", "6.0.block.0", "8"))]
    seen: dict[str, Tensor] = {}
    for part in wanted:
        model.get_submodule(part).register_forward_hook(lambda _m, _i, result, part=part: seen.update({part: result}))
    model(pixels)
    return [seen[part] for part in wanted]


def main(words: list[str] | None = None) -> int:
    """Run the command line: compare and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--side", type=int, default=800, help="the short side of RetinaNet's images")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    pictures = photographs(options.folders, options.photos)
    result: dict[str, dict[str, float]] = {}
    equal = True
    for name in TRUNKS:
        if any(part in name for part in options.only):
            result[f"backbone {name}"] = line = trunk_maps(name, pictures[0])
            equal &= line["difference"] <= MAPS_CLOSE
            tell(f"backbone {name}", line, options.json)
    for name, build in detectors().items():
        if any(part in name for part in options.only):
            torch.manual_seed(SEED)
            told: dict[str, Any] = {}
            if not name.startswith("ssd"):
                told = {"image_size": options.side, "max_size": longest(options.side)}
            result[name] = line = compared(lively(build(options.side), pictures[:2]), pictures, **told)
            equal &= line["alone"] == 0 and max(line["score"], line["box"]) <= CLOSE
            tell(name, line, options.json)
    if options.json:
        print(json.dumps(result))
    return 0 if equal else 1


def tell(name: str, line: dict[str, float], quiet: bool) -> None:
    """Print a line as soon as it is known."""
    if not quiet:
        print(f"{name}: {', '.join(f'{key} {value:.3g}' for key, value in line.items())}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
