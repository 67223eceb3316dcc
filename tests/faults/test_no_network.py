"""No verb opens a connection: each runs where the kernel ends a process that asks for an internet socket."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_files import WRITE, need, small_spec
from faults.forking import in_child
from faults.sockets import SOCKET, forbid_sockets

from singleshot import backbones
from singleshot.cli import main, verbs
from singleshot.training.recipe import Recipe, to_yaml

pytestmark = pytest.mark.skipif(sys.platform != "linux" or SOCKET is None, reason="the filter is one of Linux")

_LENGTHS = ["--schedule.steps", "1", "--arguments.image_size", "64", "--arguments.backbone", "mobilenetv2"]
WORDS: dict[str, list[str]] = {
    "demo": ["--out", "OUT/demo"],
    "train": ["DATA", "--out", "OUT/run", "--data.workers", "0", "--batch-size", "2", *_LENGTHS],
    "evaluate": ["MODEL", "DATA"],
    "detect": ["MODEL", "IMAGE", "--out", "OUT/found"],
    "benchmark": ["MODEL", "--rounds", "1", "--engine", "torch", "--precision", "fp32", "--image", "IMAGE"],
    "export": ["MODEL", "--out", "OUT/model.onnx"],
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
SLOW = {"demo", "export", "models"}


def test_every_verb_is_here() -> None:
    assert set(WORDS) == set(verbs())


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


WITHOUT = """
import sys
from faults.sockets import forbid_sockets
forbid_sockets()
from singleshot.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_sockets(words: list[str], folder: Path) -> None:
    """Run a command in a process of its own. Where `CI` is set, ONNX Runtime is silent by itself; so it is not set."""
    if in_child(forbid_sockets) is not None:
        pytest.skip("this system allows no filter")
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    variables["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    variables["SINGLESHOT_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-c", WITHOUT, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", WRITE)
def test_no_engine_opens_a_connection(suffix: str, tiny_voc: Path, tmp_path: Path) -> None:
    model = WRITE[suffix](tmp_path / f"model{suffix}", small_spec())
    run_without_sockets(["detect", str(model), str(tiny_voc / "JPEGImages" / "a.jpg")], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_conversion_opens_a_connection(engine: str, tiny_model: Path, tiny_voc: Path, tmp_path: Path) -> None:
    need("onnxscript")
    need(engine)
    words = ["detect", str(tiny_model), str(tiny_voc / "JPEGImages" / "a.jpg"), "--engine", engine]
    run_without_sockets(words, tmp_path)
