"""The pure parts of the plot of accuracy over time, and one small plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import speed_accuracy as script
from PIL import Image
from speed_accuracy import Point, given_accuracy, interleaved, parse_point, summary

from singleshot.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retinanet_r50", Point("retinanet_r50")),
        ("retinanet_r50:35.7", Point("retinanet_r50", accuracy="35.7")),
        ("retinanet_r50@500:32.5", Point("retinanet_r50", 500, "32.5")),
        ("ours=retinanet_r50@500", Point("retinanet_r50", 500, None, "ours")),
        ("runs/a/last.safetensors:m.json", Point("runs/a/last.safetensors", None, "m.json")),
        (r"C:\a.safetensors", Point(r"C:\a.safetensors")),
        (r"C:\a.safetensors:58.1", Point(r"C:\a.safetensors", None, "58.1")),
    ],
)
def test_points(text: str, expected: Point) -> None:
    assert parse_point(text) == expected


def test_series_names() -> None:
    assert parse_point("retinanet_r50@400").series == "retinanet_r50"
    assert parse_point("runs/a/last.safetensors").series == "a/last"
    assert parse_point("x=runs/a/last.safetensors").series == "x"


@pytest.mark.parametrize("text", ["", "@400", ":30", "=a", "retinanet_r50@big", "runs/a.safetensors@300"])
def test_points_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--point"):
        parse_point(text)


def test_given_accuracy(tmp_path: Path) -> None:
    assert given_accuracy("35.7") == 35.7
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"coco": {"AP": 0.25}}))
    assert given_accuracy(str(path)) == 25.0
    for wrong in ("101", "-1", "nan", str(tmp_path / "none.json")):
        with pytest.raises(UserError, match="AP"):
            given_accuracy(wrong)
    path.write_text("[]")
    with pytest.raises(UserError, match="JSON"):
        given_accuracy(str(path))


def test_interleaved_times_by_a_clock_of_its_own() -> None:
    """Each action moves the clock by its own time; the rounds hold every action once."""
    now, called = [0.0], []

    def action(name: int, seconds: float) -> None:
        called.append(name)
        now[0] += seconds

    actions = [lambda: action(0, 0.001), lambda: action(1, 0.005), lambda: action(2, 0.02)]
    times = interleaved(actions, rounds=10, warm_up=1, clock=lambda: now[0])
    for found, expected in zip(times, (1, 5, 20), strict=True):
        assert found == pytest.approx([expected] * 10)
    rounds = [tuple(called[i : i + 3]) for i in range(0, len(called), 3)]
    assert len(rounds) == 11
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert len(set(rounds)) > 1  # the order changes


def test_summary_by_hand() -> None:
    assert summary([1, 2, 3, 4, 100]) == {"median_ms": 3, "quartile1_ms": 2, "quartile3_ms": 4}
    assert summary([7]) == {"median_ms": 7, "quartile1_ms": 7, "quartile3_ms": 7}


def test_a_plot_and_its_numbers(tmp_path: Path, tiny_model: Path, tiny_voc: Path) -> None:
    out = tmp_path / "new" / "plot.png"
    words = ["--point", f"a={tiny_model}:40", "--point", f"{tiny_model}", "--data", str(tiny_voc), "--input", "96x72"]
    assert script.main([*words, "--rounds", "2", "--out", str(out)]) == 0
    with Image.open(out) as plot:
        assert min(plot.size) > 500
    points = json.loads(out.with_suffix(".json").read_text())["points"]
    assert [(point["AP is"], point["weights"]) for point in points] == [("given", "trained"), ("measured", "trained")]
    assert points[0]["AP"] == 40
    assert all(point["median_ms"] > 0 and point["size"] == [64, 64] for point in points)


def test_a_point_without_accuracy(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--point", str(tiny_model), "--out", str(tmp_path / "plot.png")]) == 2
    assert "no AP: give it" in capsys.readouterr().err
    assert not (tmp_path / "plot.png").exists()
