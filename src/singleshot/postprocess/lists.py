"""Candidates as lists, on the CPU: only those above the threshold are ranked and decoded, an image at a time.

A padded tensor, as graphs and other devices need it, costs as much for a class without a candidate as for a full one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from singleshot.ops.greedy import takes
from singleshot.ops.voting import near_vote
from singleshot.structures import Anchors, Detections, Predictions

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]

_FIRST = 512  # candidates that are looked at first, if there are so many; then four times as many each time


@dataclass(frozen=True)
class Listed:
    """Pairs of an anchor and a class, with their score: [N] each."""

    scores: Floats
    anchors: Places
    labels: Places

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> Listed:
        return Listed(self.scores[chosen], self.anchors[chosen], self.labels[chosen])


def joined(parts: Sequence[Listed]) -> Listed:
    """All pairs of several lists."""
    return Listed(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.anchors for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def nothing() -> Listed:
    """No pair."""
    return Listed(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))


def serves(predictions: Predictions, iou_threshold: float) -> bool:
    """Whether candidates may be lists: not in traced graphs, and only 32-bit numbers on the CPU."""
    return all(takes(values, iou_threshold) and values.dtype == torch.float32 for values in predictions.values())


def above(scores: Tensor, threshold: float, sound: Marks | None = None, most: int | None = None) -> tuple[Listed, bool]:
    """The pairs with a score above the threshold, in the order of anchors, then classes: scores [A, K]; `sound` [A].

    A score that is not a number is not above it. `most`: if there are far more, only the best, about so many, and all
    that are equal to the last of them. Also whether these are all.
    """
    values: Floats = scores.numpy()
    over = values > np.float32(threshold)
    if sound is not None:
        over &= sound[:, None]
    complete = most is None or int(np.count_nonzero(over)) <= 2 * most
    if most is not None and not complete:
        passing = values[over]
        over &= values >= np.partition(passing, len(passing) - most)[len(passing) - most]
    anchors, labels = np.divmod(np.flatnonzero(over), values.shape[1])
    return Listed(values[anchors, labels], anchors, labels), complete


def best_first(scores: Floats, first: int) -> Iterator[tuple[Places, bool]]:
    """More and more of the best places, best first, and whether these are all. Equal scores keep their order.

    Nearly always the first ones are enough, and only they are sorted.
    """
    number = max(_FIRST, first)
    while number < len(scores) // 3:
        lowest = np.partition(scores, len(scores) - number)[len(scores) - number]
        places = np.flatnonzero(scores >= lowest)
        yield places[(-scores[places]).argsort(kind="stable")], False
        number *= 4
    yield (-scores).argsort(kind="stable"), True


def best(scores: Floats, number: int) -> Places:
    """The places of the `number` best, in order of place. Of equal scores the first are taken."""
    if len(scores) <= number:
        return np.arange(len(scores))
    lowest = np.partition(scores, len(scores) - number)[len(scores) - number]
    taken = scores > lowest
    taken[np.flatnonzero(scores == lowest)[: number - int(taken.sum())]] = True
    return np.flatnonzero(taken)


def by_label(labels: Places) -> Places:
    """The places in the order of labels; those of a label keep their order."""
    # Of 16 bits, NumPy's stable sort takes time in proportion to their number.
    short = labels.astype(np.uint16) if labels.max(initial=0) < 1 << 16 else labels
    return short.argsort(kind="stable")


def best_of_class(listed: Listed, number: int) -> Listed:
    """The best pairs of each class, in the same order; pairs of a class must stand together."""
    if len(listed) <= number:
        return listed
    starts = np.flatnonzero(np.diff(listed.labels, prepend=-1))
    ends = np.append(starts[1:], len(listed))
    if (ends - starts).max() <= number:
        return listed
    parts = [best(listed.scores[i:j], number) + i for i, j in zip(starts.tolist(), ends.tolist(), strict=True)]
    return listed[np.concatenate(parts)]


def ranks(labels: Places) -> Places:
    """Of each place how many places before it have the same label."""
    order = by_label(labels)
    own = labels[order]
    starts = np.flatnonzero(np.append(True, own[1:] != own[:-1])) if len(own) else order
    rank = np.empty_like(order)
    rank[order] = np.arange(len(own)) - starts.repeat(np.diff(np.append(starts, len(own))))
    return rank


def anchors_of(anchors: Anchors, image: int) -> Tensor:
    """The anchors of one image: [A, 4]."""
    return anchors.boxes if anchors.boxes.ndim == 2 else anchors.boxes[image]


def voted(boxes: Tensor, found: Listed, voters: Listed, voter_boxes: Tensor, own: Floats, spread: float) -> Tensor:
    """`near_vote` of the boxes found [D, 4], each with the voters of its class. `own` [D]: as there."""
    if not len(found):
        return boxes
    rank = ranks(voters.labels)
    classes, row = np.unique(found.labels, return_inverse=True)
    place = classes.searchsorted(voters.labels).clip(max=len(classes) - 1)
    heard = classes[place] == voters.labels
    width = int(rank[heard].max(initial=-1)) + 1
    scores = np.zeros((len(classes), width), np.float32)
    scores[place[heard], rank[heard]] = voters.scores[heard]
    sides = torch.zeros(4, len(classes), width, dtype=boxes.dtype)
    sides[:, place[heard], rank[heard]] = voter_boxes[torch.from_numpy(heard)].T
    return near_vote(boxes, torch.from_numpy(own), sides[:, row], torch.from_numpy(scores[row]), spread)


def padded(found: Sequence[tuple[Tensor, Listed]]) -> Detections:
    """Boxes, scores and labels of each image, filled up with score 0 to one size."""
    most = max((len(listed) for _, listed in found), default=0)
    boxes, scores = torch.zeros(len(found), most, 4), torch.zeros(len(found), most)
    labels = torch.zeros(len(found), most, dtype=torch.int64)
    for image, (own, listed) in enumerate(found):
        here = image, slice(len(listed))
        boxes[here], scores[here] = own, torch.from_numpy(listed.scores)
        labels[here] = torch.from_numpy(listed.labels)
    return Detections(boxes, scores, labels)
