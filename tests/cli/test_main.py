"""Exit codes and streams, which are the same for every verb."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from singleshot.cli import ELSEWHERE, elsewhere, main, models, verbs
from singleshot.cli.output import Result
from singleshot.errors import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Result]], None]:
    """Puts a function in the place of what `singleshot models` does."""

    def put(act: Callable[[], Result]) -> None:
        monkeypatch.setattr(models, "run", lambda options: act())

    return put


def raising(error: BaseException) -> Callable[[], Result]:
    def act() -> Result:
        raise error

    return act


def test_success(verb: Any, capsys: Capture) -> None:
    verb(lambda: Result([1], "one"))
    assert main(["models"]) == 0
    assert capsys.readouterr() == ("one\n", "")


def test_json_is_all_there_is_on_stdout(verb: Any, capsys: Capture) -> None:
    def act() -> Result:
        print("a library prints")
        return Result({"AP": float("nan"), "name": "Käfer"}, "text")

    verb(act)
    assert main(["models", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"AP": None, "name": "Käfer"}
    assert err == "a library prints\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_the_reader_has_no_letters_for(encoding: str, verb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows writes cp1252 into a pipe; some file names are no text at all."""
    names = ["Käfer", "猫", "🐈", "caf\udce9"]
    verb(lambda: Result(names, " ".join(names)))
    for words in (["models"], ["models", "--json"]):
        written = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
        assert main(words) == 0
        text = written.getvalue().decode(encoding)
        if words[1:]:
            assert json.loads(text) == names
        else:
            assert text.split() == [name.encode(encoding, "backslashreplace").decode(encoding) for name in names]


def test_one_of_several_processes_speaks(verb: Any, capsys: Capture) -> None:
    verb(lambda: Result([1], "one", silent=True))
    assert main(["models", "--json"]) == 0
    assert capsys.readouterr() == ("", "")


def test_an_outcome_that_is_a_fault(verb: Any, capsys: Capture) -> None:
    verb(lambda: Result([1], "one", fault="mend it"))
    assert main(["models", "--json"]) == 2
    assert capsys.readouterr() == ("[\n  1\n]\n", "singleshot: mend it\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("boxes must be xyxy"), "boxes must be xyxy"),
        (FileNotFoundError(errno.ENOENT, "No such file", "there.jpg"), "there.jpg: no such file or folder"),
        (OSError(errno.ENOSPC, "No space left on device", "run/last"), "run/last: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: no permission"),
    ],
)
def test_user_error(error: Exception, said: str, verb: Any, capsys: Capture) -> None:
    verb(raising(error))
    assert main(["models", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"singleshot: {said}")
    assert "Traceback" not in err


def test_bug(verb: Any, capsys: Capture) -> None:
    verb(raising(KeyError("x")))
    assert main(["models"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err


def test_plain_value_error_is_a_bug(verb: Any) -> None:
    verb(raising(ValueError("not the user's")))
    assert main(["models"]) == 1


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt(), "interrupted"), (KeyboardInterrupt("resume so"), "resume so")]
)
def test_interrupted(error: BaseException, said: str, verb: Any, capsys: Capture) -> None:
    verb(raising(error))
    assert main(["models"]) == 130
    assert capsys.readouterr() == ("", f"\n{said}\n")


def test_no_verb(capsys: Capture) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(verb in err for verb in verbs())


@pytest.mark.parametrize("words", [["tran", "x"], ["--json"], ["Train"]])
def test_unknown_verb(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words[0] in err
    assert all(verb in err for verb in verbs())


def test_what_other_tools_call_a_verb(capsys: Capture) -> None:
    assert set(verbs()) >= set(ELSEWHERE.values())
    assert not set(verbs()) & set(ELSEWHERE)
    assert main(["predict", "model.safetensors"]) == 2
    assert "'predict' is not a verb (did you mean 'detect'?)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["data"], ["data", "chek"], ["data", "--json"]])
def test_unknown_second_word(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    assert "check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["models", "--jsno"], "'--jsno' is not expected here (did you mean '--json'?)"),
        (["models", "extra"], "'extra' is not expected here"),
        (["demo", "--seed", "x"], "--seed: expected a whole number, 0 or more, got 'x'"),
        (["demo", "--seed", "-1"], "--seed: expected a whole number, 0 or more, got '-1'"),
        (["demo", "--out"], "--out: expected one argument"),
        (["detect"], "the following arguments are required: model, sources"),
        (["detect", "m", "i", "--threshold", "1.5"], "--threshold: expected a number from 0 to 1, got '1.5'"),
        (["train", "d", "--epochs", "0"], "--epochs: expected a number above 0, got '0'"),
        (["train", "d", "--device", "tpu"], "--device: expected cpu, cuda, cuda:N or mps, got 'tpu'"),
        (["train", "d", "--optimizer.lr"], "--optimizer.lr needs a value"),
        (["train", "d", "--imgsz", "640"], "'--imgsz' is called --arguments.image_size here"),
        (["train", "d", "--img_size=640"], "'--img_size' is called --arguments.image_size here"),
        (["train", "d", "--lr0", "0.1"], "'--lr0' is called --optimizer.lr here"),
        (["evaluate", "m"], "the following arguments are required: data"),
        (["evaluate", "--detections", "f"], "the following arguments are required: data"),
        (["data", "check", "d", "--format", "yolo"], "--format: invalid choice: 'yolo'"),
    ],
)
def test_bad_arguments(words: list[str], said: str, capsys: Capture) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"singleshot: {said}")
    assert "--help` lists all arguments" in err or "needs a value" in err


def test_reader_that_leaves() -> None:
    """`singleshot --help | true`: no traceback, nothing on stderr."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "singleshot", "--help"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_standard_output_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "singleshot", "--help"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "singleshot: the disk is full: free some space, or choose another place\n"


@pytest.mark.parametrize(
    ("verb", "table"),
    [("detect", elsewhere.DETECT), ("evaluate", elsewhere.EVALUATE), ("analyse iou", elsewhere.MEASURE)],
)
def test_flags_of_other_tools_lead_to_ours(verb: str, table: dict[str, str], capsys: Capture) -> None:
    assert main([*verb.split(), "--help"]) == 0
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for word, own in table.items():
        assert word not in flags
        named = re.findall(r"--[a-z-]+", own)
        assert set(named) <= flags, own
        assert named or own.startswith(("MODEL", "DATA", "SOURCE"))
        assert main([*verb.split(), "m", "x", word, "1"]) == 2
        assert f"'{word}' is called {own} here" in capsys.readouterr().err


def test_a_group_of_verbs_alone(capsys: Capture, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for words, said in (
        (["data"], "'data' needs a second word, one of check, show, formats, split: `singleshot data check --help`"),
        (["data", "--json"], "'data' needs a second word"),
        (["data", "chek"], "'data chek' is not a verb (did you mean 'data check'?): 'data' is followed by one of"),
        (["data", "photos"], "'data photos' is not a verb (did you mean `singleshot data check photos`?)"),
        (["analyse"], "'analyse' needs a second word, one of errors"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
