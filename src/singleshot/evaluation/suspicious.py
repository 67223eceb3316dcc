"""Detections from files that cannot be right (an error) or hardly are (a warning): another program wrote them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from singleshot.conversions import FARTHEST
from singleshot.data.dataset import Floats
from singleshot.errors import UserError

_log = logging.getLogger(__name__)


def check_detections(
    where: str, place: Callable[[int], str], *, boxes: Floats, sides: Floats, scores: Floats, of: NDArray[np.int64]
) -> None:
    """Refuse boxes and scores that are impossible, and warn of those that are only unusual.

    Scores beyond 0 and 1 (logits, percent) are unusual: metrics use their order alone. So are detections that occur
    twice, since the second one counts as wrong.

    Args:
        where: the file or folder, for warnings.
        place: the file and the record or line of a row, for messages.
        boxes: [N, 4] xyxy.
        sides: [N, 2] width and height, as in the file or computed from its corners.
        scores: [N].
        of: [N, 2] image and label of each row.

    Raises:
        UserError: a box whose sides are negative, or a number beyond `FARTHEST`.
    """
    inverted = (sides < 0).any(1)
    if inverted.any():
        row = int(inverted.argmax())
        raise UserError(
            f"{place(row)}: the box is inverted: its width is {sides[row, 0]:g}, its height {sides[row, 1]:g}, and "
            f"neither may be negative ({int(inverted.sum())} such boxes); COCO results have x, y, width, height, VOC "
            f"files x1, y1, x2, y2"
        )
    large = (np.abs(boxes) > FARTHEST).any(1) | (np.abs(scores) > FARTHEST)
    if large.any():
        row = int(large.argmax())
        raise UserError(
            f"{place(row)}: a number is beyond {FARTHEST:g}: box {boxes[row].tolist()}, score {scores[row]:g}; boxes "
            f"must be in pixels, and scores between 0 and 1"
        )
    unusual = (scores < 0) | (scores > 1)
    if unusual.any():
        row = int(unusual.argmax())
        _log.warning(
            "%s: %d of %d scores are not between 0 and 1 (the first: %s: %g). COCO's and VOC's metrics use only their "
            "order, so logits or percent give the same numbers",
            where, int(unusual.sum()), len(scores), place(row), scores[row],
        )  # fmt: skip
    again = _repeated(np.column_stack([of, scores, boxes]))
    if len(again):
        _log.warning(
            "%s: %d of %d detections are there twice (the first: %s); each repetition counts as wrong. Were results "
            "joined that overlap?",
            where, len(again), len(scores), place(int(again[0])),
        )  # fmt: skip


def _repeated(table: Floats) -> NDArray[np.int64]:
    """The rows [N, C] that are equal to a row before them."""
    columns = np.ascontiguousarray(table + 0.0).view(np.uint64)  # + 0: no -0
    keys = np.zeros(len(table), np.uint64)
    for k in range(columns.shape[1]):  # a number for each row: sorting these takes a tenth of sorting rows
        keys = (keys ^ columns[:, k]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    after, before = order[1:][same], order[:-1][same]
    return np.sort(after[(table[after] == table[before]).all(1)])
