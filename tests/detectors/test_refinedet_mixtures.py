"""RefineDet with other losses, soft suppression, exported, and at sizes that are no multiple of 64."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import singleshot
from singleshot.cli import main
from singleshot.data.dataset import Dataset
from singleshot.detectors import Detector, refinedet
from singleshot.detectors.whole import Whole
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import Metrics
from singleshot.losses.classification import ClassificationLoss, SoftmaxLoss
from singleshot.losses.focal import FocalLoss
from singleshot.losses.ohem import OHEMLoss
from singleshot.multiscale.detector import MultiScaleDetector
from singleshot.multiscale.views import MultiScale, View
from singleshot.ops.boxes import pairwise_iou
from singleshot.postprocess import PerClassPostprocess, vary
from singleshot.preprocess import Stretch
from singleshot.refiner import DELTAS, LOGITS
from singleshot.structures import Anchors, Detections, Targets

NAMES = ("boxes", "scores", "labels")
CLASSES = 3
LIMITS = torch.full((2, 2), 64.0)  # (height, width) of both images: nothing is padded


def small(seed: int = 0, **arguments: Any) -> Detector:
    torch.manual_seed(seed)
    settings = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "channels": 16, **arguments}
    return refinedet(**{"num_classes": 2, "image_size": 64, **settings}).eval()


def outspoken(detector: Detector, head: float, refiner: float) -> Detector:
    """With weights multiplied: untrained, the scores and the objectness are nearly the same everywhere."""
    assert detector.refiner is not None
    with torch.no_grad():
        for part, factor in ((detector.head, head), (detector.refiner, refiner)):
            for parameter in part.parameters():
                parameter.mul_(factor if parameter.ndim > 1 else 1)  # biases are the losses' choice
    return detector


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ export
def soft_detector() -> Detector:
    return outspoken(small(soft_nms=0.3, candidates=None), 8, 8)


@pytest.fixture(scope="module")
def program() -> Any:
    """The exported inference: tracing takes seconds, so the tests put their weights into one graph."""
    detector = soft_detector()
    with torch.no_grad():
        return torch.export.export(Whole(detector), (noise(2, 3, 64, 64), LIMITS)).module()


def exported_and_eager(program: Any, detector: Detector, pixels: Tensor) -> tuple[Detections, Detections]:
    whole = Whole(detector)
    program.load_state_dict(whole.state_dict())
    with torch.no_grad():
        return Detections(*program(pixels, LIMITS)), Detections(*whole(pixels, LIMITS))


def test_soft_suppression_exports_and_equals_eager(program: Any) -> None:
    detector, pixels = soft_detector(), noise(2, 3, 64, 64, seed=1) * 2 - 1
    found, expected = exported_and_eager(program, detector, pixels)
    for one, other in zip(found.to_list(), expected.to_list(), strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["scores"], other["scores"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-5, atol=1e-3)

    # The suppression and the filter both change the result here: an export without one of them would be seen.
    soft, hard = detector.postprocess, vary(detector.postprocess, "soft_nms", None)
    with torch.no_grad():
        predictions = detector.network(pixels)
        anchors, keep = detector.refined(predictions, detector.anchors_for((64, 64)))
        results = [hard(predictions, anchors, keep), soft(predictions, anchors, keep), soft(predictions, anchors)]
    counts = [int((result.scores > 0).sum()) for result in results]
    assert 0 < counts[0] < counts[1] < counts[2]


def rejecting(detector: Detector) -> Detector:
    """The first module says background everywhere."""
    assert detector.refiner is not None
    with torch.no_grad():
        for name, parameter in detector.refiner.named_parameters():
            if LOGITS in name:
                parameter.zero_()
                if name.endswith("bias"):
                    parameter.copy_(torch.tensor([-50.0, 50.0]).repeat(len(parameter) // 2))
    return detector


def test_an_exported_detector_whose_first_module_rejects_everything_finds_nothing(program: Any) -> None:
    pixels = noise(2, 3, 64, 64, seed=1) * 2 - 1
    found, expected = exported_and_eager(program, rejecting(soft_detector()), pixels)
    for part in (found, expected):
        assert not part.scores.any()
        assert part.boxes.isfinite().all()
        assert [len(own["labels"]) for own in part.to_list()] == [0, 0]


# ------------------------------------------------------------------ negative anchor filtering, against plain loops
def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid_terms(logits: Sequence[float], label: int | None) -> list[tuple[bool, float, float]]:
    """Of each class: whether it is the anchor's, 1 - p_t and -log p_t."""
    signed = [(k == label, logit if k == label else -logit) for k, logit in enumerate(logits)]
    return [(own, 1 / (1 + math.exp(x)), softplus(-x)) for own, x in signed]


