"""From raw predictions to findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.errors import UserError
from singleshot.losses.classification import ClassificationLoss
from singleshot.ops.boxes import box_area, clip_boxes, coordinate_rows
from singleshot.ops.nms import class_nms_sorted, first_marked, nms_sorted, soft_nms
from singleshot.ops.voting import near_vote
from singleshot.structures import Anchors, Detections, Predictions

_CPU_BLOCK = 1 << 20  # scores that are held at once: what a cache takes
_BLOCK = 1 << 26  # the same on other devices, where every call costs: 256 MiB
_TRACED_CANDIDATES = 1000  # of a class in a traced graph, whose size is fixed, where no number of them is set
_NO_NMS = 2.0  # an IoU that no pair exceeds
_VOTERS = 200  # candidates of a class, the best ones, that have a part in box voting: with more AP is the same
_VOTERS_OF_ALL = 1000  # the same among the candidates of all classes

Scores = Callable[[Predictions], Tensor]
"""Predictions -> score of each class [B, A, K], each anchor's from its own predictions."""


class Postprocess(Protocol):
    """What every post-processing offers."""

    @property
    def coder(self) -> DeltaCoder: ...

    @property
    def scores(self) -> Scores: ...

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections in pixels of the network's input.

        `keep` [B, A] bool: anchors outside of it find nothing. `limits` [B, 2]: (height, width) of each image within
        the input, for those that cut boxes at its border before they are compared.
        """


@dataclass(frozen=True)
class ClassScores:
    """The probability of the class is the score: predictions -> [B, A, K]."""

    classification: ClassificationLoss
    key: str = "class_logits"

    def __call__(self, predictions: Predictions) -> Tensor:
        return self.classification.probabilities(predictions[self.key])


@dataclass(frozen=True)
class IoUAwareScores:
    """The probability of the class and the predicted IoU together: p^alpha * IoU^(1 - alpha) (IoU-aware paper,
    equation 5).

    predictions -> [B, A, K]. `alpha` 1 is the probability alone (the same bits as `ClassScores`), 0 the IoU alone, the
    same for every class; None is the plain product p * IoU (the paper's "none", section 4.3).

    Raises `UserError` for an alpha outside of 0..1.
    """

    classification: ClassificationLoss
    alpha: float | None = 0.5  # authors' code, and the best of the paper's Table 3
    key: str = "class_logits"
    iou_key: str = "iou_logits"  # [B, A, 1]

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UserError(
                f"iou_alpha must be a number from 0 (the predicted IoU alone) to 1 (the class alone), or None for the "
                f"plain product of both, got {self.alpha!r}"
            )

    def __call__(self, predictions: Predictions) -> Tensor:
        probability = self.classification.probabilities(predictions[self.key])
        if self.alpha == 1:
            return probability
        iou = predictions[self.iou_key].sigmoid()
        if self.alpha is None:
            return probability * iou
        if self.alpha == 0:  # not p^0 * IoU: only the shape of p is needed
            return iou.expand_as(probability)
        # Both exponents are inside of (0, 1): 0 stays 0, 1 stays 1, and nothing overflows.
        return probability.pow(self.alpha) * iou.pow(1 - self.alpha)


@dataclass(frozen=True)
class PerClassPostprocess:
    """Inference of SSD (paper section 3.7, authors' DetectionOutput layer) and of RefineDet (section 3.5).

    For each class: scores above `threshold`, the best `candidates`, greedy NMS with `iou`; then the best `detections`
    of the image over all classes. All images and classes at once, of fixed shape. Equal scores keep their order (anchor
    within a class, then class), so the result depends neither on the batch nor on tracing.

    `soft`: linear soft-NMS with this IoU takes the place of the greedy one, and scores that it lowers below `threshold`
    are no findings. RefineDet's authors publish their COCO figures so: 0.30, with threshold 0.016 and no limit of
    candidates (their test script; the paper does not say it).

    `candidates` None: as many as there are. A traced graph, whose size is fixed, then takes the best 1,000.

    `vote`: each finding's box is told by itself and the best 200 candidates of its class, as far as they are near: the
    spread of `singleshot.ops.voting.near_vote`. Which boxes are found, and their scores, stay the same.
    """

    coder: DeltaCoder
    scores: Scores
    threshold: float = 0.01  # paper section 3.7
    candidates: int | None = 400  # authors' script, per class
    iou: float = 0.45  # paper section 3.7
    detections: int = 200  # paper section 3.7
    soft: float | None = None  # IoU of soft-NMS
    vote: float | None = None  # spread of box voting

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections [B, detections] in pixels of the network's input.

        `keep` [B, A] bool: anchors outside of it find nothing.
        """
        boxes = self.coder.decode(predictions["box_deltas"], anchors.boxes)  # [B, A, 4]
        sound = boxes.isfinite().all(-1)
        if keep is not None:
            sound = sound & keep
        scores = self.scores(predictions)  # [B, A, K]
        # A score that is NaN fails both comparisons and so becomes 0.
        scores = torch.where((scores > self.threshold) & sound[..., None], scores, 0.0).transpose(1, 2)  # [B, K, A]
        best, index = _best(scores, self._candidates(scores))  # [B, K, N]
        number = best.shape[-1]
        chosen = boxes.nan_to_num().gather(1, index.flatten(1)[..., None].expand(-1, -1, 4))  # [B, K * N, 4]
        rows, best = chosen.reshape(-1, number, 4), best.reshape(-1, number)  # an image's class each
        before = best
        if self.soft is None:
            best = torch.where(nms_sorted(rows, best > 0, self.iou), best, 0.0)
        else:
            best = soft_nms(rows, best, self.soft, self.threshold)
        best = best.reshape(chosen.shape[:2])  # [B, K * N]
        final, order = _best(best, min(self.detections, best.shape[1]))
        found, labels = chosen.gather(1, order[..., None].expand(-1, -1, 4)), order // number
        if self.vote is not None:
            place = torch.arange(len(order), device=order.device)[:, None] * scores.shape[1] + labels  # rows of classes
            own = torch.where(order % number < _VOTERS, 0.0, before.reshape(best.shape).gather(1, order))
            found = near_vote(
                found, own, coordinate_rows(rows[:, :_VOTERS])[:, place], before[place, :_VOTERS], self.vote
            )
        return Detections(found, final, labels)

    def _candidates(self, scores: Tensor) -> int:
        # Most classes have few scores above the threshold. Where waiting for the device is allowed (not while a graph
        # is traced), the suppression is only as large as the fullest class needs; the result is the same.
        anchors = scores.shape[-1]
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return min(_TRACED_CANDIDATES if self.candidates is None else self.candidates, anchors)
        most = anchors if self.candidates is None else min(self.candidates, anchors)
        return max(1, min(most, int((scores > 0).sum(-1).max()))) if scores.numel() else most


@dataclass(frozen=True)
class PerLevelPostprocess:
    """RetinaNet's inference (focal loss paper section 4.1, Inference; Detectron's test_retinanet).

    On each level of the pyramid: (anchor, class) pairs with a score above `threshold`, of these the best `candidates`.
    Only they are decoded; greedy NMS with `iou` for each class over all levels together; then the best `detections` of
    the image. All images at once; of fixed shape while a graph is traced.

    Equal scores keep their order (level, anchor, class), so the result depends neither on the batch nor on tracing. An
    anchor with a prediction that is not finite finds nothing.

    `vote`: as in `PerClassPostprocess`, by those of the image's best 1,000 candidates that are of the class.
    """

    coder: DeltaCoder
    scores: Scores
    threshold: float = 0.05  # paper section 4.1
    candidates: int = 1000  # paper section 4.1, per level
    iou: float = 0.5  # paper section 4.1
    detections: int = 100  # Detectron's configuration; as many as COCO counts
    vote: float | None = None  # spread of box voting

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections [B, at most `detections`] in pixels of the network's input.

        `keep` [B, A] bool: anchors outside of it find nothing.
        """
        rows = torch.arange(len(predictions["box_deltas"]), device=predictions["box_deltas"].device)[:, None]
        index, labels, best = self._candidates(predictions, anchors.counts, keep)  # [B, N] each
        base = anchors.boxes[index] if anchors.boxes.ndim == 2 else anchors.boxes[rows, index]
        boxes = self.coder.decode(predictions["box_deltas"][rows, index], base)  # [B, N, 4]
        valid = (best > 0) & boxes.isfinite().all(-1)
        boxes = boxes.nan_to_num()
        if limits is not None:  # before the suppression, as Detectron, mmdetection and torchvision do
            boxes = clip_boxes(boxes, limits[:, :1, None], limits[:, 1:, None])
            valid = valid & (box_area(boxes) > 0)  # what lies in the padding is no detection
        alive = class_nms_sorted(boxes, labels, valid, self.iou, enough=self.detections)
        chosen, found = first_marked(alive, min(self.detections, alive.shape[1]))
        kept, classes, final = boxes[rows, chosen], labels[rows, chosen], torch.where(found, best[rows, chosen], 0.0)
        if self.vote is not None:
            first = slice(None), None, slice(_VOTERS_OF_ALL)
            voters = torch.where((classes[..., None] == labels[first]) & valid[first], best[first], 0.0)  # [B, D, N]
            own = torch.where(chosen < _VOTERS_OF_ALL, 0.0, final)
            kept = near_vote(kept, own, coordinate_rows(boxes[first]), voters, self.vote)
        return Detections(kept, final, classes)

    def _candidates(
        self, predictions: Predictions, counts: tuple[int, ...], keep: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs that go on, best first: anchor, label and score, [B, N] each; score 0 where there are no more."""
        # The best N pairs lie on the N anchors whose best classes are best, also with ties. So two small selections do
        # instead of one among all pairs.
        top = self._top(predictions)  # [B, A]; NaN where one class is
        sound = top > self.threshold if keep is None else (top > self.threshold) & keep
        levels = torch.where(sound, top, 0.0).split_with_sizes(counts, 1)
        rows = torch.arange(len(top), device=top.device)[:, None]
        pairs, indices, first, classes = [], [], 0, 1
        for level, number in zip(levels, self._fullest(levels), strict=True):
            # In the order of the anchors again, so that places in [n, K] are in the order of the pairs.
            place = _best(level, number)[1].sort(1).values  # [B, n]
            index = place + first
            near = {name: values[rows, index] for name, values in predictions.items()}
            known = level.gather(1, place) > 0
            for values in near.values():
                known = known & values.isfinite().all(-1)
            scores = self.scores(near)  # [B, n, K]
            classes = scores.shape[-1]
            pairs.append(torch.where((scores > self.threshold) & known[..., None], scores, 0.0).flatten(1))
            indices.append(index)
            first += level.shape[1]
        found = [_best(pair, number) for pair, number in zip(pairs, self._fullest(pairs), strict=True)]
        index = torch.cat([own.gather(1, place // classes) for own, (_, place) in zip(indices, found, strict=True)], 1)
        label = torch.cat([place % classes for _, place in found], 1)
        best = torch.cat([value for value, _ in found], 1)
        best, order = _best(best, best.shape[1])
        return index.gather(1, order), label.gather(1, order), best

    def _top(self, predictions: Predictions) -> Tensor:
        """The score of each anchor's best class [B, A].

        The scores of all anchors are hundreds of megabytes, and only those of the candidates are needed again. Taken a
        block of anchors at a time they are never held, and stay in the processor's cache; a compiler does so by itself.
        """
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return self.scores(predictions).amax(-1)
        size = max(len(values) * values.shape[2] for values in predictions.values())
        deltas = predictions["box_deltas"]
        count, block = deltas.shape[1], _CPU_BLOCK if deltas.device.type == "cpu" else _BLOCK
        step = max(1, block // max(1, size))
        parts = ({name: values[:, i : i + step] for name, values in predictions.items()} for i in range(0, count, step))
        return torch.cat([self.scores(part).amax(-1) for part in parts], 1)

    def _fullest(self, parts: Sequence[Tensor]) -> list[int]:
        """How many entries of each part [B, n] are taken: `candidates`, or all if there are fewer.

        Where waiting for the device is allowed (not while a graph is traced), no more than there are above 0 in the
        fullest image: everything after it is as small as the images need, and the result is the same.
        """
        most = [min(self.candidates, part.shape[1]) for part in parts]
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or not len(parts[0]):
            return most
        fullest = torch.stack([(part > 0).sum(1).amax() for part in parts]).tolist()
        return [min(a, b) for a, b in zip(most, fullest, strict=True)]


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` highest of scores [..., N], none of them negative, and their places; equal scores keep their order.

    `topk` leaves the order of equal scores open. The bits of floats that are not negative are ordered as the floats
    are, so with the place below them, counted backwards, they make whole numbers that are all different.
    """
    last = scores.shape[-1] - 1
    backwards = torch.arange(last, -1, -1, device=scores.device)
    keys = (scores.float().view(torch.int32).long() << 32) | backwards
    place = last - (keys.topk(number).values & 0xFFFFFFFF)
    return scores.gather(-1, place), place


def vary(postprocess: Postprocess, name: str, value: float | None) -> Postprocess:
    """The same post-processing with one number of it changed.

    `name`: `iou_alpha` (None: the plain product), `threshold` (score), `nms` (IoU of greedy NMS, which takes the place
    of a soft one), `soft_nms` (IoU; None: greedy NMS), `vote` (spread of box voting; None: none), `candidates`,
    `detections`.

    Raises `UserError` for another name, a value outside of its range, `iou_alpha` where no IoU is predicted, `soft_nms`
    where the suppression is always greedy, and what a post-processing of your own does not have.
    """
    if name not in VARIED:
        raise UserError(f"{name!r} is no number of the post-processing: expected one of {', '.join(VARIED)}")
    if name == "iou_alpha":
        if not isinstance(postprocess.scores, IoUAwareScores):
            raise UserError(
                "iou_alpha needs a predicted IoU, and this detector has no IoU head: train one that has, such as "
                "iou_retinanet, or ssd with iou_head=True"
            )
        return _with(postprocess, scores=replace(postprocess.scores, alpha=value))
    field, kind = VARIED[name]
    if name == "soft_nms" and not isinstance(postprocess, PerClassPostprocess):
        raise UserError(
            "soft_nms is a choice of detectors that take candidates of each class, such as ssd and refinedet; this "
            "one's suppression is greedy: vary nms"
        )
    if not hasattr(postprocess, field):
        raise UserError(f"{type(postprocess).__name__} has no {field}, which {name} would change")
    if name in OPTIONAL and value is None:
        return _with(postprocess, **{field: None})
    if name == "vote" and value == 0:
        raise UserError("vote must be a number above 0 and at most 1, or none for no voting, got 0")
    if kind is int and (value is None or value % 1 != 0 or value < 1):
        raise UserError(f"{name} must be a whole number, 1 or more, got {value!r}")
    if kind is float and (value is None or not 0 <= value <= 1):
        raise UserError(f"{name} must be a number from 0 to 1, got {value!r}")
    if name == "nms" and isinstance(postprocess, PerClassPostprocess):
        postprocess = replace(postprocess, soft=None)
    return _with(postprocess, **{field: kind(value)})


def unsuppressed(postprocess: Postprocess) -> Postprocess:
    """The same post-processing without suppression and voting: all candidates above the threshold stay as they are."""
    postprocess = vary(postprocess, "vote", None) if hasattr(postprocess, "vote") else postprocess
    return _with(vary(postprocess, "nms", 1.0), iou=_NO_NMS)


VARIED: dict[str, tuple[str, type]] = {  # name: its field, and what it takes
    "iou_alpha": ("scores", float),
    "threshold": ("threshold", float),
    "nms": ("iou", float),
    "soft_nms": ("soft", float),
    "vote": ("vote", float),
    "candidates": ("candidates", int),
    "detections": ("detections", int),
}


OPTIONAL = ("soft_nms", "vote")  # None is one of their values


def _with(postprocess: Postprocess, **changes: Any) -> Postprocess:
    return cast(Postprocess, replace(cast(Any, postprocess), **changes))
