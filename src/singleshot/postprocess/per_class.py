"""Candidates per class: the inference of SSD and RefineDet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.ops.boxes import clip_boxes, coordinate_rows
from singleshot.ops.greedy import greedy
from singleshot.ops.nms import nms_sorted, soft_nms
from singleshot.ops.voting import near_vote
from singleshot.postprocess import lists
from singleshot.postprocess.lists import Listed
from singleshot.postprocess.postprocess import Scores, best_first
from singleshot.structures import Anchors, Detections, Predictions

_TRACED_CANDIDATES = 1000  # per class, if no number is set: a traced graph needs a fixed size
_MANY = 4096  # pairs of an image that are listed first, if there are many more
_VOTERS = 200  # the best candidates of a class that take part in box voting; more give the same AP


@dataclass(frozen=True)
class PerClassPostprocess:
    """Inference of SSD (paper section 3.7, authors' DetectionOutput layer) and of RefineDet (section 4, Inference).

    For each class: scores above `threshold`, the best `candidates`, greedy NMS with `iou`. Then the best `detections`
    of the image over all classes. All images and classes are processed at once, with fixed shapes. Equal scores keep
    their order (anchor within a class, then class), so the result depends neither on the batch nor on tracing.

    `candidates_of_image`: only this many of the image's best candidates, of all classes together, go to NMS.
    RefineDet's paper keeps 400 before NMS and 200 after it (section 4); its authors' scripts count per class. None:
    all.

    `soft`: linear soft-NMS with this IoU replaces greedy NMS. Boxes with a score lowered below `threshold` are dropped.
    RefineDet's authors use it for their COCO figures: 0.30, with threshold 0.016 and no limit of candidates (their test
    script; the paper does not mention it).

    `candidates` None: all. A traced graph needs a fixed size: it then takes the best `candidates_of_image` of each
    class, or 1,000 if that is None too.

    `vote`: the spread of box voting. The box of each detection becomes a weighted mean of itself and the near boxes
    among the best 200 candidates of its class (`singleshot.ops.voting.near_vote`). The selection of detections and
    their scores stay the same.

    `clip_first`: boxes are clipped to the image before NMS, as in torchvision and mmdetection, not after it.
    """

    coder: DeltaCoder
    scores: Scores
    threshold: float = 0.01  # paper section 3.7
    candidates: int | None = 400  # authors' script, per class
    iou: float = 0.45  # paper section 3.7
    detections: int = 200  # paper section 3.7
    soft: float | None = None  # IoU of soft-NMS
    vote: float | None = None  # spread of box voting
    candidates_of_image: int | None = None  # of all classes together; 400 in RefineDet's paper
    clip_first: bool = False  # the authors of both clip the detections

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections [B, detections] in pixels of the network's input.

        `keep` [B, A] bool: the other anchors give no detections.
        """
        if self.soft is None and lists.serves(predictions, self.iou):
            return self._listed(predictions, anchors, keep, limits)
        boxes = self.coder.decode(predictions["box_deltas"], anchors.boxes)  # [B, A, 4]
        sound = boxes.isfinite().all(-1)
        if self.clip_first and limits is not None:
            boxes = clip_boxes(boxes, limits[:, :1, None], limits[:, 1:, None])
        if keep is not None:
            sound = sound & keep
        scores = self.scores(predictions)  # [B, A, K]
        # A NaN score fails the comparison and becomes 0.
        scores = torch.where((scores > self.threshold) & sound[..., None], scores, 0.0).transpose(1, 2)  # [B, K, A]
        best, index = best_first(scores, self._candidates(scores))  # [B, K, N]
        if self.candidates_of_image is not None:
            best = _best_of_image(best, self.candidates_of_image)
        number = best.shape[-1]
        chosen = boxes.nan_to_num().gather(1, index.flatten(1)[..., None].expand(-1, -1, 4))  # [B, K * N, 4]
        rows, best = chosen.reshape(-1, number, 4), best.reshape(-1, number)  # one row per image and class
        before = best
        if self.soft is None:
            best = torch.where(nms_sorted(rows, best > 0, self.iou), best, 0.0)
        else:
            best = soft_nms(rows, best, self.soft, self.threshold)
        best = best.reshape(chosen.shape[:2])  # [B, K * N]
        final, order = best_first(best, min(self.detections, best.shape[1]))
        found, labels = chosen.gather(1, order[..., None].expand(-1, -1, 4)), order // number
        if self.vote is not None:
            image = torch.arange(order.shape[0], device=order.device)[:, None]
            place = image * scores.shape[1] + labels  # the row of each detection's class
            own = torch.where(order % number < _VOTERS, 0.0, before.reshape(best.shape).gather(1, order))
            found = near_vote(
                found, own, coordinate_rows(rows[:, :_VOTERS])[:, place], before[place, :_VOTERS], self.vote
            )
        return Detections(found, final, labels)

    def _listed(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None, limits: Tensor | None
    ) -> Detections:
        """The same on the CPU, without padding: see `lists`."""
        predictions = {name: values.detach() for name, values in predictions.items()}
        scores = self.scores(predictions)
        found = []
        for image in range(len(scores)):
            deltas, base = predictions["box_deltas"][image], lists.anchors_of(anchors, image)
            sound = None if keep is None else keep[image].numpy()
            limit = limits[image] if self.clip_first and limits is not None else None
            # Nearly always the best are enough. Those that vote may be any.
            for most in (_MANY, None) if self.vote is None else (None,):
                listed, complete = lists.above(scores[image], self.threshold, sound, most)
                if (one := self._found(listed, complete, deltas, base, limit)) is not None:
                    found.append(one)
                    break
        return lists.padded(found)

    def _found(
        self, listed: Listed, complete: bool, deltas: Tensor, base: Tensor, limit: Tensor | None
    ) -> tuple[Tensor, Listed] | None:
        """What is found in an image: boxes [D, 4], and the pairs. None if it takes more than the best pairs."""
        # The anchors that have a candidate, decoded once each. Anchors of `listed` are from now on places in these.
        first = np.diff(listed.anchors, prepend=-1) > 0
        index = torch.from_numpy(listed.anchors[first])
        boxes = self.coder.decode(deltas.index_select(0, index), base.index_select(0, index))
        listed = replace(listed, anchors=first.cumsum() - 1)
        sound = boxes.isfinite().all(1).numpy()
        if not sound.all():
            listed = listed[sound[listed.anchors]]
        if limit is not None:
            boxes = clip_boxes(boxes, limit[0], limit[1])
        # Classes in order, and anchors within a class: so they are ranked where scores are equal.
        listed = listed[lists.by_label(listed.labels)]
        if self.candidates is not None:
            listed = lists.best_of_class(listed, self.candidates)
        corners = boxes.numpy()
        for order, last in lists.best_first(listed.scores, 2 * self.detections):
            ranked, ended = listed[order], last and complete
            if self.candidates_of_image is not None:
                ended = ended or len(ranked) >= self.candidates_of_image
                ranked = ranked[: self.candidates_of_image]
            alive = greedy(corners[ranked.anchors], ranked.labels, self.iou, self.detections)
            kept = np.flatnonzero(alive)[: self.detections]
            if len(kept) == self.detections or ended:
                break
        else:
            return None
        found = ranked[kept]
        chosen = boxes[torch.from_numpy(found.anchors)]
        if self.vote is None:
            return chosen, found
        rank = lists.ranks(ranked.labels)
        own = np.where(rank[kept] < _VOTERS, np.float32(0), found.scores)
        voters = ranked[rank < _VOTERS] if ended else self._voters(listed, found)
        return lists.voted(chosen, found, voters, boxes[torch.from_numpy(voters.anchors)], own, self.vote), found

    def _voters(self, listed: Listed, found: Listed) -> Listed:
        """The best candidates of each class that was found, among all."""
        there = np.zeros(int(listed.labels.max()) + 1, bool)
        there[found.labels] = True
        own = lists.best_of_class(listed[there[listed.labels]], _VOTERS)
        return own[(-own.scores).argsort(kind="stable")]

    def _candidates(self, scores: Tensor) -> int:
        # Most classes have few scores above the threshold. If a wait for the device is allowed (not while a graph is
        # traced), NMS is only as large as the fullest class needs. The result is the same.
        anchors = scores.shape[-1]
        limits = [limit for limit in (self.candidates, self.candidates_of_image) if limit is not None]
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return min(*(limits or [_TRACED_CANDIDATES]), anchors)
        most = min(*limits, anchors) if limits else anchors
        return max(1, min(most, int((scores > 0).sum(-1).max()))) if scores.numel() else most


def _best_of_image(scores: Tensor, number: int) -> Tensor:
    """Scores [B, K, N], with 0 for all but the best `number` of each image. Among equals the lower class is kept."""
    every = scores.flatten(1)
    kept = best_first(every, min(number, every.shape[1]))[1]
    return torch.zeros_like(every).scatter(1, kept, every.gather(1, kept)).reshape(scores.shape)