def slow_classification(
    loss: ClassificationLoss,
    logits: Sequence[Sequence[float]],
    labels: dict[int, int],
    negatives: Sequence[int],
    anchors: Sequence[reference.Box],
) -> tuple[float, int]:
    """One image: the sum, and how many anchors it is to be divided by. `labels`: of the positives, by anchor."""
    if isinstance(loss, SoftmaxLoss):
        easy = [reference.cross_entropy(own, len(own) - 1) for own in logits]
        eligible = [a in negatives for a in range(len(logits))]
        total = sum(easy[a] for a in reference.hard_negatives(easy, eligible, int(loss.ratio * len(labels))))
        return total + sum(reference.cross_entropy(logits[a], label) for a, label in labels.items()), len(labels)
    if isinstance(loss, FocalLoss):
        assert loss.alpha is not None
        total = 0.0
        for a in (*labels, *negatives):
            for own, wrong, cross_entropy in sigmoid_terms(logits[a], labels.get(a)):
                total += (loss.alpha if own else 1 - loss.alpha) * wrong**loss.gamma * cross_entropy
        return total, len(labels)
    assert isinstance(loss, OHEMLoss)
    assert loss.nms is not None
    of = {a: sum(term for _, _, term in sigmoid_terms(logits[a], labels.get(a))) for a in (*labels, *negatives)}
    rivals = list(negatives) if loss.keep_positives else list(of)
    alive = reference.greedy_nms([anchors[a] for a in rivals], [of[a] for a in rivals], loss.nms)
    number, chosen = loss.batch_size, []
    if loss.ratio is not None and not loss.keep_positives:  # the paper's reading: 1:3 among the survivors
        survivors = [rivals[k] for k in alive]
        shown = [a for a in survivors if a in labels][: max(1, int(loss.batch_size / (1 + loss.ratio)))]
        others = [a for a in survivors if a not in labels]
        taken = shown + others[: min(int(loss.ratio * len(shown)), loss.batch_size - len(shown))]
        return sum(of[a] for a in taken), len(taken)
    if loss.ratio is not None:
        share = int(loss.batch_size * loss.ratio / (1 + loss.ratio))
        number, chosen = min(share, int(loss.ratio * len(labels))), list(labels)
    chosen += [rivals[k] for k in alive[:number]]
    return sum(of[a] for a in chosen), len(chosen)


