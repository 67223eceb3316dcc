"""The demo, with few images and steps; its promise about quality is a slow test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import singleshot as ss
from singleshot import demo
from singleshot.data.shapes import write_shapes
from singleshot.demo import run_demo
from singleshot.errors import UserError
from singleshot.training.recipe import Recipe, Schedule


def test_every_part_of_the_tour_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_demo(tmp_path / "demo", 1, images=(6, 3), steps=2)
    assert set(summary) >= {"voc10", "coco", "seconds", "run"}
    assert set(summary["voc10"]) == {"mAP"}
    assert set(summary["coco"]) == {"AP"}
    assert summary["seconds"] > 0
    out = tmp_path / "demo"
    assert summary["run"] == str(out / "run")
    with Image.open(out / "findings.png") as sheet:
        assert min(sheet.size) >= 256
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["voc10"]["mAP"] == summary["voc10"]["mAP"]
    detector = ss.load(out / "run" / "last.safetensors")
    assert set(detector.class_names) == {"circle", "square", "triangle", "star", "cross"}
    for path in ("data/voc", "data/coco", "findings.png", "metrics.json", "run/last.safetensors"):
        assert (out / path).exists()
        assert str(out / path) in summary["text"]
    assert "APs" in summary["text"]  # by size too
    assert capsys.readouterr().out == ""  # stdout belongs to the caller

    with pytest.raises(UserError, match="overwrites nothing"):
        run_demo(out, 1, images=(6, 3), steps=2)


def test_a_dataset_of_another_seed_is_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path / "demo" / "data", train=2, val=1, seed=0)
    with pytest.raises(UserError, match="data already exists and does not hold this dataset"):
        run_demo(tmp_path / "demo", 1, images=(2, 1), steps=1)
    with pytest.raises(UserError, match="seed -1: expected a whole number, 0 or more"):
        run_demo(tmp_path / "other", -1)


def test_the_training_has_the_time_that_the_drawing_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine the drawing takes longer; the end of the training stays where it is."""
    asked: list[Schedule] = []

    class AskedError(Exception):
        pass

    def train(recipe: Recipe, **_: object) -> None:
        asked.append(recipe.schedule)
        raise AskedError

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.setattr(demo, "best_threads", lambda timed: 1)
    for drawing in (5.0, 40.0, 500.0):
        times = iter([1000.0, 1000.0 + drawing])
        monkeypatch.setattr(demo.time, "monotonic", lambda times=times: next(times))
        with pytest.raises(AskedError):
            run_demo(tmp_path / str(drawing), images=(2, 1))
    assert [60 * schedule.minutes for schedule in asked if schedule.minutes] == pytest.approx([115, 80, 20])
    assert {schedule.steps for schedule in asked} == {None}


def test_what_a_busy_machine_cannot_look_at_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = [0.0]

    def detect(detector: object, part: list[int]) -> list[int]:
        hand[0] += 10.0
        return part

    monkeypatch.setattr(demo.time, "monotonic", lambda: hand[0])
    monkeypatch.setattr(demo, "detect_dataset", lambda detector, val: detect(detector, val.records))
    val: Any = Images(tuple(range(20)))
    detector: Any = None
    assert len(demo.detect_until(1000.0, detector, val)) == 20
    hand[0] = 0.0
    assert demo.detect_until(25.0, detector, val) == list(range(16))
    hand[0] = 100.0
    assert demo.detect_until(25.0, detector, val) == list(range(8))  # some, however late it is


@dataclass(frozen=True)
class Images:
    """Stands for a dataset."""

    records: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.records)


def test_one_thread_where_several_are_slower() -> None:
    before = torch.get_num_threads()
    with demo.threads(2):
        assert demo.best_threads(lambda number: 1.0 / number) == 2
        assert demo.best_threads(lambda number: float(number)) == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    assert demo._timed(before) > 0


@pytest.mark.slow
def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    summary = run_demo(tmp_path / "demo")
    assert summary["voc10"]["mAP"] >= 0.75
    assert summary["seconds"] <= 180
    other = ss.open_dataset(write_shapes(tmp_path / "other", train=1, val=150, seed=77) / "voc", split="val")
    from singleshot.evaluation.detect_dataset import detect_dataset

    detector = ss.load(Path(summary["run"]) / "last.safetensors")
    again = ss.evaluate(other, detect_dataset(detector, other)).to_json()["voc10"]["mAP"]
    assert abs(again - summary["voc10"]["mAP"]) <= 0.05
