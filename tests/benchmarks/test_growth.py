"""How cost grows: exponents of known growth, the table and the plot, and each work at its smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import growth
import pytest
from growing import measure, report, works


def row(power: float, *, most: float = 1.0) -> measure.Row:
    found = [(n, float(n) ** power) for n in (10, 100, 1000)]
    return measure.Row(
        "candidates", "a work", tuple(found), measure._slope(found), measure._slope(found[-2:]), most, ""
    )


def test_exponents() -> None:
    assert row(1.0).exponent == row(1.0).at_the_end == 1.0
    assert row(1.0).grows_as_it_should
    assert not row(2.0).grows_as_it_should
    assert row(2.0, most=2.0).grows_as_it_should
    assert measure.Row.from_json(json.loads(json.dumps(row(2.0).to_json()))) == row(2.0)


def test_pixels_count_as_the_square_of_the_side() -> None:
    spent: list[int] = []
    work = measure.Work("pixels", "a work", (1, 2), (1, 2), lambda n: lambda: spent.append(n), power=2.0)
    found = measure.measured(work, rounds=1, quick=True)
    assert [number for number, _ in found.points] == [1, 2]
    assert spent


def test_every_work_can_be_done(tmp_path: Path) -> None:
    small = {"images": 3, "pixels of the image (side)": 64, "classes": 2, "threads": 1}
    for work in works.works(tmp_path):
        if not any(word in work.name for word in ("detect,", "RetinaNet", "loss of", "post-processing")):
            work.make(small.get(work.family, 2))()


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        measure.Work("candidates", "quick one", (1, 2, 4), (1, 2), lambda n: lambda: sum(range(20000 * n))),
        measure.Work("threads", "other", (1, 2), (1, 2), lambda n: lambda: sum(range(20000)), most=9.0),
    )
    monkeypatch.setattr(works, "works", lambda folder: table)
    out, plot = tmp_path / "growth.json", tmp_path / "growth.png"
    assert growth.main(["--rounds", "1", "--out", str(out), "--plot", str(plot)]) in (0, 1)
    assert "candidates: quick one: 1: " in capsys.readouterr().out
    written = json.loads(out.read_text())
    found = [measure.Row.from_json(one) for one in written["rows"]]
    assert "| candidates | quick one | 1: " in report.table(found)
    assert "Measured on" in report.where(written["about"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        growth.main(["--only", "nothing of this name"])
