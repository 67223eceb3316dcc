"""The text of a COCO results file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from singleshot.evaluation.coco_results import ResultsText, coco_entries


def written(*entries: dict[str, object]) -> str:
    file = io.StringIO()
    text = ResultsText(file)
    for entry in entries:
        text.add([entry])
    text.end()
    return file.getvalue()


def test_entries_have_the_ids_of_the_data_and_all_digits() -> None:
    sides = np.array([[0.1, 2, 3.5, 1 / 3], [0, 0, 1, 1]])
    found = coco_entries("a", (7, "x"), labels=np.array([1, 0]), sides=sides, scores=np.array([0.1 + 0.2, 0.5]))
    assert list(found) == [
        {"image_id": "a", "category_id": "x", "bbox": [0.1, 2.0, 3.5, 1 / 3], "score": 0.1 + 0.2},
        {"image_id": "a", "category_id": 7, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5},
    ]


def test_text_is_one_entry_on_a_line_and_valid_json_at_any_length() -> None:
    assert written() == "[]\n"
    assert written({"a": 1}) == '[\n{"a": 1}\n]\n'
    assert written({"a": 1}, {"b": "Vögel"}) == '[\n{"a": 1},\n{"b": "Vögel"}\n]\n'
    with pytest.raises(ValueError, match="JSON"):
        written({"a": float("nan")})


def test_a_name_in_another_encoding_becomes_an_escape(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(written({"image_id": "caf\udce9"}), encoding="utf-8", errors="backslashreplace")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == [{"image_id": "caf\udce9"}]