def decode(deltas: reference.Box, anchor: reference.Box) -> list[float]:
    """The inverse of `reference.encode`."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + 0.1 * deltas[0] * width
    y = (anchor[1] + anchor[3]) / 2 + 0.1 * deltas[1] * height
    w, h = width * math.exp(0.2 * deltas[2]), height * math.exp(0.2 * deltas[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def share_inside(box: reference.Box, region: reference.Box) -> float:
    width = max(0.0, min(box[2], region[2]) - max(box[0], region[0]))
    height = max(0.0, min(box[3], region[3]) - max(box[1], region[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


def slow_terms(
    loss: ClassificationLoss,
    predictions: dict[str, Tensor],
    anchors: Tensor,
    targets: Sequence[dict[str, Tensor]],
    keep: Tensor,
    *,
    filters_positives: bool = False,
) -> dict[str, float]:
    """Every term of the second module's loss; with `filters_positives` wrongly, to tell that it would be seen."""
    totals = {"classification": 0.0, "box": 0.0, "iou": 0.0}
    positives = divisor = 0
    for i, target in enumerate(targets):
        crowd = target.get("iscrowd", torch.zeros(len(target["labels"]), dtype=torch.bool))
        regions, boxes = target["boxes"][crowd].tolist(), target["boxes"][~crowd].tolist()
        classes, own = target["labels"][~crowd].tolist(), anchors[i].tolist()
        usable = [all(share_inside(anchor, region) < 0.5 for region in regions) for anchor in own]
        match, eligible = reference.ssd_match(boxes, own, usable=usable)
        labels = {a: classes[o] for a, o in enumerate(match) if o >= 0 and (keep[i, a] or not filters_positives)}
        negatives = [a for a in range(len(own)) if eligible[a] and keep[i, a]]
        total, count = slow_classification(loss, predictions["class_logits"][i].tolist(), labels, negatives, own)
        totals["classification"] += total
        positives, divisor = positives + len(labels), divisor + count
        for a in labels:
            deltas, box = predictions["box_deltas"][i, a].tolist(), boxes[match[a]]
            wanted = reference.encode(box, own[a])
            totals["box"] += sum(reference.smooth_l1(deltas[m] - wanted[m]) for m in range(4))
            overlap, logit = reference.iou(decode(deltas, own[a]), box), float(predictions["iou_logits"][i, a])
            totals["iou"] += overlap * softplus(-logit) + (1 - overlap) * softplus(logit)
    return {name: total / max(divisor if name == "classification" else positives, 1) for name, total in totals.items()}


def boxes_of(*shape: int, generator: torch.Generator) -> Tensor:
    low = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 60
    return torch.cat([low, low + 6 + torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 40], -1)


