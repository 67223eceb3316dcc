"""A new idea is one file and one line of a table: the command line trains, measures and stores it by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_loss import ToyBrier
from toy_output import ToySize

from singleshot.cli import main
from singleshot.losses import CLASSIFICATION_LOSSES
from singleshot.outputs import OUTPUTS
from singleshot.weights.checkpoint import load, read_metadata

LINES = {"output": (OUTPUTS, "ToySize", "toy_output"), "loss": (CLASSIFICATION_LOSSES, "ToyBrier", "toy_loss")}
WORDS = [
    "--arguments.backbone",
    "mobilenetv2",
    "--arguments.image_size",
    "64",
    "--arguments.channels",
    "32",
    "--arguments.tower_norm",
    "null",
    "--schedule.epochs",
    "null",
    "--schedule.steps",
    "1",
    "--batch-size",
    "2",
    "--data.workers",
    "0",
    "--seed",
    "0",
    "--device",
    "cpu",
    "--json",
]


def register(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        table, part, module = LINES[name]
        monkeypatch.setitem(table, part, module)


def trained(data: Path, folder: Path, *words: str) -> int:
    return main(["train", str(data), "--builder", "retinanet", *words, *WORDS, "--out", str(folder)])


def test_by_argument_from_training_to_loading(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, "output", "loss")
    chosen = ["--arguments.classification", "{type: ToyBrier, prior: 0.2}"]
    chosen += ["--arguments.outputs", "[{type: ToySize, largest: 4000.0}, Centreness]"]
    assert trained(tiny_voc, tmp_path / "run", *chosen) == 0, capsys.readouterr().err
    path = json.loads(capsys.readouterr().out)["last"]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (losses,) = [line["losses"] for line in logged if "losses" in line]
    assert losses.keys() == {"classification", "box", "size", "centreness"}
    assert all(value > 0 for value in losses.values())

    arguments: Any = read_metadata(path)["arguments"]
    assert "ToyBrier" in json.dumps(arguments)
    detector = load(path)
    assert detector.criterion.terms["classification"] == ToyBrier(prior=0.2)
    assert detector.criterion.terms["size"] == ToySize(4000.0)
    assert detector.network(torch.zeros(1, 3, 64, 64))["size_logits"].shape[-1] == 1

    words = ["evaluate", path, str(tiny_voc), "--device", "cpu", "--json"]
    assert main(words) == 0, capsys.readouterr().err
    assert "coco" in json.loads(capsys.readouterr().out)
    assert main([*words, "--sweep", "centreness_alpha=product,1,0.5"]) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out)
    assert [one["centreness_alpha"] for one in document["results"]] == ["product", 1, 0.5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arguments.classification", "{type: ToyBrier}"], "unknown part 'ToyBrier'"),
        (["--arguments.outputs", "[ToySize]"], "unknown output 'ToySize'"),
    ],
)
def test_without_its_line_it_is_unknown(
    words: list[str], said: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(tiny_voc, tmp_path / "run", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.safetensors").exists()
