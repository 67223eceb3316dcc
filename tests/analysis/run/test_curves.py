"""Curves of training runs, from their logs; and `singleshot analyse run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from singleshot.analysis.plots import plot_runs
from singleshot.analysis.run.curves import analyse_runs, read_curves
from singleshot.cli import main
from singleshot.errors import UserError
from singleshot.training.recipe import Recipe, override, to_yaml


def validation(step: int, ap: float, voc: float) -> dict[str, Any]:
    coco = {"AP": ap, "AP50": ap + 0.3, "AP75": ap - 0.1}
    metrics = {"coco": coco, "voc07": {"mAP": voc}, "voc10": {"mAP": voc}, "per_class": {}}
    return {"kind": "validation", "step": step, "epoch": step / 10, "best": True, "metrics": metrics}


def step(number: int, *losses: float) -> dict[str, Any]:
    named = dict(zip(("classification", "box"), losses, strict=True))
    return {"kind": "step", "step": number, "epoch": number / 10, "rate": 0.1, "loss": sum(losses), "losses": named}


def write_run(folder: Path, *entries: dict[str, Any], metric: str = "coco.AP") -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(override(Recipe(), {"validation.metric": metric})))
    lines = [{"kind": "start", "step": 0, "total": 60, "rate": 0.1, "notes": []}, *entries]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    entries = [step(10, 3.0, 1.0), validation(10, 0.2, 0.9), step(20, 2, 0.5), validation(20, 0.5, 0.7)]
    return write_run(tmp_path / "one", *entries, step(30, 1.5, 0.25), validation(30, 0.4, 0.8))


def test_the_curves_of_a_run(run: Path, tmp_path: Path) -> None:
    found = read_curves(run)
    assert (found.name, found.total, found.metric) == ("one", 60, "coco.AP")
    assert (found.steps, found.epochs) == ((10, 20, 30), (1, 2, 3))
    assert found.losses == {"classification": (3, 2, 1.5), "box": (1, 0.5, 0.25)}
    assert found.loss == (4, 2.5, 1.75)
    assert [one.step for one in found.validations] == [10, 20, 30]
    assert found.best is not None
    assert found.best.step == 20
    other = write_run(tmp_path / "voc", step(10, 3.0, 1.0), validation(10, 0.2, 0.9), validation(20, 0.5, 0.7),
                      metric="voc07.mAP")  # fmt: skip
    best = read_curves(other).best
    assert best is not None
    assert best.step == 10


def test_a_run_that_is_going_on(run: Path, tmp_path: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write('{"kind": "step", "st')
    assert read_curves(run).steps == (10, 20, 30)
    young = write_run(tmp_path / "young", step(10, 3.0, 1.0))
    assert read_curves(young).best is None


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: this is not a run folder: expected log.jsonl and recipe.yaml in it"):
        read_curves(tmp_path / "nowhere")
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text(lines[0] + "{oh\n" + "".join(lines[1:]))
    with pytest.raises(UserError, match=r"log.jsonl:2: expected a line of JSON"):
        read_curves(run)


def test_runs_with_little_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_run(tmp_path / "empty")
    (empty / "log.jsonl").write_text("")
    undefined = validation(10, 0.2, 0.9)
    undefined["metrics"]["coco"]["AP"] = undefined["metrics"]["voc10"]["mAP"] = None
    runs = [
        empty,
        write_run(tmp_path / "begun"),
        write_run(tmp_path / "one_line", step(10, 3.0, 1.0)),
        write_run(tmp_path / "no_step", validation(10, 0.2, 0.9)),
        write_run(tmp_path / "undefined", step(10, 3.0, 1.0), undefined),
    ]
    assert main(["analyse", "run", *map(str, runs)]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:6]]
    assert rows == [
        "empty 0 - - coco.AP - - - - - -",
        "begun 0 of 60 - - coco.AP - - - - - -",
        "one_line 10 of 60 1.0 4.000 coco.AP - - - - - -",
        "no_step 0 of 60 - - coco.AP 20.0 1.0 20.0 20.0 50.0 10.0",
        "undefined 10 of 60 1.0 4.000 coco.AP - 1.0 - - 50.0 10.0",
    ]
    assert plot_runs(analyse_runs([empty]), tmp_path / "empty.svg").is_file()


def test_damaged_logs(run: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(f"{json.dumps(step(40, 1.0, 1.0)).replace('box', 'bax')}\n")
    with pytest.raises(UserError, match=r"log\.jsonl:8: the losses are \['classification', 'bax'\], not those of"):
        read_curves(run)


def test_figures(run: Path, tmp_path: Path) -> None:
    young = write_run(tmp_path / "young", step(10, 3.0, 1.0))
    for name, runs in {"one.png": [run], "two.png": [run, young], "young.svg": [young]}.items():
        assert plot_runs(analyse_runs(runs), tmp_path / name).stat().st_size > 5000


def test_on_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = write_run(tmp_path / "young", step(10, 3.0, 1.0))
    assert main(["analyse", "run", str(run), str(young), "--out", str(tmp_path / "new")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(rows[1]) == "one 30 of 60 3.0 1.750 coco.AP 50.0 2.0 40.0 40.0 70.0 30.0"
    assert " ".join(rows[2]) == "young 10 of 60 1.0 4.000 coco.AP - - - - - -"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"run.png", "run.json"}
    page = tmp_path / "page.html"
    assert main(["analyse", "run", str(run), "--html", str(page)]) == 0
    assert f">{run}</p>" in page.read_text()
    capsys.readouterr()
    assert main(["analyse", "run", str(run), "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["runs"]
    assert document["losses"]["box"] == [1, 0.5, 0.25]
    assert document["validations"][1]["metrics"]["coco"]["AP50"] == pytest.approx(0.8)
    assert main(["analyse", "run", str(tmp_path)]) == 2
    assert "this is not a run folder: expected log.jsonl" in capsys.readouterr().err
