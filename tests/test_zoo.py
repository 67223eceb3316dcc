"""The trained detectors that come with the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

import singleshot as ss
from singleshot.errors import UserError

ZOO = Path(__file__).parents[1] / "zoo"
FILES = sorted(ZOO.glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_small_and_has_a_card(path: Path) -> None:
    assert path.stat().st_size <= 10_000_000
    card = path.with_suffix(".md").read_text()
    for word in ("licence", "command", "COCO AP"):
        assert word in card


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_damaged_one_is_refused(path: Path, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        ss.load(tmp_path / "damaged.safetensors")


@pytest.mark.parametrize(("name", "low"), [("bccd", 0.8), ("chess", 0.95)])
def test_each_finds_what_it_was_trained_for(name: str, low: float, shared: Path) -> None:
    from singleshot.evaluation.detect_dataset import detect_dataset

    data = ss.open_dataset(shared / name, split="val", format="voc")
    part = type(data)(**{**vars(data), "records": data.records[:20]})
    metrics = ss.evaluate(part, detect_dataset(ss.load(ZOO / f"{name}.safetensors"), part)).to_json()
    assert metrics["coco"]["AP50"] > low
