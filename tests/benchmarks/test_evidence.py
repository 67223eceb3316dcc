"""The recorded runs: their plan, their lines, the programme that makes them, and the page made from the lines."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import evidence
import pytest
import results_page
from recorded import page, plan, runner, zoo

import singleshot as ss
from singleshot.cli.train import parse
from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.training.run import Run

LINE: dict[str, Any] = {
    "name": "one", "detector": "SSD", "dataset": "bccd", "minutes": 3.0, "commit": "abc", "date": "2030-01-02",
    "command": "singleshot train $DATA/bccd --seed 0 --arguments.image_size [64,64] --out runs/one",
    "curve": [[1.0, 0.1], [2.0, 0.25]],
    "metrics": {
        "coco": {"AP": 0.6, "AP50": 0.9, "AP75": 0.7}, "voc07": {"mAP": 0.8}, "voc10": {"mAP": 0.85},
        "per_class": {"cell": {"AP50": 0.9, "boxes": 7}},
    },
}  # fmt: skip


class TestPlan:
    def test_names_are_different(self) -> None:
        assert len({run.name for run in plan.RUNS}) == len(plan.RUNS)

    @pytest.mark.parametrize("run", plan.RUNS, ids=lambda run: run.name)
    def test_each_command_is_one(self, run: plan.Run, tmp_path: Path) -> None:
        words = shlex.split(run.command(str(tmp_path / "out")))
        assert words[:2] == ["singleshot", "train"]
        assert words == run.command(str(tmp_path / "out")).split()  # `carry_out` splits at spaces
        assert parse(words[2:])["recipe"] == "finetune"

    def test_a_name_that_no_run_has(self) -> None:
        with pytest.raises(UserError, match=r"there is no run nothing; choose from bccd-0"):
            plan.chosen(["nothing", "bccd-0"])


class TestLines:
    def test_they_are_of_the_plan(self) -> None:
        """What is recorded was made by the command that the plan has: a plan that is changed afterwards is another."""
        commands = {run.name: run.command(f"runs/{run.name}").split() for run in plan.RUNS}
        for name, line in runner.read().items():
            assert sorted(line["command"].split()) == sorted(commands[name])

    def test_a_damaged_line_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "lines.jsonl"
        path.write_text(json.dumps(LINE) + "\n{\n")
        with pytest.raises(UserError, match=r"lines.jsonl:2: this line is not a result in JSON"):
            runner.read(path)

    def test_standing_still_does_not_count(self) -> None:
        times = [0.0, 60.0, 120.0, 5000.0, 5060.0]
        assert runner.minutes([{"kind": "step", "time": time} for time in times] + [{"kind": "start"}]) == 3.0


class TestPage:
    def test_the_page_is_made_from_the_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert results_page.main(["--check"]) == 0, capsys.readouterr().err

    def test_table(self) -> None:
        line = {**LINE, "machine": {"cpu": "Fast(R) Core(R) Processor"}}
        row = page.table("bccd", [line, {**line, "dataset": "chess"}]).splitlines()[2:]
        assert row == [
            "| one | SSD | 0.600 | 0.900 | 0.700 | 0.800 | 0.850 | AP 0.58: yes; AP50 0.91: short by 0.010 | 3 "
            "| Fast Core | abc | 2030-01-02 |"
        ]
        assert page.processor({"machine": "2 CPU cores"}) == "-"

    def test_classes(self) -> None:
        rows = page.classes("bccd", [LINE, {**LINE, "name": "two"}, {**LINE, "dataset": "chess"}]).splitlines()
        assert rows[0] == "| class | objects | one | two |"
        assert rows[2:] == ["| cell | 7 | 90.0 | 90.0 |"]

    def test_run(self) -> None:
        text = page.run(LINE)
        assert LINE["command"] in text
        assert "AP50 by class: cell 0.900." in text
        assert "AP by epoch: 1: 10.0, 2: 25.0." in text

    def test_a_class_without_objects(self) -> None:
        classes = {"cell": {"AP50": 0.9, "boxes": 7}, "none": {"AP50": -1.0, "boxes": 0}}
        line = {**LINE, "metrics": {**LINE["metrics"], "per_class": classes}}
        assert page.classes("bccd", [line]).splitlines()[3] == "| none | 0 | - |"
        assert "AP50 by class: cell 0.900." in page.run(line)

    def test_a_long_command_is_broken_between_options(self) -> None:
        command = " ".join(["singleshot train DATA", *(f"--option{k} value{k}" for k in range(20))])
        lines = page.run({**LINE, "command": command}).split("```")[1].strip().splitlines()
        assert len(lines) > 2
        assert all(line.strip().startswith(("singleshot", "--")) for line in lines)
        assert " ".join(line.rstrip("\\").strip() for line in lines) == command

    def test_parts_are_replaced_and_the_rest_stays(self) -> None:
        text = "before\n<!-- made: run a -->\nold\n<!-- end -->\nbetween\n<!-- made: runs b -->\n<!-- end -->\nafter"
        new = results_page.written(text, {"run": {"a": "A"}, "runs": {"b": "B"}})
        assert new == (
            "before\n<!-- made: run a -->\nA\n<!-- end -->\nbetween\n<!-- made: runs b -->\nB\n<!-- end -->\nafter"
        )
        assert results_page.written(new, {"run": {"a": "A"}, "runs": {"b": "B"}}) == new

    def test_an_unknown_part(self) -> None:
        with pytest.raises(UserError, match="there is no part run b; expected one of run a"):
            results_page.written("<!-- made: run b -->\n<!-- end -->", {"run": {"a": "A"}})


@pytest.fixture
def tiny_plan(tiny_voc: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One short run on a tiny set; the folder that holds the set."""
    words = ("--format voc", "--recipe finetune", "--arguments.image_size 64", "--epochs 1", "--batch_size 2")
    run = plan.Run("tiny-0", "SSD", tiny_voc.name, (*words, "--device cpu", "--data.workers 0", "--seed 0"))
    monkeypatch.setattr(plan, "RUNS", (run, replace(run, name="tiny-1")))
    monkeypatch.setattr(runner, "LINES", tmp_path / "lines.jsonl")
    monkeypatch.setattr(runner.read, "__defaults__", (tmp_path / "lines.jsonl",))
    return tiny_voc.parent


