"""A COCO results file: its name, its entries, and its text, written entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from numpy.typing import NDArray

RESULTS_NAME = "detections.json"


def coco_entries(
    image_id: int | str,
    category_ids: Sequence[int | str],
    *,
    labels: NDArray[Any],
    sides: NDArray[Any],
    scores: NDArray[Any],
) -> Iterator[dict[str, Any]]:
    """The entries of one image: labels [N], each an index into `category_ids`; `sides` [N, 4] x, y, w, h; scores [N].

    Numbers keep all their digits.
    """
    for label, box, score in zip(labels.tolist(), sides.tolist(), scores.tolist(), strict=True):
        yield {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}


class ResultsText:
    """Writes the JSON list of a results file, one entry per line.

    `end` makes the text valid JSON, after any number of entries. The file must be opened as UTF-8 with
    `errors="backslashreplace"`. Then text that UTF-8 cannot represent, such as a file name in another encoding, is
    written with JSON's escapes.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._empty = True
        file.write("[")

    def add(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write entries. Raises ValueError for a number that is not finite, because JSON has none."""
        for entry in entries:
            text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
            self._file.write(f"\n{text}" if self._empty else f",\n{text}")
            self._empty = False

    def end(self) -> None:
        """Close the list."""
        self._file.write("]\n" if self._empty else "\n]\n")