def second_module_case(
    seed: int, logits: int, kept: float
) -> tuple[dict[str, Tensor], Tensor, list[dict[str, Tensor]], Tensor]:
    """Predictions, anchors of each image, targets and the filter of four images, float64.

    One image has no object and one a crowd region. A third of the anchors lie near objects, as refined ones do.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets, anchors = [], boxes_of(4, 72, generator=generator)
    for i, number in enumerate((3, 0, 1, 5)):
        boxes = boxes_of(number, generator=generator)
        targets.append({"boxes": boxes, "labels": torch.randint(0, CLASSES, (number,), generator=generator)})
        if number:
            anchors[i, ::3] = boxes[torch.arange(24) % number] + 2 * normal(24, 4).clamp(-1.4, 1.4)
    targets[3]["iscrowd"] = torch.arange(5) == 4
    predictions = {
        "class_logits": 2 * normal(4, 72, logits),
        "box_deltas": 2 * normal(4, 72, 4),
        "iou_logits": normal(4, 72, 1),
    }
    keep = torch.rand(4, 72, generator=generator) < kept
    return predictions, anchors, targets, keep


def padded(targets: Sequence[dict[str, Tensor]]) -> Targets:
    """In float64, which `Targets.from_list` does not make."""
    truth = Targets.from_list(targets)
    boxes = truth.boxes.double()
    for row, target in zip(boxes, targets, strict=True):
        row[: len(target["boxes"])] = target["boxes"]
    return replace(truth, boxes=boxes)


LOSSES: list[Any] = [
    FocalLoss(),
    FocalLoss(alpha=0.5, gamma=0.5),
    OHEMLoss(ratio=3),
    OHEMLoss(ratio=3, batch_size=12),
    OHEMLoss(ratio=3, keep_positives=True),
    OHEMLoss(ratio=3, batch_size=12, keep_positives=True),
    OHEMLoss(batch_size=20),
    SoftmaxLoss(ratio=3),
    SoftmaxLoss(ratio=1.5),
]
with_losses = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def criterion_of(loss: ClassificationLoss) -> Any:
    with torch.device("meta"):
        detector = small(num_classes=CLASSES, classification=loss, iou_head=True, ignore_crowd=True)
    return detector.criterion


@with_losses
@pytest.mark.parametrize("kept", [0.6, 0.0])
def test_filtered_terms_equal_plain_loops(loss: Any, kept: float) -> None:
    criterion = criterion_of(loss)
    for seed in range(4):
        predictions, anchors, targets, keep = second_module_case(seed, loss.num_logits(CLASSES), kept)
        leaves = {name: value.clone().requires_grad_() for name, value in predictions.items()}
        given = Anchors(anchors, (72,))
        found = criterion(leaves, given, padded(targets), keep)
        expected = slow_terms(loss, predictions, anchors, targets, keep)
        assert found.keys() == expected.keys()
        for name, value in expected.items():  # the IoU is float32 whatever comes
            assert found[name].item() == pytest.approx(value, rel=1e-5 if name == "iou" else 1e-6), (seed, name)

        # Neither no filter at all nor one that takes positives too would pass.
        for wrong in (
            slow_terms(loss, predictions, anchors, targets, torch.ones_like(keep)),
            slow_terms(loss, predictions, anchors, targets, keep, filters_positives=True),
        ):
            assert wrong["classification"] != pytest.approx(expected["classification"], rel=1e-3)

        # Not even a gradient for what is filtered.
        sum(found.values(), torch.zeros(())).backward()
        positive = criterion.match(given, padded(targets)).positive
        moved = {name: leaf.grad.any(-1) for name, leaf in leaves.items() if leaf.grad is not None}
        assert not (moved["class_logits"] & ~positive & ~keep).any()
        assert torch.equal(moved["box_deltas"], positive)
        assert torch.equal(moved["iou_logits"], positive)
        if not isinstance(loss, OHEMLoss) or loss.keep_positives:  # the others choose among positives too
            assert moved["class_logits"][positive].all()


@with_losses
def test_filtered_terms_without_any_object(loss: Any) -> None:
    predictions, anchors, targets, keep = second_module_case(0, loss.num_logits(CLASSES), 0.6)
    nothing = [{name: part[:0] for name, part in target.items()} for target in targets]
    leaves = {name: value.clone().requires_grad_() for name, value in predictions.items()}
    found = criterion_of(loss)(leaves, Anchors(anchors, (72,)), padded(nothing), keep)
    if isinstance(loss, OHEMLoss) and loss.ratio is None:  # it divides by what it chooses, and needs no positive
        expected = slow_terms(loss, predictions, anchors, nothing, keep)["classification"]
        assert found["classification"].item() == pytest.approx(expected, rel=1e-6)
        assert expected > 0
    else:
        assert found["classification"] == 0
    assert found["box"] == found["iou"] == 0
    sum(found.values(), torch.zeros(())).backward()
    assert all(leaf.grad is None or bool(leaf.grad.isfinite().all()) for leaf in leaves.values())


@pytest.mark.parametrize("loss", [FocalLoss(prior=0.5), OHEMLoss(ratio=3, prior=0.5), SoftmaxLoss(ratio=3)], ids=repr)
def test_the_detector_gives_its_filter_and_refined_anchors_to_the_loss(loss: Any) -> None:
    detector = outspoken(small(num_classes=CLASSES, classification=loss, iou_head=True), 10, 3)
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 64, 64, generator=generator) for _ in range(3)]
    targets = [
        {"boxes": boxes_of(n, generator=generator).float().clamp(max=64), "labels": torch.arange(n) % CLASSES}
        for n in (3, 0, 4)
    ]
    assert detector.refiner is not None
    with torch.no_grad():
        objectness = detector.raw(pictures).predictions[LOGITS].softmax(-1)[..., 0].flatten().sort().values
        low, high = objectness[300], objectness[301]  # a threshold between two anchors, with others on both sides
        detector.refiner.theta = 1 - float(low + high) / 2
        raw = detector.raw(pictures)
        found = detector.losses_and_detections(pictures, targets)[0]
    predictions = raw.predictions
    keep = predictions[LOGITS].softmax(-1)[..., 0] > (low + high) / 2
    assert raw.base.boxes.shape == (255, 4)
    assert int((~keep).sum()) == 301
    refined = detector.postprocess.coder.decode(predictions[DELTAS], raw.base.boxes)
    assert not torch.allclose(refined, raw.base.boxes.expand_as(refined))
    expected = slow_terms(loss, predictions, refined, targets, keep)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name
    unfiltered = slow_terms(loss, predictions, refined, targets, torch.ones_like(keep))
    assert unfiltered["classification"] != pytest.approx(expected["classification"], rel=1e-3)


# ------------------------------------------------------------------ greedy suppression in the place of the soft one
def greedy(detector: Detector, iou: float) -> PerClassPostprocess:
    """Made anew, number by number."""
    own: Any = detector.postprocess
    return PerClassPostprocess(
        own.coder, own.scores, own.threshold, own.candidates, iou=iou, detections=own.detections, soft=None
    )


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_a_varied_nms_takes_the_place_of_the_soft_one(iou: float) -> None:
    detector = soft_detector()
    with torch.no_grad():
        raw = detector.raw([noise(3, 64, 64)])
        (found,) = detector.detections(raw, vary(detector.postprocess, "nms", iou))
        (expected,) = detector.detections(raw, greedy(detector, iou))
        (soft,) = detector.detections(raw)
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)
    assert len(found["scores"]) < len(soft["scores"])

    assert raw.keep is not None
    boxes = detector.postprocess.coder.decode(raw.predictions["box_deltas"], raw.anchors.boxes)[0]
    scores = raw.predictions["class_logits"].softmax(-1)[0]
    for label in range(2):
        places = [a for a in range(len(boxes)) if raw.keep[0, a] and scores[a, label] > 0.01]
        own = [boxes[a].tolist() for a in places]
        kept = reference.greedy_nms(own, [float(scores[a, label]) for a in places], iou)
        chosen = found["labels"] == label
        torch.testing.assert_close(found["scores"][chosen], scores[[places[k] for k in kept], label])
        cut = boxes[[places[k] for k in kept]].clamp(0, 64)
        torch.testing.assert_close(found["boxes"][chosen], cut, rtol=1e-5, atol=1e-3)


def test_a_sweep_of_nms_over_a_file_with_soft_suppression(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "soft.safetensors"
    names = ("cell", "other")
    detector = small(class_names=names, soft_nms=0.3, candidates=None, detections=100)
    singleshot.save(outspoken(detector, 20, 1), path)
    measured: list[list[ImageDetections]] = []

    def noted(dataset: Dataset, detections: list[ImageDetections]) -> Metrics:
        measured.append(detections)
        return singleshot.evaluate(dataset, detections)

    monkeypatch.setattr("singleshot.evaluation.detect_dataset.evaluate", noted)
    words = ["evaluate", str(path), str(tiny_voc), "--device", "cpu", "--json", "--sweep", "nms=0.3,0.5"]
    assert main(words) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one["nms"] for one in results] == [0.3, 0.5]

    detector = singleshot.load(path)
    own: Any = detector.postprocess
    assert own.soft == 0.3  # it travelled in the file
    dataset = singleshot.open_dataset(tiny_voc, split="val")
    others = [detect_dataset(detector, dataset)]
    for iou, one, found in zip((0.3, 0.5), results, measured, strict=True):
        detector.postprocess = greedy(detector, iou)
        wanted = detect_dataset(detector, dataset)
        assert same(found, wanted)
        assert not any(same(found, other) for other in others)
        others.append(wanted)
        expected = singleshot.evaluate(dataset, wanted).to_json()
        assert {name: one["coco"][name] for name in expected["coco"]} == expected["coco"]
        assert (one["voc07"], one["voc10"]) == (expected["voc07"], expected["voc10"])


def same(first: Sequence[ImageDetections], second: Sequence[ImageDetections]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in NAMES)


# ------------------------------------------------------------------ a step on VGG-16 with random weights
@pytest.mark.parametrize(
    ("seed", "size", "precision"),
    [
        (0, (64, 64), "fp32"),
        pytest.param(1, (64, 64), "bf16", marks=pytest.mark.slow),  # 15 s where the CPU has no bf16
        pytest.param(2, (64, 128), "bf16", marks=pytest.mark.slow),  # half a minute where the CPU has no bf16
    ],
)
def test_a_step_on_the_plain_trunk_is_finite(seed: int, size: tuple[int, int], precision: str) -> None:
    torch.manual_seed(seed)
    detector = refinedet(num_classes=2, backbone="vgg16", image_size=size, channels=32).train()
    detector.precision = precision
    pictures = [noise(3, *size, seed=k) for k in range(4)]
    boxes = [[[8.0, 8, 40, 50]], [[0, 0, 64, 64], [5, 5, 9, 8]], [[20, 30, 52, 62], [21, 31, 50, 60], [2, 40, 60, 48]]]
    targets = [{"boxes": torch.tensor(own), "labels": torch.arange(len(own)) % 2} for own in [*boxes, [[1, 1, 33, 17]]]]
    losses = detector(pictures, targets)
    assert isinstance(losses, dict)
    assert losses.keys() == {"anchor_classification", "anchor_box", "classification", "box"}
    assert all(loss.dtype == torch.float32 and 0 < loss < 100 for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    first = next(iter(detector.backbone.parameters())).grad
    assert first is not None
    assert first.any()  # through all thirteen convolutions


# ------------------------------------------------------------------ views of any size
ODD = [(View(side=200), (200, 200)), (View(scale=1.3), (83, 83)), (View(size=(100, 230)), (100, 230))]


def cells(size: tuple[int, int]) -> int:
    """Of all four maps: each has one for every step begun."""
    return sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in (8, 16, 32, 64))


@pytest.mark.parametrize(("view", "size"), ODD, ids=lambda value: str(value))
def test_a_view_that_is_no_multiple_of_the_coarsest_stride(
    view: View, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = small()
    images = [noise(3, 40, 60), noise(3, 70, 50)]
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    network = detector.network

    def noted(pixels: Tensor) -> dict[str, Tensor]:
        seen.append((pixels, network(pixels)))
        return seen[-1][1]

    monkeypatch.setattr(detector, "network", noted)
    found = MultiScaleDetector(detector, MultiScale((view,), mirror=False))(images)
    assert [len(pixels) for pixels, _ in seen] == [1, 1]
    for pixels, predictions in seen:
        assert pixels.shape[-2:] == size
        assert predictions.keys() == {"class_logits", "box_deltas", LOGITS, DELTAS}
        assert {value.shape[1] for value in predictions.values()} == {3 * cells(size)}
    assert len(detector.anchors_for(size).boxes) == 3 * cells(size)
    if size == (200, 200):
        assert 3 * cells(size) == 3 * (25**2 + 13**2 + 7**2 + 4**2)

    with torch.no_grad():
        for image, own in zip(images, found, strict=True):
            raw = detector.raw([image], preprocess=Stretch(size))
            (alone,) = detector.detections(raw)
            assert len(own["scores"])
            assert all(torch.equal(own[name], alone[name]) for name in NAMES)


def test_views_of_odd_sizes_merge() -> None:
    detector = small()
    images = [noise(3, 40, 60), noise(3, 70, 50)]
    recipe = MultiScale(tuple(view for view, _ in ODD), merge="nms", iou=0.5, candidates=100, detections=100)
    found = MultiScaleDetector(detector, recipe)(images)
    for image, own in zip(images, found, strict=True):
        boxes, height, width = own["boxes"], *image.shape[-2:]
        assert len(boxes)
        assert boxes.isfinite().all()
        assert boxes.min() >= 0
        assert boxes[:, 0::2].max() <= width
        assert boxes[:, 1::2].max() <= height
        for label in range(2):
            same = boxes[own["labels"] == label]
            assert not (pairwise_iou(same, same).triu(1) > 0.5).any()


@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        *((size, {"backbone": "vgg16"}) for _, size in ODD),
        ((100, 230), {"backbone": "resnet18"}),
        ((100, 230), {"neck": "fpn"}),
        ((100, 230), {"neck": "none"}),
        ((100, 230), {"attention": "se", "head_blocks": True}),
    ],
    ids=str,
)
def test_every_trunk_and_neck_predicts_for_all_anchors_of_an_odd_size(
    size: tuple[int, int], arguments: dict[str, Any]
) -> None:
    with torch.device("meta"):  # shapes only
        detector = small(**{"backbone_options": {}, **arguments})
        predictions = detector.network(torch.empty(2, 3, *size))
    assert {value.shape[1] for value in predictions.values()} == {3 * cells(size)}
    assert len(detector.anchors_for(size).boxes) == 3 * cells(size)