class TestProgramme:
    def test_runs_once_and_then_not_again(
        self, tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines, said = tmp_path / "lines.jsonl", list[str]()
        runner.run_all(tiny_plan, tmp_path / "runs", ["tiny-0"], lines, said.append)
        assert len(said) == 1
        (line,) = runner.read(lines).values()
        assert line["command"] == plan.RUNS[0].command("runs/tiny-0")
        assert line["curve"][-1][0] == 1.0
        detector = ss.load(tmp_path / "runs" / "tiny-0" / "last.safetensors")
        data = ss.open_dataset(tiny_plan / plan.RUNS[0].dataset, split="val", format="voc")
        assert line["metrics"]["coco"] == ss.evaluate(data, detect_dataset(detector, data)).to_json()["coco"]
        runner.run_all(tiny_plan, tmp_path / "runs", ["tiny-0"], lines, said.append)
        assert len(said) == 1
        assert len(lines.read_text().splitlines()) == 1
        capsys.readouterr()
        assert evidence.main(["status", "--runs", str(tmp_path / "runs")]) == 0
        assert capsys.readouterr().out.split() == ["done", "tiny-0", "waiting", "tiny-1"]

    def test_one_by_heart_is_measured_on_its_own_images(
        self, tiny_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = replace(plan.RUNS[0], arguments=(*plan.RUNS[0].arguments, "--data.overfit 3"))
        monkeypatch.setattr(plan, "RUNS", (few,))
        runner.run_all(tiny_plan, tmp_path / "runs", None, tmp_path / "lines.jsonl", lambda line: None)
        (line,) = runner.read(tmp_path / "lines.jsonl").values()
        assert line["dataset"] == f"{few.dataset}-3"
        data = ss.open_dataset(tiny_plan / few.dataset, split="train", format="voc")
        data = replace(data, records=data.records[:3])
        detector = ss.load(tmp_path / "runs" / "tiny-0" / "last.safetensors")
        assert line["metrics"] == ss.evaluate(data, detect_dataset(detector, data)).to_json()

    def test_one_that_was_stopped_goes_on(
        self, tiny_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C in the middle of a run leaves no line, and the next call resumes it."""
        original = Run.set_mode

        def stop_at_step_1(self: Run) -> None:
            if self.progress.step == 1:
                signal.raise_signal(signal.SIGINT)
            original(self)

        lines, said = tmp_path / "lines.jsonl", list[str]()
        monkeypatch.setattr(Run, "set_mode", stop_at_step_1)
        with pytest.raises(KeyboardInterrupt):
            runner.run_all(tiny_plan, tmp_path / "runs", ["tiny-0"], lines, said.append)
        assert not lines.exists()
        monkeypatch.setattr(Run, "set_mode", original)
        runner.run_all(tiny_plan, tmp_path / "runs", ["tiny-0"], lines, said.append)
        assert said[1].startswith("singleshot train --resume")
        assert list(runner.read(lines)) == ["tiny-0"]

    def test_bad_input(self, tmp_path: Path, tiny_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert evidence.main(["run", "--data", str(tmp_path / "nowhere")]) == 2
        assert "nowhere: no such folder" in capsys.readouterr().err
        assert evidence.main(["run", "--data", str(tmp_path), "--only", "tiny-9"]) == 2
        assert "no run tiny-9" in capsys.readouterr().err
        assert evidence.main(["run", "--data", str(tmp_path), "--only", "tiny-0", "--runs", str(tmp_path / "r")]) == 2
        assert "no such file or folder" in capsys.readouterr().err
        assert evidence.main(["status", "--only", "tiny-0"]) == 2
        assert "--only" in capsys.readouterr().err
        with pytest.raises(UserError, match="run bccd-0 is not finished"):
            zoo.write(tiny_plan, tmp_path / "runs", tmp_path)
