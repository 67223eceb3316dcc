"""A small experiment from the first run to the table: stopped, resumed, skipped."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import paired as script
import pytest
import torch
from pairs import records, report, runner
from pairs.experiment import Arm, Claim, Comparison, Experiment, differences, settings_of
from pairs.experiments import EXPERIMENTS
from recorded import files
from safetensors.torch import save_file

from singleshot.detectors import ssd
from singleshot.errors import UserError
from singleshot.training.optimizer import find_trunk
from singleshot.training.recipe import Recipe
from singleshot.training.run import Run

TINY = Experiment(
    name="tiny",
    data="voc",
    settings={
        "arguments": {"image_size": 64, "backbone_options": {"width": 0.25}},
        "batch_size": 2,
        "data.workers": 0,
        "schedule.steps": 4,
        "schedule.warmup_steps": 1,
        "validation.every": 1.0,
        "compute.device": "cpu",
        "compute.precision": "fp32",
    },
    arms={
        "mined": Arm(),
        "even": Arm({"arguments.classification": {"type": "SoftmaxLoss", "ratio": 1}}, views={"again": {}}),
    },
    baseline="mined",
    seeds=(0, 1),
    comparisons=(
        Comparison("even", "AP", Claim("lower", "-1.0", "nobody")),
        Comparison("even", "AP75", Claim("same", "0.0", "nobody"), beyond="AP50"),
        Comparison("even", "AP", Claim("same", "0.0", "nobody"), against="even:again"),
    ),
)


def test_stopped_resumed_tabled_and_skipped(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    out, work = tmp_path / "tiny.jsonl", tmp_path / "work"
    places = ["--out", str(out), "--work", str(work)]
    run = ["run", "tiny", "--data", str(tiny_voc.parent), *places]
    original = Run.set_mode

    def stop_in_second_run(self: Run) -> None:
        if self.folder.path.name == "even-0" and self.progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "set_mode", stop_in_second_run)
        assert script.main(run) == 130
    assert "everything is saved" in capsys.readouterr().err
    assert [(line["arm"], line["seed"]) for line in records.read(out)] == [("mined", 0)]
    assert (work / "tiny" / "even-0" / "state.safetensors").exists()
    assert script.main(["status", "tiny", *places]) == 0
    status = capsys.readouterr().out
    assert "done     mined, seed 0" in status
    assert "begun    even, seed 0: 50%" in status
    assert "waiting  even, seed 1" in status
    assert script.main(["table", "tiny", *places]) == 0
    assert "(0 of 2 seeds)" in capsys.readouterr().out

    assert script.main(run) == 0
    lines = records.read(out)
    assert [(line["arm"], line["seed"]) for line in lines] == [("mined", 0), ("even", 0), ("mined", 1), ("even", 1)]
    assert [len(line["sessions"]) for line in lines] == [1, 2, 1, 1]
    check_lines(lines, tmp_path)
    for line in lines:
        folder = work / "tiny" / f"{line['arm']}-{line['seed']}"
        kept = {path.name for path in folder.iterdir()}
        assert kept == {"last.safetensors", "log.jsonl", "recipe.yaml"}

    capsys.readouterr()
    assert script.main(["table", "tiny", *places]) == 0
    table = capsys.readouterr().out
    assert "4 of 4 runs are done" in table
    assert table.count("**") == 2 * len(TINY.comparisons)  # a verdict each
    assert "even - even:again" in table
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_one", lambda *_: pytest.fail("nothing is left to do"))
        assert script.main(run) == 0
    assert out.read_bytes() == before

    longer = dataclasses.replace(TINY, settings={**TINY.settings, "schedule.steps": 5})
    monkeypatch.setitem(EXPERIMENTS, "tiny", longer)
    for words in (run, ["table", "tiny", *places]):
        assert script.main(words) == 2
        assert "schedule.steps: 4 -> 5" in capsys.readouterr().err


def check_lines(lines: list[records.Line], folder: Path) -> None:
    for line in lines:
        assert {"AP50", "AP60", "AP70", "AP75", "AP80", "AP90"} <= line["metrics"]["coco_iou"].keys()
        assert line["metrics"]["coco_iou"]["AP75"] == line["metrics"]["coco"]["AP75"]
        assert line["seconds"] > 0
        assert line["curve"][-1][0] == 2.0
        assert line["command"] == "python benchmarks/paired.py run tiny"
        assert line["machine"].keys() == {"cpu", "cores", "torch", "threads", "python"}
        assert str(folder) not in json.dumps(line)
    assert lines[1]["views"]["again"] == lines[1]["metrics"]


def test_the_arms_of_a_seed_begin_alike(tiny_voc: Path, tmp_path: Path) -> None:
    places = runner.Places(tiny_voc.parent, None, tmp_path / "x.jsonl", tmp_path)
    wide = dataclasses.replace(TINY, arms={**TINY.arms, "boxes": Arm({"arguments.aspect_ratios": [2]})})
    base, other = (runner.start_of(wide, arm, 3, places).state_dict() for arm in ("mined", "boxes"))
    shared = [name for name in base if base[name].shape == other[name].shape]
    assert 0 < len(shared) < len(base)
    assert all(torch.equal(base[name], other[name]) for name in shared)
    again = runner.start_of(wide, "mined", 4, places).state_dict()
    assert any(not torch.equal(base[name], again[name]) for name in base)


def test_a_run_begins_from_the_backbone_s_weights(tiny_voc: Path, tmp_path: Path) -> None:
    """Its detector with the weights in it is one file: `train` would refuse a second source."""
    short = {**TINY.settings, "schedule.steps": 1, "schedule.warmup_steps": 0}
    only = {"arms": {"mined": Arm()}, "comparisons": (), "seeds": (0,)}
    small = dataclasses.replace(TINY, settings=short, weights="trunk.safetensors", **only)
    torch.manual_seed(11)
    trunk = find_trunk(ssd(num_classes=2, backbone="mobilenetv2", image_size=64, backbone_options={"width": 0.25}))[1]
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    places = runner.Places(tiny_voc.parent, tmp_path / "trunk.safetensors", tmp_path / "x.jsonl", tmp_path)
    begun = find_trunk(runner.start_of(small, "mined", 0, places))[1].state_dict()
    assert all(torch.equal(begun[name], value) for name, value in trunk.state_dict().items())
    runner.run_all(small, places, lambda _: None)
    (line,) = records.read(tmp_path / "x.jsonl")
    assert line["settings"]["arguments.backbone_weights"] == "trunk.safetensors"


def line(arm: str, seed: int, **numbers: float) -> dict[str, Any]:
    """A result with AP in points."""
    metrics = {"coco": {}, "coco_iou": {name: number / 100 for name, number in numbers.items()}}
    settings = TINY.settings_of(arm, seed)
    return {
        "experiment": "tiny", "arm": arm, "seed": seed, "metrics": metrics, "views": {"again": metrics},
        "settings": settings, "inputs": {"data train": "abc"}, "seconds": 60, "sessions": [],
    }  # fmt: skip


def test_differences_are_of_equal_seeds() -> None:
    lines = {
        ("mined", 0): line("mined", 0, AP=50, AP50=80, AP75=40),
        ("even", 0): line("even", 0, AP=51, AP50=79, AP75=43),
        ("mined", 1): line("mined", 1, AP=60, AP50=85, AP75=50),
    }
    gains, beyond, same = TINY.comparisons
    assert report.paired(TINY, gains, lines) == {0: pytest.approx(1)}
    assert report.paired(TINY, beyond, lines) == {0: pytest.approx(4)}  # +3 in AP75 and -1 in AP50
    assert report.paired(TINY, same, lines) == {0: 0}


def test_a_comparison_without_a_claim() -> None:
    unclaimed = Comparison("even", "VOC07", Claim("none"))
    experiment = dataclasses.replace(TINY, comparisons=(unclaimed, *TINY.comparisons), metrics=("AP", "VOC07"))
    lines = {}
    for arm, seed, ap in (("mined", 0, 50), ("even", 0, 53), ("mined", 1, 60), ("even", 1, 63)):
        each = line(arm, seed, AP=ap, AP50=80, AP75=40)
        each["metrics"]["voc07"] = {"mAP": ap / 100 - 0.1}
        machine = {"cpu": "x", "cores": 2, "torch": "2", "python": "3"}
        each["views"] = {"again": each["metrics"]}
        lines[arm, seed] = {**each, "date": "2020-01-01", "machine": machine}
    table = report.table(experiment, lines)
    assert "| even - mined | VOC07 | +3.00 | +3.00 | +3.00 | 0.00 | +3.00 to +3.00 | none | - | **helps** |" in table
    assert 'for "none", helps: it lies above 0, hurts: it lies below 0.' in table
    assert "| 0 | mined | 50.00 | 40.00 |" in table
    claimed = report.table(dataclasses.replace(experiment, comparisons=TINY.comparisons), lines)
    assert "helps" not in claimed
    assert "nobody" in claimed
    alone = dataclasses.replace(experiment, comparisons=(unclaimed,))
    assert "Published" not in report.table(alone, lines)


def test_settings_without_paths_and_with_defaults() -> None:
    settings = settings_of(TINY.recipe_of("even", 1, Path("/somewhere"), None))
    assert settings == settings_of(TINY.recipe_of("even", 1))
    assert settings["arguments.classification"] == {"type": "SoftmaxLoss", "ratio": 1}
    older = {key: value for key, value in settings.items() if key != "data.crowd"}
    assert settings_of(Recipe())["data.crowd"] == settings["data.crowd"]
    assert differences(older, settings) == []  # a field that came later, at its default
    assert differences(settings, {**settings, "seed": 2}) == ["seed: 1 -> 2"]


def test_a_loss_that_has_got_fields_since_its_record() -> None:
    """Runs with OHEM 1:3 kept all positives before it could be chosen."""
    recorded = {"arguments.classification": {"type": "OHEMLoss", "ratio": 3.0}}
    same = {"type": "OHEMLoss", "ratio": 3.0, "keep_positives": True, "candidates": 10_000}
    assert differences(recorded, {"arguments.classification": same}) == []
    (line,) = differences(recorded, recorded)  # today's default is another reading
    assert line.startswith("arguments.classification: ")
    paper = {"type": "OHEMLoss", "ratio": 3.0, "keep_positives": False, "candidates": None}
    assert differences({"arguments.classification": paper}, {"arguments.classification": paper}) == []


def test_a_killed_session_counts_up_to_its_last_saving(tmp_path: Path) -> None:
    folder = tmp_path / "mined-0"
    folder.mkdir()
    state = folder / "state.safetensors"
    state.write_bytes(b"")
    begun = state.stat().st_mtime - 90
    settings = {"settings": TINY.settings_of("mined", 0), "inputs": {}}
    entries = [{"seconds": 10.0}, {"started": begun, "seconds": None}]
    (tmp_path / "mined-0.sessions.json").write_text(json.dumps({**settings, "sessions": entries}))
    found = runner.Sessions.open(folder, settings)
    assert [entry["seconds"] for entry in found.entries] == [10, pytest.approx(90, abs=0.2)]
    changed = {**settings, "settings": {**settings["settings"], "batch_size": 4}}
    with pytest.raises(UserError, match="batch_size: 2 -> 4"):
        runner.Sessions.open(folder, changed)


def test_two_processes_are_kept_apart(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        files.only_one(tmp_path, "wait"),
        pytest.raises(UserError, match="another process"),
        files.only_one(tmp_path, "wait"),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "nothing"], "retinanet"),
        (["run", "refinedet", "--seeds", "1", "7"], "no seed 7; choose from 0, 1, 2, 3, 4"),
        (["table", "refinedet", "--seeds", "1"], "table shows all seeds"),
        (["run", "refinedet", "--arms", "iou", "fokal"], "no arm fokal; choose from ssd, tcb"),
        (["status", "refinedet", "--arms", "iou"], "status shows all arms"),
    ],
)
def test_what_cannot_be_asked(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(words) == 2
    assert said in capsys.readouterr().err


def made_up(monkeypatch: pytest.MonkeyPatch, also: Path | None = None) -> list[tuple[str, int]]:
    """Runs that take no time; `also`: a file in which another process finishes each of them a moment before."""
    made = []

    def run_one(experiment: Experiment, arm: str, seed: int, *_: object) -> records.Line:
        made.append((arm, seed))
        own = line(arm, seed, AP=50)
        own["metrics"]["coco"]["AP"] = 0.5
        if also is not None:
            records.append(also, {**own, "seconds": 1})
        return own

    monkeypatch.setattr(runner, "run_one", run_one)
    monkeypatch.setattr(runner, "inputs_of", lambda _: {"data train": "abc"})
    return made


def test_two_processes_share_the_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    made = made_up(monkeypatch)
    out = tmp_path / "out.jsonl"
    run = ["run", "tiny", "--data", str(tmp_path), "--out", str(out), "--work"]
    assert script.main([*run, str(tmp_path / "one"), "--seeds", "1"]) == 0
    assert "run 2 of 2" in capsys.readouterr().out
    assert made == [("mined", 1), ("even", 1)]
    with files.only_one(tmp_path / "one" / "tiny", "wait"):
        assert script.main([*run, str(tmp_path / "one"), "--seeds", "0"]) == 2
        assert "make other seeds (--seeds) in another folder (--work)" in capsys.readouterr().err
        assert script.main([*run, str(tmp_path / "two"), "--arms", "mined"]) == 0  # beside it
        assert script.main([*run, str(tmp_path / "two")]) == 0
    assert made[2:] == [("mined", 0), ("even", 0)]
    assert [(each["arm"], each["seed"]) for each in records.read(out)] == made


def test_what_another_process_finishes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "tiny", TINY)
    out = tmp_path / "out.jsonl"
    made = made_up(monkeypatch, also=out)
    first = TINY.runs[0]

    def say_and_finish(text: str) -> None:
        print(text)
        if made == [first] and "its result stays" in text:  # the second run, before it is begun here
            own = line("even", 0, AP=50)
            records.append(out, {**own, "seconds": 2})

    places = runner.Places(tmp_path, None, out, tmp_path / "work")
    runner.run_all(TINY, places, say_and_finish, [0])
    assert made == [first]
    assert "another process was faster" in capsys.readouterr().out
    assert [each["seconds"] for each in records.read(out)] == [1, 2]
