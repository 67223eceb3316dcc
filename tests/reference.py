"""Slow and obvious forms of the mathematics, written from the papers' equations with Python loops and Python numbers.

Nothing here is shared with the package: a mistake would have to be made twice. Boxes are lists [x1, y1, x2, y2].
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

Box = Sequence[float]


def iou(a: Box, b: Box) -> float:
    """Jaccard overlap of two boxes; 0 where there is no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def iou32(a: Box, b: Box) -> float:
    """The same, rounded to float32 at the end, as a threshold sees it."""
    return as_float32(iou(a, b))


def as_float32(number: float) -> float:
    """The nearest number of 32 bits."""
    (rounded,) = struct.unpack("f", struct.pack("f", number))
    return float(rounded)


def greedy_nms(boxes: Sequence[Box], scores: Sequence[float], threshold: float) -> list[int]:
    """Take the best box, drop all that overlap it by more than the threshold, and so on: indices, best first."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if iou32(boxes[best], boxes[i]) <= as_float32(threshold)]
    return kept


def greedy_pairs(overlaps: Sequence[Sequence[float]]) -> dict[int, int]:
    """overlaps[object][anchor] -> {anchor: object}: the best pair of all, then the best of what is left, and so on.

    Ties go to the lower anchor, then to the lower object; an overlap of at most 1e-6 is none.
    """
    candidates = [(-value, a, o) for o, row in enumerate(overlaps) for a, value in enumerate(row) if value > 1e-6]
    pairs: dict[int, int] = {}
    for _, anchor, o in sorted(candidates):
        if anchor not in pairs and o not in pairs.values():
            pairs[anchor] = o
    return pairs


def match_overlaps(
    overlaps: Sequence[Sequence[float]], anchors: int, positive: float = 0.5
) -> tuple[list[int], list[bool]]:
    """SSD section 2.2 -> for each anchor its object or -1, and whether it may be a negative (best IoU below 0.5)."""
    pairs = greedy_pairs(overlaps)
    match, eligible = [], []
    for a in range(anchors):
        best, owner = 0.0, -1
        for o in range(len(overlaps)):
            if overlaps[o][a] > best:
                best, owner = overlaps[o][a], o
        match.append(pairs.get(a, owner if best >= positive else -1))
        eligible.append(match[a] < 0 and best < positive)
    return match, eligible


def ssd_match(
    boxes: Sequence[Box], anchors: Sequence[Box], *, usable: Sequence[bool] | None = None
) -> tuple[list[int], list[bool]]:
    """The same from boxes; an anchor that is not `usable` is neither matched nor a negative."""
    usable = [True] * len(anchors) if usable is None else usable
    overlaps = [
        [iou32(box, anchor) if ok else 0.0 for anchor, ok in zip(anchors, usable, strict=True)] for box in boxes
    ]
    match, eligible = match_overlaps(overlaps, len(anchors))
    return match, [ok and eligible[a] for a, ok in enumerate(usable)]


def default_boxes(
    sizes: Sequence[float],
    maps: Sequence[tuple[int, int]],
    image: tuple[int, int],
    ratios: Sequence[Sequence[float]],
    steps: Sequence[float] | None = None,
) -> list[list[float]]:
    """SSD section 2.2: all default boxes, xyxy in pixels; `sizes` has one more than there are maps."""
    boxes = []
    for k, (rows, columns) in enumerate(maps):
        for i in range(rows):
            for j in range(columns):
                cy = (i + 0.5) * (steps[k] if steps else image[0] / rows)
                cx = (j + 0.5) * (steps[k] if steps else image[1] / columns)
                shapes = [(sizes[k], sizes[k])]
                shapes += [(math.sqrt(sizes[k] * sizes[k + 1]),) * 2]  # s'_k
                for ratio in ratios[k]:
                    for a in (ratio, 1 / ratio):
                        shapes.append((sizes[k] * math.sqrt(a), sizes[k] / math.sqrt(a)))
                boxes += [[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] for w, h in shapes]
    return boxes


def equation_4(levels: int, smallest: float, largest: float) -> list[float]:
    """s_k for k = 1..m."""
    if levels == 1:
        return [smallest]
    return [smallest + (largest - smallest) / (levels - 1) * (k - 1) for k in range(1, levels + 1)]


def encode(box: Box, anchor: Box, variances: tuple[float, float] = (0.1, 0.2)) -> list[float]:
    """g-hat of SSD equation 2, divided by the variances."""
    dw, dh = anchor[2] - anchor[0], anchor[3] - anchor[1]
    gw, gh = box[2] - box[0], box[3] - box[1]
    return [
        ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / dw / variances[0],
        ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / dh / variances[0],
        math.log(gw / dw) / variances[1],
        math.log(gh / dh) / variances[1],
    ]


def smooth_l1(x: float, beta: float = 1.0) -> float:
    """0.5 x^2 / beta below beta, |x| - beta / 2 above."""
    return 0.5 * x * x / beta if abs(x) < beta else abs(x) - 0.5 * beta


def cross_entropy(logits: Sequence[float], label: int) -> float:
    """-log softmax (SSD equation 3)."""
    highest = max(logits)
    return highest + math.log(sum(math.exp(logit - highest) for logit in logits)) - logits[label]


def quality_focal(p: float, y: float, beta: float = 2.0) -> float:
    """QFL of a probability with the target y (GFL paper, section 3)."""
    return -(abs(y - p) ** beta) * ((1 - y) * math.log(1 - p) + y * math.log(p))


def varifocal(p: float, q: float, alpha: float = 0.75, gamma: float = 2.0) -> float:
    """VFL of a probability with the target q (VFNet paper, equation 2)."""
    if q > 0:
        return -q * (q * math.log(p) + (1 - q) * math.log(1 - p))
    return -alpha * p**gamma * math.log(1 - p)


def centreness(anchor: Box, box: Box) -> float:
    """Equation 3 of FCOS, at the anchor's centre; 0 where that lies outside of the box."""
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
    if min(left, top, right, bottom) <= 0:
        return 0.0
    return math.sqrt(min(left, right) / max(left, right) * (min(top, bottom) / max(top, bottom)))


