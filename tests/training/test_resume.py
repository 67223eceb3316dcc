"""A run that is stopped and goes on is the run that was not stopped, bit for bit."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tiny_detector import OWN

from singleshot.cli import main
from singleshot.errors import UserError
from singleshot.training import from_yaml, log, override, to_yaml, train, validation
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import Recipe
from singleshot.training.run import Run
from singleshot.training.state import Progress, SavedState

MakeRecipe = Callable[..., Recipe]
HERE = Path(__file__).parent


class Killed(BaseException):
    """Nothing catches it."""


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die at once, nothing saved, when a step has been done: what SIGKILL does."""
    original = log.record

    def record(run: Run, pending: Any) -> Any:
        report = original(run, pending)
        if report.step == step:
            raise Killed
        return report

    monkeypatch.setattr(log, "record", record)


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without what differs from run to run: the clock, and the lines that mark a start."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    clock = ("time", "images_per_second")
    return [{k: v for k, v in entry.items() if k not in clock} for entry in entries if entry["kind"] != "start"]


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("last", "best", "state"):
        a, b = load_file(one / f"{name}.safetensors"), load_file(other / f"{name}.safetensors")
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{name}: {key}"
    assert log_of(one) == log_of(other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("killed", [3, 8])
def test_killed_in_mid_epoch(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, optimizer: str, killed: int
) -> None:
    recipe = make_recipe(optimizer__name=optimizer, optimizer__lr=0.003, log__save_every=2)  # epochs have 6 steps
    train(recipe, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, killed)
        with pytest.raises(Killed):
            train(recipe, out=tmp_path / "parts")
    result = train(resume=tmp_path / "parts", builder=OWN)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert result.metrics["coco"].keys() >= {"AP", "AP50"}


def test_accumulation_channels_last_and_two_stops(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(
        optimizer__accumulate=2,
        compute__channels_last=True,
        compute__precision="bf16",
        log__save_every=1,
        schedule__steps=6,
    )
    train(recipe, out=tmp_path / "whole")
    for killed in (2, 5):
        with monkeypatch.context() as patch:
            stop_after(patch, killed)
            with pytest.raises(Killed):
                train(recipe, out=tmp_path / "parts") if killed == 2 else train(resume=tmp_path / "parts", builder=OWN)
    train(resume=tmp_path / "parts", builder=OWN)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_sigkill_of_a_process(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    """The real thing, with workers: the process is shot while it trains."""
    recipe = make_recipe(log__save_every=1, schedule__steps=40, validation__every=100, data__workers=1)
    train(override(recipe, {"data.workers": 0}), out=tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run = tmp_path / "parts"
    process = start(tmp_path / "recipe.yaml", run)
    wait_for(
        lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text().count('"kind": "step"') >= 2, process
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(resume=run, builder=OWN)
    assert_same_run(tmp_path / "whole", run)


def test_sigterm_at_a_step(tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(schedule__steps=5)
    train(recipe, out=tmp_path / "whole")
    original = Run.set_mode

    def set_mode(self: Run) -> None:
        if self.progress.step == 3:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # torchrun's echo of it
        original(self)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "set_mode", set_mode)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 4 of 5"):
            train(recipe, out=tmp_path / "parts")
    assert signal.getsignal(signal.SIGTERM) is before
    train(resume=tmp_path / "parts", builder=OWN)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__steps=400, validation__every=100)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run = tmp_path / "run"
    process = start(tmp_path / "recipe.yaml", run)
    wait_for(lambda: (run / "log.jsonl").exists() and '"kind": "step"' in (run / "log.jsonl").read_text(), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert f"singleshot train --resume {run} --builder {OWN}" in said
    step = SavedState.read(run / "state.safetensors").progress.step
    assert 0 < step < 400
    assert all(entry["step"] <= step for entry in log_of(run))


def start(recipe: Path, run: Path) -> subprocess.Popen[str]:
    """Train in a process of its own; exits 130 after Ctrl-C as the command line does."""
    program = (
        "import sys\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        "from singleshot.training import from_yaml, train\n"
        "try:\n    train(from_yaml(sys.argv[1]), out=sys.argv[2], builder='tiny_detector:tiny')\n"
        "except KeyboardInterrupt as stop:\n    print(stop, file=sys.stderr)\n    sys.exit(130)\n"
    )
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", program, str(recipe), str(run)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the run does not get there"
        time.sleep(0.02)


def test_a_stopped_validation_is_made_again(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    train(recipe, out=tmp_path / "whole")
    original = validation.measure

    def measure(run: Run) -> dict[str, Any]:
        if run.progress.step == 12:
            signal.raise_signal(signal.SIGINT)
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "measure", measure)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(recipe, out=tmp_path / "parts")
    train(resume=tmp_path / "parts", builder=OWN)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("reader", "read"), [("loader.read_image", 9), ("frames.read_reduced", 7)])
def test_an_image_that_has_gone_ends_the_run_with_all_saved(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, reader: str, read: int
) -> None:
    recipe = make_recipe(schedule__steps=8, validation__every=0.5)
    train(recipe, out=tmp_path / "whole")
    where, _, function = reader.partition(".")
    module = importlib.import_module(f"singleshot.data.{where}")
    original, calls = getattr(module, function), [0]

    def gone(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == read:
            raise UserError("a.png: no such file")
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, gone)
        with pytest.raises(UserError, match=r"a\.png: no such file\. Everything is saved after step \d of 8: continue"):
            train(recipe, out=tmp_path / "parts")
    assert SavedState.read(tmp_path / "parts" / "state.safetensors").progress.step > 3
    train(resume=tmp_path / "parts", builder=OWN)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run(tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(make_recipe(schedule__steps=3), out=tmp_path / "run")
    before = result.last.read_bytes()
    capsys.readouterr()
    again = train(resume=tmp_path / "run", builder=OWN)
    assert "finished" in capsys.readouterr().err
    assert again == result
    assert again.last.read_bytes() == before


def test_a_longer_run_goes_on_and_says_so(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe(schedule__steps=3)
    train(recipe, out=tmp_path / "run")
    train(override(recipe, {"schedule.epochs": 1}), resume=tmp_path / "run")
    assert "schedule.epochs None -> 1.0" in capsys.readouterr().err
    assert SavedState.read(tmp_path / "run/state.safetensors").progress.step == 6


def test_a_length_in_images(tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(schedule__images=24, optimizer__accumulate=3)  # 2 images in a batch
    train(recipe, out=tmp_path / "run")
    assert SavedState.read(tmp_path / "run/state.safetensors").progress.step == 4
    train(override(recipe, {"schedule.images": 36}), resume=tmp_path / "run")
    assert "schedule.images 24 -> 36" in capsys.readouterr().err
    train(override(recipe, {"schedule.epochs": 4}), resume=tmp_path / "run")  # of 11 images
    assert SavedState.read(tmp_path / "run/state.safetensors").progress.step == 8


def test_a_best_of_another_metric_is_none(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("singleshot.training.validation.metric_value", lambda metrics, name: float(name == "coco.AP50"))
    recipe = make_recipe(schedule__epochs=1, validation__metric="coco.AP50", validation__patience=2)
    train(recipe, out=tmp_path / "run")
    state = tmp_path / "run/state.safetensors"
    assert SavedState.read(state).progress.best == 1.0
    other = override(recipe, {"validation.metric": "coco.AP", "schedule.epochs": 4})
    train(other, resume=tmp_path / "run")
    progress = SavedState.read(state).progress
    assert (progress.best, progress.best_step) == (0.0, 12), "the first one by this metric"
    assert (progress.finished, progress.step) == (True, 24), "then two without a better one"
    train(override(other, {"schedule.epochs": 6}), resume=tmp_path / "run")
    assert SavedState.read(state).progress.step == 24
    train(override(other, {"schedule.epochs": 6, "validation.patience": None}), resume=tmp_path / "run")
    assert SavedState.read(state).progress.step == 36


def test_adam_counts_its_steps_where_the_parameters_are() -> None:
    """The fused optimiser wants them there. "meta" stands for a device that is not the CPU."""
    layer = torch.nn.Linear(2, 1, bias=False, device="meta")
    optimizer = torch.optim.AdamW([{"params": [layer.weight], "names": ["weight"]}])
    tensors = {f"optimizer.{key}.weight": torch.zeros(1, 2) for key in ("exp_avg", "exp_avg_sq")}
    tensors |= {"optimizer.step.weight": torch.tensor(3.0), "model.weight": torch.zeros(1, 2)}
    SavedState(Path("state"), Progress(), tensors).restore(layer, optimizer, None)
    assert {key: value.device.type for key, value in optimizer.state[layer.weight].items()} == {
        "exp_avg": "meta", "exp_avg_sq": "meta", "step": "meta",
    }  # fmt: skip


def test_another_architecture_is_refused_beside_a_file_too(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    first = train(make_recipe(schedule__steps=1), out=tmp_path / "first")
    recipe = make_recipe(schedule__steps=1, start_from=str(first.last), start="file", defaults={"vote": 0.05})
    run = train(recipe, out=tmp_path / "run").run
    train(override(recipe, {"schedule.steps": 2}), resume=run)
    settled = override(from_yaml(run / "recipe.yaml"), {"builder": OWN})
    train(override(settled, {"schedule.steps": 3}), resume=run)
    with pytest.raises(UserError, match=r"arguments\.dropout 0\.2 -> 0\.1"):
        train(override(settled, {"arguments.dropout": 0.1}), resume=run)


def test_a_run_decides_no_more_than_a_recipe_which_code_runs(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    run = train(make_recipe(schedule__steps=1), out=tmp_path / "run").run
    for recipe in (None, from_yaml(run / "recipe.yaml"), override(from_yaml(run / "recipe.yaml"), {"log.every": 3})):
        with pytest.raises(UserError, match="which code runs: name it yourself too, with --builder tiny_detector:tiny"):
            train(recipe, resume=run)
    assert main(["train", "--resume", str(run)]) == 2
    assert main(["train", "--resume", str(run), "--builder", OWN, "--schedule.steps", "2"]) == 0
    with pytest.raises(UserError, match=r"builder tiny_detector:tiny -> tiny_detector:other"):
        train(resume=run, builder="tiny_detector:other")


def test_another_recipe_is_refused(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__steps=3)
    train(recipe, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"optimizer\.lr 0\.01 -> 0\.5"):
        train(override(recipe, {"optimizer.lr": 0.5}), resume=tmp_path / "run")


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: there is no folder of this name; give --resume the folder of a run"):
        train(resume=tmp_path / "none", builder=OWN)
    with pytest.raises(UserError, match=r"this folder has no recipe\.yaml, so it is not a run folder; give --resume"):
        train(resume=tmp_path, builder=OWN)
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(UserError, match="nothing to resume"):
        train(resume=tmp_path, builder=OWN)
    (tmp_path / "state.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="this file is not the state of a run"):
        train(resume=tmp_path, builder=OWN)


def test_one_process_at_a_time(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(schedule__steps=3)
    folder = train(recipe, out=tmp_path / "run").run
    longer = override(recipe, {"schedule.steps": 5})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with RunFolder(folder).alone():
        held = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(UserError, match=r"run: another process is training in this run folder"):
            train(longer, resume=folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == held
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # the lock leaves nothing
    train(longer, resume=folder)
    assert SavedState.read(folder / "state.safetensors").progress.step == 5


def test_a_disk_without_locks(tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert train(make_recipe(schedule__steps=2), out=tmp_path / "run").last.exists()
