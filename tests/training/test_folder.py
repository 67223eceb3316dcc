"""The run folder: who may begin in it, what a killed process leaves, damaged logs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from singleshot import files
from singleshot.errors import UserError
from singleshot.training import to_yaml, train
from singleshot.training.folder import RunFolder
from singleshot.training.log_lines import read_log
from singleshot.training.recipe import Recipe
from singleshot.training.state import SavedState

MakeRecipe = Callable[..., Recipe]
LINE = '{"kind": "step", "step": 1, "epoch": 0.5, "losses": {"box": 1.0}}\n'


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """What a run leaves that was killed before its first state."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "recipe.yaml").write_text(to_yaml(Recipe(name="before")))
    (path / "log.jsonl").write_text('{"kind": "start", "step": 0, "total": 9}\n' + LINE + LINE[:20])
    (path / ".lock").touch()
    for name in (".state.safetensors.a1b2c3d4", ".diverged-3-0.safetensors._2345678", ".recipe.yaml.abcdefgh"):
        (path / name).write_bytes(b"half")
    return path


def test_a_run_begins_where_one_was_killed_before_its_first_state(
    begun: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(schedule__steps=2), out=begun)
    assert "stopped before its state was first saved; this one begins in its place" in capsys.readouterr().err
    names = {"recipe.yaml", "log.jsonl", "best.safetensors", "last.safetensors", "state.safetensors"}
    assert set(os.listdir(begun)) == names
    kinds = [line.entry["kind"] for line in read_log(begun / "log.jsonl")]
    assert kinds == ["start", "step", "validation"]


@pytest.mark.parametrize("name", ["last.safetensors", "state.safetensors", "notes.txt", ".state.safetensors.short"])
def test_nothing_else_is_begun_anew(begun: Path, name: str) -> None:
    RunFolder.must_be_new(begun)
    (begun / name).write_text("")
    with pytest.raises(UserError, match=r"never overwritten; choose another --out") as error:
        RunFolder.must_be_new(begun)
    assert ("--resume" in str(error.value)) == name.startswith("state")


def test_what_continues_a_run_names_a_builder_of_ones_own(tmp_path: Path) -> None:
    """No file decides which code runs, so without the flag the command would be refused."""
    run = tmp_path / "a run"
    run.mkdir()
    folder = RunFolder(run)
    assert folder.to_resume == f"singleshot train --resume '{run}'"  # nothing is known of its recipe
    folder.recipe.write_text(to_yaml(Recipe(name="mine", builder="my_lab.models:mine")))
    assert folder.to_resume == f"singleshot train --resume '{run}' --builder my_lab.models:mine"
    with pytest.raises(UserError, match=r"Start it again with `.* --builder my_lab.models:mine --out '.*/a run'`"):
        RunFolder.existing(run)
    folder.recipe.write_text(to_yaml(Recipe(builder="ssd")))
    assert folder.to_resume == f"singleshot train --resume '{run}'"


def test_a_recipe_that_somebody_wrote_is_kept(begun: Path) -> None:
    with (begun / "recipe.yaml").open("a") as file:
        file.write("# what I tried\n")
    with pytest.raises(UserError, match="never overwritten"):
        RunFolder.must_be_new(begun)


def test_a_run_that_began_meanwhile_is_not_taken_over(begun: Path) -> None:
    folder = RunFolder(begun)
    with folder.alone(), pytest.raises(UserError, match="another process is training"), folder.alone():
        pass
    (begun / "state.safetensors").touch()
    with folder.alone(), pytest.raises(UserError, match="never overwritten"):
        folder.begin()


def test_nothing_to_resume_says_how_to_start_again(begun: Path) -> None:
    with pytest.raises(UserError, match=rf"--recipe {begun}/recipe.yaml --out {begun}`"):
        RunFolder.existing(begun)
    (begun / "last.safetensors").touch()
    with pytest.raises(UserError, match=rf"--recipe {begun}/recipe.yaml`; --from {begun}/last.safetensors takes"):
        RunFolder.existing(begun)


def test_leftovers_are_removed_and_nothing_else(begun: Path) -> None:
    target = begun.parent / "target"
    target.touch()
    (begun / ".last.safetensors.aaaaaaaa").symlink_to(target)
    (begun / ".best.safetensors.aaaaaaaa").mkdir()
    kept = {"recipe.yaml", "log.jsonl", ".last.safetensors.aaaaaaaa", ".best.safetensors.aaaaaaaa"}
    with RunFolder(begun).alone():
        assert set(os.listdir(begun)) == kept | {".lock"}
    assert set(os.listdir(begun)) == kept


