"""What is measured: the table of works, and their data. Everything is generated, with fixed seeds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import singleshot as ss
from growing.measure import Action, Work
from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.images import read_image
from singleshot.data.open import open_dataset
from singleshot.data.transforms import Sample, ssd_augmentation
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import evaluate
from singleshot.inference.draw import draw
from singleshot.matchers import IoUMatcher
from singleshot.ops import nms, voting
from singleshot.prediction import Prediction
from singleshot.structures import Anchors, Targets

SIDE = 640  # of generated pictures and boxes


def works(folder: Path) -> tuple[Work, ...]:
    """The table. Files are written to `folder`."""
    boxes = (1, 10, 100, 1000, 5000)
    few_boxes = (10, 100, 1000)
    candidates = (200, 1000, 5000, 20000, 50000)
    few_candidates = (200, 1000, 5000)
    classes = (20, 80, 320, 1203)
    few_classes = (20, 80, 320)
    kept = "each candidate is compared with the survivors near it, and their number grows with the candidates"
    return (
        Work("images", "evaluate, 7 objects and 100 detections an image", (5000, 10000, 20000, 50000),
             (250, 500, 1000), lambda n: evaluated(n, 7, 100, 80),
             why="the detections of all images are sorted, and no longer fit the caches"),
        Work("images", "open a COCO file", (1000, 10000, 40000, 120000), (500, 1000, 4000),
             lambda n: opened(coco(folder, n))),
        Work("images", "open a VOC folder", (1000, 10000, 40000, 120000), (250, 500, 1000),
             lambda n: opened(voc(folder, n))),
        Work("boxes in an image", "match with SSD300's 8,732 anchors", boxes, few_boxes,
             lambda n: matched(n, "ssd300_vgg16", "bipartite"), most=2.5,
             why="every object gets an anchor of its own: as their number comes near that of the anchors, they compete "
             "for them in more and more rounds"),
        Work("boxes in an image", "match with RetinaNet's 201,600 anchors (800x1344)", boxes, few_boxes,
             lambda n: matched(n, "retinanet_r50", "all", size=(800, 1344))),
        Work("boxes in an image", "SSD's augmentation", boxes, few_boxes, augmented),
        Work("boxes in an image", "evaluate 20 images, as many detections as objects", boxes, few_boxes,
             lambda n: evaluated(20, n, n, 20), most=2.0,
             why="COCO's rules compare the best 100 detections of a class with all its objects: quadratic until there "
             "are 100, linear after"),
        Work("boxes in an image", "draw", boxes, few_boxes, drawn, most=2.0,
             why="a label looks for a place that no label before it has taken"),
        Work("candidates", "greedy suppression, 1 class", candidates, few_candidates,
             lambda n: suppressed(n, 1), most=2.0, why=kept),
        Work("candidates", "greedy suppression, 80 classes", candidates, few_candidates,
             lambda n: suppressed(n, 80), most=2.0, why=kept),
        Work("candidates", "soft suppression, 1 class", candidates[:4], few_candidates[:2], softened, most=2.0,
             why="each box that is taken lowers the scores of all that are left: this is the definition"),
        Work("candidates", "box voting, 1 class", candidates, few_candidates, voted, most=2.0, why=kept),
        Work("classes", "post-processing of SSD300 (8,732 boxes)", classes, few_classes, post_processed),
        Work("classes", "loss of SSD300, softmax, forward and backward", classes, few_classes, lost,
             why="the logits of 1,203 classes (168 MB) no longer fit the caches"),
        Work("classes", "evaluate 500 images with 100 detections", classes, few_classes,
             lambda n: evaluated(500, 7, 100, n)),
        Work("pixels of the image (side)", "read a JPEG", (128, 256, 512, 1024, 2048, 4096), (128, 256, 512),
             lambda n: read(folder, n), power=2,
             why="a picture of 48 MB no longer fits the caches"),
        Work("pixels of the image (side)", "detect, SSD on MobileNetV2, input of this size",
             (128, 256, 512, 1024), (128, 256), lambda n: detected(n, 1), power=2),
        Work("pixels of the image (side)", "detect, RetinaNet on ResNet-18, input of this size",
             (128, 256, 512, 1024), (128, 256), lambda n: detected(n, 1, "retinanet"), power=2),
        Work("images in a batch", "detect, SSD on MobileNetV2 at 300", (1, 2, 4, 8, 16, 32), (1, 2, 4),
             lambda n: detected(300, n), why="the maps of a large batch no longer fit the caches"),
        Work("images in a batch", "match with SSD300's anchors, 10 boxes each", (1, 2, 4, 8, 16, 32), (1, 4, 16),
             lambda n: matched(10, "ssd300_vgg16", "bipartite", batch=n)),
        Work("threads", "detect, SSD on VGG-16 at 300", cores(), cores(), with_threads, most=-1.0,
             why="the share of the work that is not divided: -1 would be perfect", processor=False),
    )  # fmt: skip


def cores() -> tuple[int, ...]:
    """1, 2, 4, ... up to the processor's cores."""
    most = os.cpu_count() or 1
    return tuple(n for n in (1, 2, 4, 8, 16, 32, 64) if n <= max(2, most))


