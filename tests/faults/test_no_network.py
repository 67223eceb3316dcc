"""No verb opens a connection: each runs where the kernel ends a process that asks for an internet socket."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import platform
import shutil
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.forking import in_child

from singleshot import backbones
from singleshot.cli import main, verbs
from singleshot.training.recipe import Recipe, to_yaml

# The number of the system call `socket`.
_SOCKET = {"x86_64": 41, "aarch64": 198}.get(platform.machine())

pytestmark = pytest.mark.skipif(sys.platform != "linux" or _SOCKET is None, reason="the filter is one of Linux")

_LENGTHS = ["--schedule.steps", "1", "--arguments.image_size", "64", "--arguments.backbone", "mobilenetv2"]
WORDS: dict[str, list[str]] = {
    "demo": ["--out", "OUT/demo"],
    "train": ["DATA", "--out", "OUT/run", "--data.workers", "0", "--batch-size", "2", *_LENGTHS],
    "evaluate": ["MODEL", "DATA"],
    "detect": ["MODEL", "IMAGE", "--out", "OUT/found"],
    "data check": ["DATA"],
    "data show": ["DATA", "--out", "OUT/sheet.png"],
    "data formats": [],
    "data split": ["UNDIVIDED"],
    "analyse errors": ["MODEL", "DATA", "--out", "OUT/errors"],
    "analyse loss": ["MODEL", "DATA"],
    "analyse iou": ["MODEL", "DATA"],
    "analyse run": ["RUN"],
    "import": [
        "WEIGHTS",
        "--as",
        "mobilenetv2",
        "--arguments.backbone_options",
        "{width: 0.25}",
        "--out",
        "OUT/a.safetensors",
    ],
    "download": [],
    "models": ["--json"],
    "recipes": ["finetune"],
}
SLOW = {"demo", "models"}


def test_every_verb_is_here() -> None:
    assert set(WORDS) == set(verbs())


def forbid_sockets() -> None:
    """From now on the kernel kills this process when it, or a library in C or Rust, asks for an internet socket."""
    load, equal, end = 0x20, 0x15, 0x06  # of a word, compared with a constant, with a verdict
    rules = [
        (load, 0, 0, 0),  # the number of the system call
        (equal, 0, 4, _SOCKET),
        (load, 0, 0, 16),  # its first argument, the family
        (equal, 1, 0, socket.AF_INET),
        (equal, 0, 1, socket.AF_INET6),
        (end, 0, 0, 0x80000000),  # kill
        (end, 0, 0, 0x7FFF0000),  # allow
    ]
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    text = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]

    program = Program(len(rules), ctypes.addressof(text))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter")


def answer(words: list[str]) -> list[Any]:
    """The exit code of a command without sockets, and what it said."""
    forbid_sockets()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        return [main(words), said.getvalue()]


@pytest.fixture
def places(tiny_voc: Path, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """What the words in capitals stand for."""
    run = tmp_path / "a_run"
    run.mkdir()
    step = {"kind": "step", "epoch": 0.1, "rate": 0.1, "loss": 1.0, "losses": {"box": 1.0}, "time": 1.0}
    lines = [json.dumps({**step, "step": number}) for number in (10, 20)]
    (run / "log.jsonl").write_text("\n".join(lines) + "\n")
    (run / "recipe.yaml").write_text(to_yaml(Recipe()))
    lists = shutil.copytree(tiny_voc, tmp_path / "undivided") / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "all.txt")
    (lists / "val.txt").unlink()
    weights = tmp_path / "weights.pth"
    torch.save(backbones.build("mobilenetv2", options={"width": 0.25}).state_dict(), weights)
    found = {
        "DATA": tiny_voc,
        "UNDIVIDED": tmp_path / "undivided",
        "MODEL": tiny_model,
        "OUT": tmp_path,
        "RUN": run,
        "WEIGHTS": weights,
    }
    return {name: str(path) for name, path in found.items()} | {"IMAGE": str(tiny_voc / "JPEGImages" / "a.jpg")}


def test_the_filter_ends_what_asks_for_a_socket() -> None:
    if in_child(forbid_sockets) is not None:
        pytest.skip("this system allows no filter")

    def asks() -> None:
        forbid_sockets()
        socket.socketpair()[0].close()  # within the machine: processes of one loader talk like this
        socket.socket(socket.AF_INET)

    with pytest.raises(AssertionError, match="SIGSYS"):
        in_child(asks)


@pytest.mark.parametrize("verb", [pytest.param(v, marks=[pytest.mark.slow] if v in SLOW else []) for v in WORDS])
def test_no_verb_opens_a_connection(verb: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if in_child(forbid_sockets) is not None:
        pytest.skip("this system allows no filter")
    from singleshot import demo

    monkeypatch.setattr(demo, "run_demo", partial(demo.run_demo, images=(4, 2), steps=1))
    monkeypatch.chdir(places["OUT"])
    words = [*verb.split()]
    for word in WORDS[verb]:
        first, slash, rest = word.partition("/")
        words.append(os.path.join(places[first], rest) if slash else places.get(word, word))
    code, said = in_child(partial(answer, words), seconds=300)
    assert code == 0, said
