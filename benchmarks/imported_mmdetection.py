"""Compares mmdetection's own SSDs and RetinaNets with the same weights in this package, on photographs.

    python benchmarks/imported_mmdetection.py FOLDER [--photos 5] [--only NAME [NAME ...]]

It needs an environment with mmdet 3, mmengine, mmcv-lite 2.1, torchvision and this package. mmcv's compiled operators
are not needed: of these two families only the suppression is one, and torchvision's `nms`, once for each class, takes
its place. All others are empty classes here. All else is mmdetection's own code: configuration, network, anchors,
decoding, preparation of the images.

Each model gets random weights (seed 0), with batch norms and last layers scaled by what the photographs give, so that
scores spread as in a trained detector. The file that is read has the weights and the notes that mmdetection writes.
mmdetection rounds resized pixels to whole numbers, this package does not. So each photograph is given in the size that
the network takes, and once more as it is, to see what the rounding does to random weights. The exit code is 1 if in the
first case a detection has no partner, or a score or box (a share of the longer side) differs by more than 1e-4.

The configurations in `legacy_1.x` can be named too. Their decoding leaves out the half pixel that versions before 2
had, so boxes differ by half a pixel. The tests compare with those versions.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from singleshot.weights.importers import import_weights

NAMES = (
    "ssd/ssd300_coco.py",
    "pascal_voc/ssd300_voc0712.py",
    "ssd/ssd512_coco.py",
    "pascal_voc/ssd512_voc0712.py",
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "retinanet/retinanet_r50-caffe_fpn_1x_coco.py",
    "retinanet/retinanet_r101_fpn_1x_coco.py",
    "retinanet/retinanet_x101-64x4d_fpn_1x_coco.py",
)
CLOSE = 1e-4


class _Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


def without_compiled_operators() -> None:
    """Let mmdet be imported with mmcv-lite."""
    operators = _Empty("mmcv.ops")
    operators.__path__ = []  # type: ignore[attr-defined]
    sys.modules["mmcv.ops"] = operators
    parts = "carafe corner_pool deform_conv merge_cells modulated_deform_conv multi_scale_deform_attn nms roi_align"
    for name in parts.split():
        sys.modules[f"mmcv.ops.{name}"] = _Empty(f"mmcv.ops.{name}")
    operators.batched_nms = batched_nms  # type: ignore[attr-defined]


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, nms_cfg: Any, **_: Any) -> tuple[Tensor, Tensor]:
    """The suppression of each class, best first: [N, 5] and the places."""
    kept = []
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        kept.append(own[torchvision.ops.nms(boxes[own], scores[own], nms_cfg["iou_threshold"])])
    places = torch.cat(kept)
    places = places[scores[places].argsort(descending=True, stable=True)]
    return torch.cat([boxes[places], scores[places, None]], 1), places


class Original:
    """A model of mmdetection by the name of its configuration."""

    def __init__(self, name: str) -> None:
        import mmdet
        from mmdet.registry import MODELS, TRANSFORMS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config

        register_all_modules()
        self.config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / name)
        self.config.model.backbone.pop("init_cfg", None)
        torch.manual_seed(0)
        self.model = MODELS.build(self.config.model).eval()
        if not hasattr(self.model.bbox_head, "loss_cls"):  # an oversight of mmdet 3.3 in SSD's head
            self.model.bbox_head.loss_cls = None
        wanted = ("Resize", "PackDetInputs")
        self.steps = [TRANSFORMS.build(step) for step in self.config.test_pipeline if step["type"] in wanted]

    def batch(self, image: np.ndarray[Any, Any]) -> dict[str, Any]:
        """An image [H, W, 3] BGR as the network takes it. `resized` is then the image in that size."""
        height, width = image.shape[:2]
        data: Any = {"img": image, "img_path": "", "img_id": 0, "ori_shape": (height, width), "height": height,
                     "width": width, "img_shape": (height, width)}  # fmt: skip
        for step in self.steps:
            data = step(data)
        self.resized = np.ascontiguousarray(data["inputs"].permute(1, 2, 0).numpy())
        found: dict[str, Any] = self.model.data_preprocessor(
            {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}, training=False
        )
        return found

    @torch.no_grad()
    def detect(self, image: np.ndarray[Any, Any]) -> Any:
        """Boxes, scores and labels in the image."""
        return self.model.predict(**{"rescale": True, **_named(self.batch(image))})[0].pred_instances

    @torch.no_grad()
    def enliven(self, images: Sequence[np.ndarray[Any, Any]]) -> None:
        """Random weights whose detections are many, of all classes, with scores far apart."""
        batches = [self.batch(image)["inputs"] for image in images]
        norms = [part for part in self.model.modules() if isinstance(part, nn.BatchNorm2d)]
        for part in self.model.backbone.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        for name, part in self.model.backbone.named_modules():
            if name.endswith("bn3"):  # else a random ResNet makes much of the last bit of its input
                nn.init.constant_(part.weight, 0.2)
        for norm in norms:
            norm.momentum = None
            norm.train()
        for batch in batches:
            self.model.backbone(batch)
        for norm in norms:
            norm.eval()
        head = self.model.bbox_head
        ssd = not hasattr(head, "retina_cls")
        # Layers of a tower are scaled too: a random one of four layers loses its signal.
        for part in [*self.model.neck.modules(), *head.modules()]:
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        last = [(layer, 2.0 if ssd else 1.0, 0.0 if ssd else -4.0) for layer in _convolutions(head, ssd, "cls")]
        last += [(layer, 1.0 if ssd else 0.3, 0.0) for layer in _convolutions(head, ssd, "reg")]
        seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer, _, _ in last}
        hooks = [
            layer.register_forward_hook(lambda own, _, out: seen[own].append(out.transpose(0, 1).flatten(1)))
            for layer in seen
        ]
        for batch in batches:
            self.model(batch, mode="tensor")
        for hook in hooks:
            hook.remove()
        for layer, spread, mean in last:
            values = torch.cat(seen[layer], 1)
            factor = spread / values.std(1).clamp(min=1e-6)
            layer.weight.mul_(factor[:, None, None, None])
            layer.bias.copy_((layer.bias - values.mean(1)) * factor + mean)
            if ssd and "cls" in next(name for name, part in head.named_modules() if part is layer):
                layer.bias.view(-1, head.num_classes + 1)[:, -1] += 5  # the background

    def save(self, path: Path) -> None:
        """The file as mmdetection writes it, as far as it is plain data."""
        meta = {
            "mmengine_version": "0.10.7",
            "cfg": self.config.pretty_text,
            "dataset_meta": {"classes": tuple(f"kind {k}" for k in range(self.model.bbox_head.num_classes))},
        }
        torch.save({"meta": meta, "state_dict": self.model.state_dict()}, path)


def _named(batch: dict[str, Any]) -> dict[str, Any]:
    return {"batch_inputs": batch["inputs"], "batch_data_samples": batch["data_samples"]}


def _convolutions(head: nn.Module, ssd: bool, kind: str) -> list[nn.Conv2d]:
    found = getattr(head, f"{kind}_convs").modules() if ssd else [getattr(head, f"retina_{kind}")]
    return [part for part in found if isinstance(part, nn.Conv2d)]


def compared(theirs: Any, ours: dict[str, Tensor], side: int) -> tuple[int, float, float]:
    """How many of mmdetection's detections have no partner within a pixel; largest differences of scores, and boxes."""
    free = torch.ones(len(ours["scores"]), dtype=torch.bool)
    alone, score, box = 0, 0.0, 0.0
    for own, value, label in zip(theirs.bboxes, theirs.scores, theirs.labels, strict=True):
        apart = (ours["boxes"] - own).abs().amax(1).where(free & (ours["labels"] == label), math.inf)
        best = int(apart.argmin())
        if apart[best] > 1:
            alone += 1
            continue
        free[best] = False
        score = max(score, float((ours["scores"][best] - value).abs()))
        box = max(box, float(apart[best]) / side)
    return alone, score, box


