"""The figures of the analyses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singleshot.analysis.errors.result import ErrorAnalysis, Tally
from singleshot.analysis.errors.sorting import KINDS
from singleshot.analysis.iou.measure import THRESHOLDS
from singleshot.analysis.iou.result import IoUAnalysis, ScoreAnalysis
from singleshot.analysis.loss.result import LossDistribution, LossHistogram
from singleshot.analysis.plots import plot_errors, plot_iou, plot_losses
from singleshot.errors import UserError


def losses(count: int) -> LossDistribution:
    histogram = LossHistogram(np.full((2, 5), count), np.tile(np.arange(5.0), (2, 1)) * count)
    return LossDistribution((0.0, 2.0), "sigmoid", 3, histogram, histogram)


def ious(count: int, ways: int = 3) -> IoUAnalysis:
    random = np.random.default_rng(0)
    scores = tuple(
        ScoreAnalysis(
            name=name,
            alpha=None if k == 0 else 0.5,
            scores=random.random(count, np.float32),
            ious=random.random(count, np.float32),
            positive_scores=random.random(count, np.float32),
            positive_ious=random.random(count, np.float32),
            reachable=(5, 5, 4, 3, 0),
            lost=(0, 1, 1, 2, 0),
            metrics={"AP": 0.5},
        )
        for k, name in enumerate(["class score", "IoU-aware", "true IoU"][:ways])
    )
    return IoUAnalysis(1, 5, 0.05, 0.5, THRESHOLDS, scores)


def is_drawn(path: Path) -> bool:
    with Image.open(path) as picture:
        return len(set(picture.convert("L").resize((64, 32)).tobytes())) > 5


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_losses(tmp_path: Path, count: int) -> None:
    assert is_drawn(plot_losses(losses(count), tmp_path / "new" / "loss.png"))


@pytest.mark.parametrize(("count", "ways"), [(0, 1), (1, 2), (200, 3), (3000, 3)])
def test_iou(tmp_path: Path, count: int, ways: int) -> None:
    path = plot_iou(ious(count, ways), tmp_path / "iou.png")
    assert is_drawn(path)
    assert [file.name for file in tmp_path.iterdir()] == ["iou.png"]


@pytest.mark.parametrize("count", [0, 7])
def test_errors(tmp_path: Path, count: int) -> None:
    sizes = tuple(Tally(f"size {k}", count, k, 1, 2, dict.fromkeys(KINDS, count)) for k in range(4))
    gains = {"confused": count / 100, "missed": 0.2}
    assert is_drawn(plot_errors(ErrorAnalysis(3, 0.5, gains, 0.3, (), sizes, ()), tmp_path / "errors.png"))


def test_other_kinds(tmp_path: Path) -> None:
    assert plot_losses(losses(3), tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in plot_iou(ious(3), tmp_path / "a.svg").read_bytes()
    with pytest.raises(UserError, match="written as .png, .pdf or .svg"):
        plot_losses(losses(3), tmp_path / "a.txt")