@pytest.mark.skipif(os.name != "posix", reason="kinds of files that Windows has not")
@pytest.mark.parametrize("kind", ["folder", "fifo", "loop", "link"])
def test_a_lock_that_is_no_file(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".lock"
    if kind == "folder":
        lock.mkdir()
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to(lock if kind == "loop" else tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"\.lock: this must be a file, but it is a folder, a link or a device"):
        RunFolder(tmp_path).alone().__enter__()
    assert not (tmp_path / "elsewhere").exists()


# --------------------------------------------------------------------------------------------------------------- disk
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks for the name of an open file")
@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("recipe.yaml", 1, errno.ENOSPC),
        ("last.safetensors", 1, errno.EIO),
        ("state.safetensors", 1, errno.ENOSPC),
        ("last.safetensors", 2, errno.ENOSPC),
        ("state.safetensors", 3, errno.EIO),
        ("best.safetensors", 1, errno.ENOSPC),
    ],
)
def test_a_failed_write_is_one_error_and_the_run_goes_on(
    tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int
) -> None:
    """The write fails when its bytes are to reach the disk."""
    original, seen = files.os.fsync, [0]

    def fsync(file: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{file}")).name.startswith(f".{name}."):
            seen[0] += 1
            if seen[0] == number:
                raise OSError(code, os.strerror(code))
        original(file)

    recipe, run = make_recipe(schedule__steps=2, log__save_every=1, data__val_split="none"), tmp_path / "run"
    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(UserError, match=rf"{name}: cannot be written \({os.strerror(code)}\)") as error:
        train(recipe, out=run)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    saved = (run / "state.safetensors").exists()
    assert ("train --resume" in str(error.value)) == saved
    result = train(recipe, resume=run) if saved else train(recipe, out=run)
    assert SavedState.read(result.run / "state.safetensors").progress.finished


# ---------------------------------------------------------------------------------------------------------------- log
WRONG = {
    "hello": "expected a line of JSON",
    "": "expected a line of JSON",
    "9" * 5000: "expected a line of JSON",
    "[" * 100_000: "expected a line of JSON",
    '{"message": "another program"}': "expected one of start, step, validation",
    "[1, 2]": "expected one of start, step, validation",
    '{"kind": "step", "step": NaN}': "step cannot be nan",
    '{"kind": "step", "step": -1}': "step cannot be -1",
    '{"kind": "step", "step": 1' + "0" * 400 + "}": "step cannot be 1000",
    '{"kind": "step", "step": 1, "epoch": 1e999}': "epoch cannot be inf",
    '{"kind": "step", "step": 1, "epoch": 1, "losses": {"box": NaN}}': "losses cannot be {'box': nan}",
    '{"kind": "start", "step": 1}': "total cannot be None",
    '{"kind": "validation", "step": 1, "epoch": 1, "metrics": {"coco": 3}}': "metrics cannot be {'coco': 3}",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_in_the_place_of_log_and_recipe(begun: Path) -> None:
    """Nothing waits for their writer."""
    (begun / "log.jsonl").unlink()
    os.mkfifo(begun / "log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl: this is a named pipe, but the log of a run is a file"):
        read_log(begun / "log.jsonl")
    (begun / "recipe.yaml").unlink()
    os.mkfifo(begun / "recipe.yaml")
    with pytest.raises(UserError, match="this folder already holds a run"):
        RunFolder.must_be_new(begun)


def test_lines_that_are_not_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(text.encode() for text in WRONG) + b"\n\xff\xfe\n" + LINE.encode() + LINE[:9].encode())
    *lines, undecodable, good, half = read_log(log)
    for line, problem in zip(lines, WRONG.values(), strict=True):
        assert line.problem.startswith(problem)
        assert not line.half
    assert undecodable.problem.startswith("expected a line of JSON")
    assert (good.problem, good.entry) == ("", json.loads(LINE))
    assert half.half
    assert half.problem


def test_a_damaged_log_does_not_stop_a_run(
    tmp_path: Path, make_recipe: MakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(make_recipe(schedule__steps=2), out=tmp_path / "run").run
    log = run / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole.replace("\n", "\nan answer\n", 1) + '{"kind": "st')
    train(make_recipe(schedule__steps=4), resume=run)
    assert "log.jsonl: damaged lines are taken out; line 2: expected a line of JSON" in capsys.readouterr().err
    assert log.read_text().startswith(whole)
    assert not any(line.problem for line in read_log(log))
