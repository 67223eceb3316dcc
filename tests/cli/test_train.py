"""`singleshot train`: what the command line makes of the recipe, and what it says."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest

import singleshot as ss
from singleshot.cli import main, train
from singleshot.cli.train import ELSEWHERE, choose_recipe, parse
from singleshot.plain_data import to_plain
from singleshot.training.recipe import Recipe, from_yaml, to_yaml
from singleshot.training.resolve import resolve_start

Capture = pytest.CaptureFixture[str]
TINY = [
    "--arguments.backbone",
    "mobilenetv2",
    "--arguments.image_size",
    "64",
    "--data.workers",
    "0",
    "--batch-size",
    "2",
]


def recipe(*words: str) -> Recipe:
    return choose_recipe(parse(words))


def test_flags_are_fields() -> None:
    words = "my_data --format voc --split a --val-split b --skip-bad --epochs 2.5 --batch-size 3 --seed 4 --device cpu"
    found = recipe(*words.split(), "--allow-outside", "--builder", "x:y", "--backbone-weights", "w.safetensors")
    assert (found.data.path, found.data.format, found.data.split, found.data.val_split) == ("my_data", "voc", "a", "b")
    assert found.data.skip_bad
    assert found.data.allow_outside
    assert (found.schedule.epochs, found.batch_size, found.seed, found.compute.device) == (2.5, 3, 4, "cpu")
    assert found.builder == "x:y"
    assert recipe("my_data", "--minutes", "2.5").schedule.unit == "minutes"
    assert recipe("my_data", "--from", "m.safetensors").start_from == "m.safetensors"
    assert found.arguments["backbone_weights"] == "w.safetensors"
    for odd in ("/w/v2 #1.pth", "C:/x: y.pth", "[new] w.pth", "123", "null"):  # YAML would see something else
        assert recipe("d", "--backbone-weights", odd).arguments["backbone_weights"] == odd


def test_names_of_other_tools_lead_to_names_of_ours(capsys: Capture) -> None:
    assert main(["train", "--help"]) == 0
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    fields = {f"--{key}.{name}" for key, part in to_plain(Recipe()).items() if isinstance(part, dict) for name in part}
    builder = {f"--arguments.{name}" for name in inspect.signature(ss.ssd).parameters}
    for word, own in ELSEWHERE.items():
        assert word not in flags
        named = re.findall(r"--[\w.-]+", own)
        assert set(named) <= flags | fields | builder, own
        assert named or own.startswith("DATA")


def test_nothing_given_changes_nothing() -> None:
    from singleshot import recipes
    from singleshot.training.recipe import override

    assert recipe("my_data") == override(recipes.get("finetune"), {"data.path": "my_data"})
    assert recipe("my_data", "--recipe", "ssd300_voc07").name == "ssd300_voc07"


def test_overrides() -> None:
    found = recipe("d", "--optimizer.lr", "0.5", "--arguments.image_size=96", "--schedule.kind", "constant")
    assert (found.optimizer.lr, found.arguments["image_size"], found.schedule.kind) == (0.5, 96, "constant")


def test_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbatch_size: 5\noptimizer:\n  lr: 1e-4\n")
    found = recipe("d", "--recipe", str(path), "--seed", "3")
    assert (found.name, found.batch_size, found.optimizer.lr, found.seed) == ("mine", 5, 1e-4, 3)
    path.write_text(to_yaml(found))
    assert recipe("--recipe", str(path), "--seed", "0").seed == 0, "nothing is a number too"
    assert recipe("--recipe", str(path)) == found == from_yaml(path), "a saved recipe says it all"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "train needs DATA"),
        (["d", "--optimizer.lrr", "1"], "did you mean lr"),
        (["d", "--optimiser.lr", "1"], "optimizer"),
        (["d", "--optimizer.lr", "fast"], "optimizer.lr: expected a number, got 'fast'"),
        (["d", "--seed", "1", "--batch-size", "2", "--seed.x", "1"], "seed"),
        (["d", "--batch-size", "2", "--batch_size", "2"], "--batch-size and --batch_size are the same"),
        (["d", "--epochs", "2", "--schedule.epochs", "2"], "--epochs and --schedule.epochs are the same"),
        (["d", "--minutes", "0"], "expected a number above 0, got '0'"),
        (["d", "--batch-sise", "2"], "did you mean '--batch-size'?"),
        (["d", "--recipe", "ssd300_voc7"], "did you mean ssd300_voc07"),
        (["d", "--recipe", "none.yaml"], "none.yaml"),
        (["--resume", "none"], "none"),
        (["d", "--recipe", ""], "recipe"),
        (["d", "--backbone-weights", ""], "--backbone-weights is empty: give it a file"),
        (["--data", "d"], "DATA, the first word after train"),
        (["d", "--seed", "18446744073709551616"], "seed is 18446744073709551616; expected 0 or more, below 2**63"),
        (["d", "--batch_size", ".inf"], "batch_size, line 1: expected a finite number, got .inf"),
        (["~no-such-user/d"], "~no-such-user"),
        (["none"], "none: no such file or folder"),
        (["none", "--json"], "none: no such file or folder"),
    ],
)
def test_bad_input(
    words: list[str], said: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*")), "nothing is left behind"


def test_run_and_resume(tiny_voc: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", str(tiny_voc), "--schedule.steps", "2", "--json", *TINY]
    without_epochs = ["--recipe", str(_by_steps(tmp_path))]
    assert main([*words, *without_epochs]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["run", "best", "last", "metrics"]
    assert Path(document["run"]).resolve() == (tmp_path / "runs" / "steps-1").resolve()
    assert document["metrics"]["voc10"].keys() == {"mAP"}
    assert Path(document["best"]).is_file()
    assert Path(document["last"]).is_file()

    # The same command again is a new run; with --out into the old folder it is refused.
    assert main([*words, *without_epochs, "--out", document["run"]]) == 2
    assert "--resume" in capsys.readouterr().err

    # A finished run has nothing to go on with; another recipe is another run.
    assert main(["train", "--resume", document["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == document["run"]
    assert main([*words, *without_epochs, "--resume", document["run"]]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", document["run"], "--recipe", "ssd300_voc"]) == 2
    assert "start a new run for " in capsys.readouterr().err
    changed = _by_steps(tmp_path)
    changed.write_text(f"{changed.read_text()}\nema: {{decay: 0.5}}\n")
    assert main([*words, "--recipe", str(changed), "--resume", document["run"]]) == 2
    assert "ema.decay" in capsys.readouterr().err


def test_from_a_detector_of_other_classes(
    tiny_voc: Path, tiny_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map is said at the start and kept in the log; the network is that of the file, not that of the recipe."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_voc, tmp_path / "data")
    for path in (tmp_path / "data" / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<name>cell<", "<name>Cell<").replace("<name>other<", "<name>dust<"))
    words = ["train", "data", "--from", str(tiny_model), "--recipe", str(_by_steps(tmp_path)), "--schedule.steps", "1"]
    assert main([*words, "--val-split", "none", "--data.workers", "0", "--batch-size", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    said = f"from {tiny_model}: 1 of 2 classes found by name (Cell <- cell), 1 start at random (dust); "
    assert said in err
    start = json.loads((Path(json.loads(out)["run"]) / "log.jsonl").read_text().splitlines()[0])
    [note] = [note for note in start["notes"] if said in note]
    assert note.endswith(" in part, 0 new")
    assert "ssd at 64x64, 2 classes" in err


@pytest.mark.parametrize(
    ("words", "builder", "arguments"),
    [
        ("", "ssd", {"backbone": "mobilenetv2", "image_size": 64}),  # all as the file has it
        ("--arguments.image_size 96", "ssd", {"backbone": "mobilenetv2", "image_size": 96}),
        ("--builder ssd --arguments.iou_head true", "ssd",
         {"backbone": "mobilenetv2", "image_size": 64, "iou_head": True}),
        ("--builder retinanet --arguments.channels 32", "retinanet",
         {"backbone": "mobilenetv2", "image_size": 320, "channels": 32}),
        ("--recipe ssd300_voc --arguments.box_sizes coco", "ssd",
         {"backbone": "vgg16", "image_size": 300, "box_sizes": "coco"}),
    ],
)  # fmt: skip
def test_what_is_asked_for_beside_a_file_counts(
    words: str, builder: str, arguments: dict[str, object], tiny_model: Path
) -> None:
    found, source = resolve_start(recipe("my_data", "--from", str(tiny_model), *words.split()))
    assert source is not None
    assert found.builder == builder
    assert found.arguments == arguments


def test_misspelt_arguments_beside_a_file(tiny_voc: Path, tiny_model: Path, capsys: Capture) -> None:
    words = ["train", str(tiny_voc), "--from", str(tiny_model)]
    assert main([*words, "--arguments.image_seize", "64"]) == 2
    assert "ssd has no argument 'image_seize'; did you mean image_size?" in capsys.readouterr().err
    assert main([*words, "--backbone-weights", "nowhere.pth"]) == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert main(["train", str(tiny_voc), "--recipe", "ssd300_voc_from_coco"]) == 2
    assert "give its file with --from" in capsys.readouterr().err


def _by_steps(folder: Path) -> Path:
    path = folder / "steps.yaml"
    path.write_text("name: steps\nschedule:\n  kind: constant\n")
    return path


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def stopped(options: object) -> None:
        raise KeyboardInterrupt("saved; go on with: singleshot train --resume runs/x-1")

    monkeypatch.setattr(train, "run", stopped)
    assert main(["train", "d", "--json"]) == 130
    assert capsys.readouterr() == ("", "\nsaved; go on with: singleshot train --resume runs/x-1\n")


def test_a_recipe_imports_no_code(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file must not decide which code runs; the user's own flag may."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil_lab.py").write_text("open('imported', 'w').close()\n")
    Path("base.yaml").write_text("builder: evil_lab:build\n")
    Path("mine.yaml").write_text("recipe: base.yaml\nschedule: {steps: 1}\n")
    for words in (["train"], ["data", "show", "--out", "x.png"], ["train", "--seed", "2", "--arguments.a", "1"]):
        assert main([*words, str(tiny_voc), "--recipe", "mine.yaml"]) == 2
        assert "which code runs: name it yourself too, with --builder evil_lab:build" in capsys.readouterr().err
        assert not Path("imported").exists()
        assert not Path("runs").exists()
    assert main(["recipes", "mine.yaml"]) == 0
    assert "builder: evil_lab:build" in capsys.readouterr().out
    assert main(["train", str(tiny_voc), "--recipe", "mine.yaml", "--builder", "evil_lab:build"]) == 2
    assert "builder 'evil_lab:build' cannot be imported: module 'evil_lab' has no attribute" in capsys.readouterr().err
    assert Path("imported").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "..", '"a\\0b"'])
def test_a_recipe_that_names_no_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: {name}\n")
    assert main(["train", str(tmp_path), "--recipe", str(tmp_path / "mine.yaml")]) == 2
    assert "name" in capsys.readouterr().err
    assert not Path("runs").exists()