def main() -> int:
    """Compare, and print one line for each model and kind of pixels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=NAMES)
    options = parser.parse_args()
    without_compiled_operators()
    files = sorted(file for file in options.folder.rglob("*") if file.suffix.lower() in (".jpg", ".png"))
    images = [cv2.imread(str(file)) for file in files[:: max(1, len(files) // options.photos)][: options.photos]]
    wrong = False
    for name in options.only:
        original = Original(name)
        original.enliven(images[:2])
        with tempfile.TemporaryDirectory() as folder:
            original.save(Path(folder) / "weights.pth")
            detector = import_weights(Path(folder) / "weights.pth")
        for kind in ("of the network's size", "as they are"):
            total, worst = 0, [0.0, 0.0, 0.0]
            for image in images:
                if kind != "as they are":
                    original.batch(image)
                shown = image if kind == "as they are" else original.resized
                theirs = original.detect(shown)
                pixels = torch.from_numpy(shown[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
                with torch.no_grad():
                    found: Any = detector([pixels])
                alone, *others = compared(theirs, found[0], max(shown.shape))
                total += len(theirs.scores)
                worst = [worst[0] + alone, *(max(pair) for pair in zip(worst[1:], others, strict=True))]
            wrong |= kind != "as they are" and (worst[0] > 0 or max(worst[1:]) > CLOSE or not total)
            print(
                f"{name}, photographs {kind}: {total} detections, {worst[0]:.0f} without a partner; "
                f"scores differ by {worst[1]:.1e}, boxes by {worst[2]:.1e}",
                flush=True,
            )
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
