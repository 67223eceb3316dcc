"""How scores and the IoU of the boxes are related, and what a weak relation costs (IoU-aware paper, section 1).

The network runs once. For each kind of score only the ranking and the suppression are repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from singleshot.analysis.iou.result import IoUAnalysis, ScoreAnalysis
from singleshot.analysis.passes import Visit, match, visit_images
from singleshot.analysis.truth import best_overlaps, true_iou
from singleshot.data.dataset import Dataset
from singleshot.detectors.detector import Detector, Raw
from singleshot.evaluation.coco import coco_metrics
from singleshot.evaluation.detect_dataset import to_arrays
from singleshot.evaluation.detections import ImageDetections
from singleshot.ops.boxes import aligned_iou
from singleshot.outputs.iou import IoUHead
from singleshot.postprocess import ClassScores, Scores, unsuppressed
from singleshot.structures import Matched

IOU_KEY = "iou_logits"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
PLAIN, AWARE, TRUE = "class score", "IoU-aware", "true IoU"
_METRICS = ("AP50", "AP60", "AP70", "AP75", "AP80", "AP90")  # Table 4, and COCO's AP75
_ALL = 1 << 40  # no limit to the detections of an image

Alpha = float | None | Literal["model"]


def iou_analysis(
    detector: Detector,
    dataset: Dataset,
    *,
    min_score: float = 0.05,
    min_iou: float = 0.5,
    alpha: Alpha = "model",
    oracle: bool = False,
    drop_difficult: bool = False,
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> IoUAnalysis:
    """Correlation of score and IoU, well-placed boxes that NMS lost, and AP, for each kind of score.

    The kinds of score, each ranked, suppressed and cut with the detector's own thresholds:
    - the class score alone;
    - the IoU-aware score, if the detector predicts IoUs, with `alpha` (None: the plain product; default: the
      detector's own);
    - with `oracle`, the same score with the true IoU in place of the predicted one (see `oracle_iou`).

    There are three correlations, each over all classes together:
    - of the detections: the boxes that are left after NMS and the limit per image and that have a score (of this kind)
      of at least `min_score`. Their IoU is that with the best object of their class, 0 where there is none;
    - of the well-placed detections, those with an IoU of `min_iou` or more. This part is about localisation alone,
      without telling objects from background;
    - of the positive anchors before NMS (`drop_difficult`: without those of VOC's difficult objects).
    As in the metrics, a detection does not count if it overlaps a difficult object of its class by 0.5, or lies half in
    a crowd region of its class, and overlaps no other object more.

    NMS: an object is reachable at IoU t if a candidate of its class has an IoU of t or more with it. Candidates are
    boxes with a score above the detector's threshold that are within its limit before NMS. The object is lost if no box
    that NMS kept has this IoU. The limit of detections per image plays no role here.

    Raises `UserError` in the cases of `visit_images`.
    """
    collector = _Collector(detector, min_score=min_score, alpha=alpha, oracle=oracle, drop_difficult=drop_difficult)
    visit_images(detector, dataset, collector, batch_size=batch_size, workers=workers, progress=progress)
    objects = sum(int((~(record.crowd | record.difficult)).sum()) for record in dataset.records)
    scores = tuple(way.analysis(dataset) for way in collector.ways)
    return IoUAnalysis(len(dataset), objects, min_score, min_iou, THRESHOLDS, scores)


def oracle_iou(
    detector: Detector,
    dataset: Dataset,
    *,
    alpha: Alpha = "model",
    batch_size: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, float]]:
    """AP, AP50, AP60, AP70, AP75, AP80, AP90 of "class score", "IoU-aware" (if there is such a head) and "true IoU".

    "true IoU" replaces the predicted IoU by the true one and repeats the ranking and NMS. The true IoU is that of the
    decoded box, clipped to the image, with its best object of any class. Difficult objects count as objects, crowd
    regions do not. This is what a perfect IoU head would give, so AP at high IoU must rise clearly. A box on the
    background has an IoU of 0, so false detections there vanish as well.

    Raises `UserError` in the cases of `visit_images`.
    """
    collector = _Collector(detector, alpha=alpha, oracle=True, metrics_only=True)
    visit_images(detector, dataset, collector, batch_size=batch_size, workers=workers, progress=progress)
    return {way.name: way.metrics(dataset) for way in collector.ways}


class _Way:
    """One kind of score, and what was found with it so far."""

    def __init__(self, name: str, scores: Scores, alpha: float | None) -> None:
        self.name, self.scores, self.alpha = name, scores, alpha
        self.found: list[ImageDetections] = []
        self.pairs: list[Tensor] = [torch.zeros(2, 0)]  # score and IoU
        self.positives: list[Tensor] = [torch.zeros(2, 0)]
        self.reachable = torch.zeros(len(THRESHOLDS), dtype=torch.int64)
        self.lost = torch.zeros(len(THRESHOLDS), dtype=torch.int64)

    def metrics(self, dataset: Dataset) -> dict[str, float]:
        measured = coco_metrics(dataset, self.found)
        return {"AP": measured.numbers["AP"], **{name: measured.by_iou[name] for name in _METRICS}}

    def analysis(self, dataset: Dataset) -> ScoreAnalysis:
        scores, ious = torch.cat(self.pairs, 1).numpy()
        positive_scores, positive_ious = torch.cat(self.positives, 1).numpy()
        return ScoreAnalysis(
            name=self.name,
            alpha=self.alpha,
            scores=scores,
            ious=ious,
            positive_scores=positive_scores,
            positive_ious=positive_ious,
            reachable=tuple(self.reachable.tolist()),
            lost=tuple(self.lost.tolist()),
            metrics=self.metrics(dataset),
        )


class _Collector:
    """Called with each batch; keeps what the analyses need."""

    def __init__(
        self,
        detector: Detector,
        *,
        min_score: float = 0.0,
        alpha: Alpha = "model",
        oracle: bool = False,
        drop_difficult: bool = False,
        metrics_only: bool = False,
    ) -> None:
        self.detector, self.min_score = detector, min_score
        self.alpha, self.oracle, self.drop_difficult = alpha, oracle, drop_difficult
        self.metrics_only = metrics_only
        self.ways: list[_Way] = []

    def __call__(self, seen: Visit) -> None:
        raw = seen.raw
        if not self.ways:
            self.ways = _ways(self.detector, has_iou=IOU_KEY in raw.predictions, alpha=self.alpha, oracle=self.oracle)
        matched = None if self.metrics_only else match(self.detector, seen, drop_difficult=self.drop_difficult)
        for way in self.ways:
            if way.name == TRUE:
                iou = true_iou(self.detector, raw, seen.records)
                raw = replace(raw, predictions={**raw.predictions, IOU_KEY: iou.logit(eps=1e-6)[..., None]})
            self._rank(way, raw, seen)
            if matched is not None:
                way.positives.append(_positives(self.detector, way.scores, raw, matched))

    def _rank(self, way: _Way, raw: Raw, seen: Visit) -> None:
        own: Any = self.detector.postprocess
        ranking = replace(own, scores=way.scores, detections=_ALL)
        kept = self.detector.detections(raw, ranking)
        final = [{name: part[: own.detections] for name, part in found.items()} for found in kept]  # best first
        way.found += [to_arrays(found) for found in final]
        if self.metrics_only:
            return
        candidates = self.detector.detections(raw, unsuppressed(ranking))
        levels = torch.tensor(THRESHOLDS)
        for record, before, after, shown in zip(seen.records, candidates, kept, final, strict=True):
            iou, counts, _ = best_overlaps(shown, record)
            chosen = counts & (shown["scores"] >= self.min_score)
            way.pairs.append(torch.stack([shown["scores"][chosen], iou[chosen]]).cpu())
            # the best box of each object, before NMS and after
            best, rest = (best_overlaps(found, record)[2].cpu()[:, None] >= levels for found in (before, after))
            way.reachable += best.sum(0)
            way.lost += (best & ~rest).sum(0)


def _ways(detector: Detector, *, has_iou: bool, alpha: Alpha, oracle: bool) -> list[_Way]:
    own: Any = detector.postprocess.scores
    outputs = tuple(getattr(own, "outputs", ()))
    others = tuple(output for output in outputs if output.key != IOU_KEY)
    head = next((output for output in outputs if output.key == IOU_KEY), IoUHead().output())
    plain = own if others == outputs else replace(own, outputs=others)
    aware = ClassScores(own.classification, (head, *others), own.key)
    if alpha != "model":
        aware = aware.with_alpha("iou_alpha", alpha)
    names = [AWARE] * has_iou + [TRUE] * oracle
    return [_Way(PLAIN, plain, None), *(_Way(name, aware, aware.alphas["iou_alpha"]) for name in names)]


def _positives(detector: Detector, scores: Scores, raw: Raw, matched: Matched) -> Tensor:
    """For each positive anchor its score for the right class and its IoU with the matched object: [2, P]."""
    boxes = detector.postprocess.coder.decode(raw.predictions["box_deltas"], raw.anchors.boxes)
    right = scores(raw.predictions).gather(-1, matched.labels[..., None])[..., 0]
    both = torch.stack([right[matched.positive], aligned_iou(boxes, matched.boxes)[matched.positive]])
    return both.cpu()