# ---------------------------------------------------------------------- data
def some_boxes(number: int, seed: int, side: float = SIDE) -> np.ndarray[Any, Any]:
    """[number, 4] xyxy: small where there are many, so that thousands lie beside each other as in crowded pictures."""
    rng = np.random.default_rng(seed)
    typical = side / max(4.0, number**0.5)
    sides = typical * rng.uniform(0.5, 1.5, (number, 2))
    corner = rng.uniform(0, 1, (number, 2)) * (side - sides)
    return np.concatenate([corner, corner + sides], 1)


def clusters(number: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Candidates [N, 4] around objects, 20 for each, best first, with scores and labels, as a detector gives them."""
    generator = torch.Generator().manual_seed(number + classes)
    objects = torch.from_numpy(some_boxes(max(1, number // 20), 0, 2000.0)).float()
    owner = torch.randint(len(objects), (number,), generator=generator)
    sides = objects[owner, 2:] - objects[owner, :2]
    moved = torch.randn(number, 4, generator=generator) * 0.1 * torch.cat([sides, sides], 1)
    boxes = objects[owner] + moved
    boxes = torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    scores = torch.rand(number, generator=generator).sort(descending=True).values
    return boxes, scores, owner % classes


def truth(images: int, objects: int, classes: int) -> Dataset:
    """A dataset in memory."""
    none = np.zeros(objects, bool)
    records = []
    for i in range(images):
        boxes = some_boxes(objects, i)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        labels = np.random.default_rng(i).integers(0, classes, objects)
        name = f"{i:06d}"
        records.append(
            ImageRecord(Path(name), name, name, (SIDE, SIDE), boxes, labels, none, none, none, areas)
        )  # fmt: skip
    names = tuple(f"class {k}" for k in range(classes))
    return Dataset(Path(), "voc", "val", names, tuple(range(1, classes + 1)), tuple(records))


def some_detections(dataset: Dataset, number: int) -> list[ImageDetections]:
    """For each image some of its objects, moved a little, and else boxes anywhere."""
    found = []
    for i, record in enumerate(dataset.records):
        rng = np.random.default_rng((1, i))
        right = min(len(record.boxes), max(1, 3 * number // 4))
        moved = record.boxes[:right] + rng.normal(0, 1, (right, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        boxes = np.concatenate([moved, some_boxes(number - right, i + 1)]) if number > right else moved[:number]
        labels = np.concatenate([record.labels[:right], rng.integers(0, len(dataset.class_names), len(boxes) - right)])
        found.append(ImageDetections(boxes, rng.uniform(0, 1, len(boxes)), labels))
    return found


def coco(folder: Path, images: int) -> Path:
    """A folder of COCO with that many images (empty files: none is opened) and 7 objects in each."""
    root = folder / f"coco_{images}"
    if not root.exists():
        (root / "annotations").mkdir(parents=True)
        (root / "val").mkdir()
        seven = [[float(v) for v in (b[0], b[1], b[2] - b[0], b[3] - b[1])] for b in some_boxes(7, 0).round(2)]
        for i in range(images):
            (root / "val" / f"{i:06d}.jpg").touch()
        (root / "annotations" / "instances_val.json").write_text(json.dumps({
            "images": [{"id": i, "file_name": f"{i:06d}.jpg", "height": SIDE, "width": SIDE} for i in range(images)],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(1, 81)],
            "annotations": [
                {"id": 7 * i + k, "image_id": i, "category_id": 1 + (i + k) % 80, "bbox": box, "area": box[2] * box[3],
                 "iscrowd": 0}
                for i in range(images) for k, box in enumerate(seven)
            ],
        }))  # fmt: skip
    return root


def voc(folder: Path, images: int) -> Path:
    """The same as a folder of VOC, with 3 objects in each image."""
    root = folder / f"voc_{images}"
    if not root.exists():
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        objects = "".join(
            f"<object><name>class {k}</name><difficult>0</difficult><bndbox><xmin>{10 + k}</xmin><ymin>20</ymin>"
            f"<xmax>{100 + k}</xmax><ymax>200</ymax></bndbox></object>"
            for k in range(3)
        )
        for i in range(images):
            (root / "JPEGImages" / f"{i:06d}.jpg").touch()
            (root / "Annotations" / f"{i:06d}.xml").write_text(
                f"<annotation><filename>{i:06d}.jpg</filename><size><width>{SIDE}</width><height>{SIDE}</height>"
                f"<depth>3</depth></size>{objects}</annotation>"
            )
        (root / "ImageSets/Main/val.txt").write_text("".join(f"{i:06d}\n" for i in range(images)))
    return root


# ---------------------------------------------------------------------- works
def evaluated(images: int, objects: int, detections: int, classes: int) -> Action:
    """COCO's and VOC's numbers."""
    dataset = truth(images, objects, classes)
    found = some_detections(dataset, detections)
    return lambda: evaluate(dataset, found)


def opened(root: Path) -> Action:
    """Read all annotations."""
    return lambda: open_dataset(root, split="val")


def anchors_of(name: str, size: tuple[int, int] | None = None) -> Anchors:
    """The anchors of a variant."""
    from singleshot.ops.shapes import without_values

    with without_values():
        detector = ss.create(name, num_classes=20)
    return detector.anchors_for(size or detector.image_size)


def matched(number: int, name: str, low_quality: Any, *, size: tuple[int, int] | None = None, batch: int = 1) -> Action:
    """Anchors with the boxes of a batch."""
    anchors = anchors_of(name, size)
    height, width = size or (300, 300)
    boxes = torch.from_numpy(np.stack([some_boxes(number, i, 1.0) for i in range(batch)])).float()
    boxes = boxes * torch.tensor([width, height, width, height])
    targets = Targets(
        boxes, torch.zeros(batch, number, dtype=torch.int64), torch.zeros(batch, number, dtype=torch.bool)
    )
    matcher = IoUMatcher(0.5, 0.4 if low_quality == "all" else 0.5, low_quality)
    return lambda: matcher(anchors, targets)


def augmented(number: int) -> Action:
    """A picture with that many boxes, eight times with eight seeds: the random crops differ much in their cost."""
    transform = ssd_augmentation((300, 300), mean=(123.0, 117.0, 104.0))
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    sample = Sample(picture, some_boxes(number, 0).astype(np.float32), np.zeros(number, np.int64),
                    np.zeros(number, bool))  # fmt: skip
    return lambda: [transform(sample, np.random.default_rng(seed)) for seed in range(8)]


def drawn(number: int) -> Action:
    """Boxes with names and scores."""
    picture = np.full((480, SIDE, 3), 127, np.uint8)
    boxes = some_boxes(number, 0, 480.0).astype(np.float32)
    scores, labels = np.linspace(1, 0.3, number, dtype=np.float32), np.arange(number) % 20
    prediction = Prediction(
        boxes, scores, labels, tuple(f"class {k}" for k in range(20)), tuple(range(20)), (480, SIDE)
    )
    return lambda: draw(picture, prediction)


def suppressed(number: int, classes: int) -> Action:
    """What remains of the candidates of one image."""
    boxes, _, labels = clusters(number, classes)
    there = torch.ones(1, number, dtype=torch.bool)
    if classes == 1:
        return lambda: nms.nms_sorted(boxes[None], there, 0.5)
    return lambda: nms.class_nms_sorted(boxes[None], labels[None], there, 0.5)


def softened(number: int) -> Action:
    """Soft suppression of the candidates of one image."""
    boxes, scores, _ = clusters(number, 1)
    return lambda: nms.soft_nms(boxes[None], scores[None], 0.3, 0.016)


def voted(number: int) -> Action:
    """Box voting of the candidates of one image."""
    boxes, scores, labels = clusters(number, 1)
    return lambda: voting.box_vote(boxes, scores, labels)


def _without_weights(build: Callable[[], ss.Detector]) -> ss.Detector:
    from singleshot.ops.shapes import without_values

    with without_values():
        return build()


def post_processed(classes: int) -> Action:
    """Scores as of a trained SSD300: most boxes show the background, 200 an object of one class each."""
    detector = _without_weights(lambda: ss.ssd(num_classes=classes))
    anchors = detector.anchors_for((300, 300))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, len(anchors.boxes), classes + 1, generator=generator)
    logits[..., -1] += 6 + torch.tensor(float(classes)).log()  # the background; below 0.01 for nearly all others
    shown = torch.randint(len(anchors.boxes), (200,), generator=generator)
    logits[0, shown, torch.arange(200) % classes] += 10 + torch.tensor(float(classes)).log()
    deltas = 0.3 * torch.randn(1, len(anchors.boxes), 4, generator=generator)
    predictions = {"class_logits": logits, "box_deltas": deltas}
    limits = torch.tensor([[300.0, 300.0]])
    return torch.inference_mode()(lambda: detector.postprocess(predictions, anchors, None, limits))


def lost(classes: int) -> Action:
    """The loss of a batch of 4 with its gradient."""
    detector = _without_weights(lambda: ss.ssd(num_classes=classes))
    anchors = detector.anchors_for((300, 300))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, len(anchors.boxes), classes + 1, generator=generator, requires_grad=True)
    deltas = torch.randn(4, len(anchors.boxes), 4, generator=generator, requires_grad=True)
    boxes = torch.from_numpy(np.stack([some_boxes(10, i, 300.0) for i in range(4)])).float()
    targets = Targets(boxes, torch.zeros(4, 10, dtype=torch.int64), torch.zeros(4, 10, dtype=torch.bool))

    def step() -> None:
        logits.grad = deltas.grad = None
        losses = detector.criterion({"class_logits": logits, "box_deltas": deltas}, anchors, targets)
        sum(losses.values()).backward()  # type: ignore[union-attr]

    return step


def read(folder: Path, side: int) -> Action:
    """Decode a JPEG that is like a photograph: smooth with some noise."""
    path = folder / f"{side}.jpg"
    if not path.exists():
        small = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        picture = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(1).normal(0, 6, picture.shape)
        Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return lambda: read_image(path)


def detected(side: int, batch: int, builder: str = "ssd") -> Action:
    """Images of the input's size to detections. The scores of random weights do not pass, as most of a trained one."""
    from singleshot.postprocess import vary

    torch.manual_seed(0)
    if builder == "retinanet":
        detector = ss.retinanet(num_classes=20, backbone="resnet18", image_size=[side, side])
    else:
        detector = ss.ssd(num_classes=20, backbone="mobilenetv2", image_size=side)
    detector.postprocess = vary(detector.postprocess, "threshold", 0.3)
    detector.eval()
    images = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(batch)]
    return torch.inference_mode()(lambda: detector(images))


def with_threads(number: int) -> Action:
    """The same, with that many threads."""
    torch.manual_seed(0)
    detector = ss.ssd(num_classes=20).eval()
    images = [torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8)]

    @torch.inference_mode()
    def once() -> None:
        torch.set_num_threads(number)
        detector(images)
        torch.set_num_threads(1)

    return once