def hard_negatives(losses: Sequence[float], eligible: Sequence[bool], number: int) -> set[int]:
    """The anchors with the highest loss as background, at most `number` of them."""
    candidates = sorted((a for a in range(len(losses)) if eligible[a]), key=lambda a: -losses[a])
    return set(candidates[:number])


def multibox_loss(
    logits: Sequence[Sequence[Sequence[float]]],  # [B][A][K + 1], background last
    deltas: Sequence[Sequence[Box]],  # [B][A]
    anchors: Sequence[Box],
    boxes: Sequence[Sequence[Box]],  # [B][G]
    labels: Sequence[Sequence[int]],
) -> tuple[float, float]:
    """SSD equation 1 over a batch -> (classification, box), each divided by the batch's positives."""
    every = [[True] * len(anchors)] * len(logits)
    return filtered_multibox_loss(logits, deltas, [anchors] * len(logits), boxes, labels, every)


def filtered_multibox_loss(
    logits: Sequence[Sequence[Sequence[float]]],
    deltas: Sequence[Sequence[Box]],
    anchors_of: Sequence[Sequence[Box]],  # [B][A]: each image has its own
    boxes: Sequence[Sequence[Box]],
    labels: Sequence[Sequence[int]],
    keep: Sequence[Sequence[bool]],  # [B][A]: only these may be hard negatives
) -> tuple[float, float]:
    """The same with anchors of each image's own, some of which are filtered (RefineDet's detection module)."""
    classification = box = 0.0
    positives = 0
    for image in range(len(logits)):
        anchors = anchors_of[image]
        background = len(logits[image][0]) - 1
        match, unfiltered = ssd_match(boxes[image], anchors)
        eligible = [unfiltered[a] and keep[image][a] for a in range(len(anchors))]
        found = [a for a in range(len(anchors)) if match[a] >= 0]
        losses = [cross_entropy(logits[image][a], background) for a in range(len(anchors))]
        for a in found:
            classification += cross_entropy(logits[image][a], labels[image][match[a]])
            target = encode(boxes[image][match[a]], anchors[a])
            box += sum(smooth_l1(deltas[image][a][m] - target[m]) for m in range(4))
        classification += sum(losses[a] for a in hard_negatives(losses, eligible, 3 * len(found)))
        positives += len(found)
    return (classification / positives, box / positives) if positives else (0.0, 0.0)
