"""Candidates per level of the pyramid: the inference of RetinaNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from singleshot.coders import DeltaCoder
from singleshot.ops.boxes import box_area, clip_boxes, coordinate_rows
from singleshot.ops.greedy import greedy
from singleshot.ops.nms import class_nms_sorted, first_marked
from singleshot.ops.voting import near_vote
from singleshot.postprocess import lists
from singleshot.postprocess.lists import Listed, Marks, Places
from singleshot.postprocess.postprocess import Scores, best_first
from singleshot.postprocess.scores import ClassScores
from singleshot.structures import Anchors, Detections, Predictions

_CPU_BLOCK = 1 << 18  # scores held at once on the CPU, so that they fit into the cache
_BLOCK = 1 << 26  # scores held at once on other devices, where each call is expensive: 256 MiB
_VOTERS_OF_ALL = 1000  # the best candidates of all classes that take part in box voting


@dataclass(frozen=True)
class PerLevelPostprocess:
    """RetinaNet's inference (focal loss paper section 4.1, Inference; Detectron's test_retinanet).

    On each level of the pyramid it takes the best `candidates` among the (anchor, class) pairs with a score above
    `threshold`. Only these are decoded. Greedy NMS with `iou` follows, for each class over all levels together. Then
    the best `detections` of the image are kept. All images are processed at once, with fixed shapes while a graph is
    traced.

    Equal scores keep their order (level, anchor, class), so the result depends neither on the batch nor on tracing. An
    anchor with a prediction that is not finite gives no detection.

    `vote`: as in `PerClassPostprocess`; the voters are those of the image's best 1,000 candidates that have the class.
    """

    coder: DeltaCoder
    scores: Scores
    threshold: float = 0.05  # paper section 4.1
    candidates: int = 1000  # paper section 4.1, per level
    iou: float = 0.5  # paper section 4.1
    detections: int = 100  # Detectron's configuration; COCO counts 100
    vote: float | None = None  # spread of box voting

    def __call__(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None = None, limits: Tensor | None = None
    ) -> Detections:
        """Predictions of a batch -> Detections [B, at most `detections`] in pixels of the network's input.

        `keep` [B, A] bool: the other anchors give no detections.
        """
        if lists.serves(predictions, self.iou):
            return self._listed(predictions, anchors, keep, limits)
        rows = torch.arange(predictions["box_deltas"].shape[0], device=predictions["box_deltas"].device)[:, None]
        index, labels, best = self._candidates(predictions, anchors.counts, keep)  # [B, N] each
        base = anchors.boxes[index] if anchors.boxes.ndim == 2 else anchors.boxes[rows, index]
        boxes = self.coder.decode(predictions["box_deltas"][rows, index], base)  # [B, N, 4]
        valid = (best > 0) & boxes.isfinite().all(-1)
        boxes = boxes.nan_to_num()
        if limits is not None:  # before NMS, as in Detectron, mmdetection and torchvision
            boxes = clip_boxes(boxes, limits[:, :1, None], limits[:, 1:, None])
            valid = valid & (box_area(boxes) > 0)  # a box in the padding is not a detection
        alive = class_nms_sorted(boxes, labels, valid, self.iou, enough=self.detections)
        chosen, found = first_marked(alive, min(self.detections, alive.shape[1]))
        kept, classes, final = boxes[rows, chosen], labels[rows, chosen], torch.where(found, best[rows, chosen], 0.0)
        if self.vote is not None:
            first = slice(None), None, slice(_VOTERS_OF_ALL)
            voters = torch.where((classes[..., None] == labels[first]) & valid[first], best[first], 0.0)  # [B, D, N]
            own = torch.where(chosen < _VOTERS_OF_ALL, 0.0, final)
            kept = near_vote(kept, own, coordinate_rows(boxes[first]), voters, self.vote)
        return Detections(kept, final, classes)

    def _listed(
        self, predictions: Predictions, anchors: Anchors, keep: Tensor | None, limits: Tensor | None
    ) -> Detections:
        """The same on the CPU, without padding: see `lists`."""
        found = []
        for image in range(predictions["box_deltas"].shape[0]):
            own = {name: values[image : image + 1].detach() for name, values in predictions.items()}
            listed = self._pairs(own, anchors.counts, None if keep is None else keep[image].numpy())
            limit = None if limits is None else limits[image]
            found.append(self._found(listed, own["box_deltas"], lists.anchors_of(anchors, image), limit))
        return lists.padded(found)

    def _pairs(self, predictions: Predictions, counts: tuple[int, ...], keep: Marks | None) -> Listed:
        """The candidates of an image, in the order of anchors, then classes."""
        places = self._possible(predictions)
        if keep is not None:
            places = places[keep[places]]
        step = max(1, _CPU_BLOCK // max(1, *(values.shape[2] for values in predictions.values())))
        found = []
        for first, last in pairwise(places.searchsorted([0, *np.cumsum(counts)])):
            level = lists.nothing()
            for start in range(first, last, step):
                index = places[start : min(start + step, last)]
                near = {name: values.index_select(1, torch.from_numpy(index)) for name, values in predictions.items()}
                sound = torch.stack([values[0].isfinite().all(-1) for values in near.values()]).all(0).numpy()
                part, _ = lists.above(self.scores(near)[0], self.threshold, sound)
                level = lists.joined([level, replace(part, anchors=index[part.anchors])])
                level = level[lists.best(level.scores, self.candidates)]
            found.append(level)
        return lists.joined(found)

    def _possible(self, predictions: Predictions) -> Places:
        """The anchors of an image that may have a score above the threshold."""
        count = predictions["box_deltas"].shape[1]
        least = self.scores.least_logit(self.threshold) if isinstance(self.scores, ClassScores) else None
        if least is None or not isinstance(self.scores, ClassScores):
            return np.arange(count)
        logits = predictions[self.scores.key][0].numpy()
        step = max(1, _CPU_BLOCK // max(1, logits.shape[1]))
        over = np.empty((min(step, count), logits.shape[1]), bool)
        found = [np.zeros(0, np.int64)]
        for start in range(0, count, step):  # block by block, so that the marks stay in the processor's cache
            block = logits[start : start + step]
            marks = np.greater(block, np.float32(least), out=over[: len(block)])  # much faster than PyTorch's
            found.append(np.flatnonzero(marks) // logits.shape[1] + start)
        places = np.concatenate(found)
        return places[np.diff(places, prepend=-1) > 0]

    def _found(self, listed: Listed, deltas: Tensor, anchors: Tensor, limit: Tensor | None) -> tuple[Tensor, Listed]:
        """What is found in an image: boxes [D, 4], and the pairs."""
        first = 2 * self.detections if self.vote is None else _VOTERS_OF_ALL
        for order, complete in lists.best_first(listed.scores, first):
            ranked = listed[order]
            index = torch.from_numpy(ranked.anchors)
            boxes = self.coder.decode(deltas[0].index_select(0, index), anchors.index_select(0, index))
            sound = boxes.isfinite().all(-1)
            if limit is not None:
                boxes = clip_boxes(boxes, limit[0], limit[1])
                sound &= box_area(boxes) > 0
            places = np.flatnonzero(sound.numpy())
            alive = greedy(boxes.numpy()[places], ranked.labels[places], self.iou, self.detections)
            kept = places[np.flatnonzero(alive)[: self.detections]]
            if len(kept) == self.detections or complete:
                break
        found, chosen = ranked[kept], boxes[torch.from_numpy(kept)]
        if self.vote is None:
            return chosen, found
        heard = places[places < _VOTERS_OF_ALL]
        own = np.where(kept < _VOTERS_OF_ALL, np.float32(0), found.scores)
        return lists.voted(chosen, found, ranked[heard], boxes[torch.from_numpy(heard)], own, self.vote), found

    def _candidates(
        self, predictions: Predictions, counts: tuple[int, ...], keep: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates, best first: anchor, label and score, [B, N] each; score 0 fills the rest."""
        # The best N pairs lie on the N anchors with the highest best-class scores, also with ties. So two small
        # selections replace one among all pairs.
        top = self._top(predictions)  # [B, A]; NaN if one class is NaN
        sound = top > self.threshold if keep is None else (top > self.threshold) & keep
        levels = torch.where(sound, top, 0.0).split_with_sizes(counts, 1)
        rows = torch.arange(top.shape[0], device=top.device)[:, None]
        pairs, indices, first, classes = [], [], 0, 1
        for level, number in zip(levels, self._fullest(levels), strict=True):
            # Sorted back to the order of the anchors, so that places in [n, K] follow the order of the pairs.
            place = best_first(level, number)[1].sort(1).values  # [B, n]
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
        found = [best_first(pair, number) for pair, number in zip(pairs, self._fullest(pairs), strict=True)]
        index = torch.cat([own.gather(1, place // classes) for own, (_, place) in zip(indices, found, strict=True)], 1)
        label = torch.cat([place % classes for _, place in found], 1)
        best = torch.cat([value for value, _ in found], 1)
        best, order = best_first(best, best.shape[1])
        return index.gather(1, order), label.gather(1, order), best

    def _top(self, predictions: Predictions) -> Tensor:
        """The score of each anchor's best class [B, A].

        The scores of all anchors take hundreds of megabytes, and only those of the candidates are needed later.
        Computed one block of anchors at a time, they are never all held and stay in the processor's cache. A compiler
        does this by itself.
        """
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return self.scores(predictions).amax(-1)
        size = max(len(values) * values.shape[2] for values in predictions.values())
        deltas = predictions["box_deltas"]
        count, step = deltas.shape[1], max(1, _BLOCK // max(1, size))
        parts = ({name: values[:, i : i + step] for name, values in predictions.items()} for i in range(0, count, step))
        return torch.cat([self.scores(part).amax(-1) for part in parts], 1)

    def _fullest(self, parts: Sequence[Tensor]) -> list[int]:
        """How many entries of each part [B, n] are taken: `candidates`, or all if there are fewer.

        If a wait for the device is allowed (not while a graph is traced), it is at most the number of entries above 0
        in the fullest image. Later tensors are then only as large as needed. The result is the same.
        """
        most = [min(self.candidates, part.shape[1]) for part in parts]
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or not parts[0].shape[0]:
            return most
        fullest = torch.stack([(part > 0).sum(1).amax() for part in parts]).tolist()
        return [min(a, b) for a, b in zip(most, fullest, strict=True)]
