"""`singleshot import`: what a file was, what became of it, and what is refused with nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from singleshot.backbones import BACKBONES, build
from singleshot.catalogue import download
from singleshot.cli import main
from singleshot.cli.import_ import _usual_backbone
from singleshot.detectors import ssd
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.preprocess import Pixels
from singleshot.weights import bring, checkpoint
from singleshot.weights.importers import IMPORTERS, import_weights


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "toy", "toy_importer")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of the toys' project, in a training program's file."""
    torch.manual_seed(0)
    state = ssd(num_classes=2, backbone="mobilenetv2", image_size=64).state_dict()
    weights = {f"toy/{key.replace('.', '/')}": value for key, value in state.items()}
    path = tmp_path_factory.mktemp("toy") / "epoch 1.pth"
    torch.save({"state_dict": {**weights, "toy/optimizer/step": torch.zeros(1)}, "ema": weights}, path)
    return path


def run(*words: str | Path) -> int:
    return main(["import", *map(str, words)])


def test_a_detector(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, out = tmp_path / "names.txt", tmp_path / "new" / "my model.safetensors"
    names.write_text("background\ncat\n\ndog\n")
    assert (
        run(toy, "--out", out, "--classes", names, "--arguments.threshold", "0.2", "--arguments.pixels", "caffe_bgr")
        == 0
    )
    said = capsys.readouterr().out
    for line in (
        "recognised:  the toys' SSD (layout toy)",
        "built:       ssd on mobilenetv2, 64x64 pixels",
        "classes:     2: cat, dog\n",
        "pixels:      caffe_bgr",
        "not needed:  1 tensor of the file: toy/optimizer/step",
        "not used:    second weights in the file (ema)",
        f"next:        singleshot detect '{out}' PHOTO",
        f"singleshot train DATA --from '{out}'",
    ):
        assert line in said
    detector = checkpoint.load(out)
    assert detector.class_names == ("cat", "dog")
    assert detector.arguments["threshold"] == 0.2
    assert detector.preprocess.pixels == Pixels.named("caffe_bgr")
    before = out.read_bytes()
    assert run(toy, "--out", out) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_json(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "coco.json").write_text('{"categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}]}')
    out = tmp_path / "a.safetensors"
    assert run(toy, "--out", out, "--classes", tmp_path / "coco.json", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layout"] == "toy"
    assert (document["class_names"], document["category_ids"]) == (["cat", "dog"], [4, 9])
    assert document["out"] == str(out)
    assert document["bytes"] == out.stat().st_size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--as", "retinanet"], "these are weights of the toys' SSD, a ssd, and not of retinanet"),
        (["--as", "sssd"], "'sssd' is no detector and no backbone; did you mean ssd"),
        (["--as", "resnet18"], "do not fit this ResNet"),
        (["--layout", "toi"], "did you mean toy"),
        (["--optimizer.lr", "1"], "arguments of the builder are --arguments.NAME"),
        (["--arguments.imagesize", "300"], "did you mean image_size"),
        (["--classes", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--names", "x"], "'--names' is called --classes here"),
    ],
)
def test_what_is_refused(
    toy: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with without_values():
        assert run(toy, "--out", tmp_path / "a.safetensors", *words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"cat\ndog\nbird\n", "names.txt", "have 2 classes, but 3 names were given"),
        (b"\xff\xfe", "names.txt", "expected text, one name"),
        (b"", "names.txt", "is empty"),
        (b'{"categories": [3]}', "coco.json", "expected COCO's JSON"),
        (b"[" * 100_000, "coco.json", "expected COCO's JSON"),
    ],
)
def test_names_that_do_not_fit(
    toy: Path, content: bytes, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(toy, "--out", tmp_path / "a.safetensors", "--classes", tmp_path / name) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


def test_other_endings_and_own_files(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(toy, "--out", tmp_path / "a.pth") == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    path = tmp_path / "own.safetensors"
    checkpoint.save(ssd(num_classes=2, backbone="mobilenetv2", backbone_options={"width": 0.25}, image_size=64), path)
    assert run(path, "--out", tmp_path / "b.safetensors") == 2
    assert "is a detector of this package already" in capsys.readouterr().err
    monkeypatch.setattr(bring, "BACKBONES", {"mobilenetv2": BACKBONES["mobilenetv2"]})
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert run(tmp_path / "x.safetensors", "--out", tmp_path / "b.safetensors") == 2
    assert "these weights have no known layout" in capsys.readouterr().err


TRUNKS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("resnet18", {}, []),
    ("mobilenetv2", {"width": 0.25}, ["--arguments.backbone_options", "{width: 0.25}"]),
]


@pytest.mark.parametrize(("name", "options", "words"), TRUNKS)
def test_a_backbone(
    name: str, options: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    trunk = build(name, options=options)
    state = {f"module.{key}": value for key, value in trunk.state_dict().items()}
    torch.save({"model": {**state, "module.fc.weight": torch.zeros(2, 512)}}, tmp_path / "a.pth")
    out = tmp_path / "a.safetensors"
    assert run(tmp_path / "a.pth", "--out", out, "--arguments.pixels", "caffe_bgr", *words) == 0
    said = capsys.readouterr().out
    assert f"the backbone {name}" in said
    needed = f" --arguments.backbone_options '{json.dumps(options)}'" if options else ""
    assert f"--arguments.backbone {name}{needed} --backbone-weights {out}" in said
    again = build(name, options=options, weights=out)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in trunk.state_dict().items())
    assert (again.pixels, again.pixels_told) == ("caffe_bgr", True)
    with safe_open(out, "pt") as file:
        assert file.metadata()["backbone"] == name
    assert run(tmp_path / "a.pth", "--out", tmp_path / "b.safetensors", "--arguments.nms", "0.5", *words) == 2
    assert "which takes no arguments.nms" in capsys.readouterr().err


def test_other_verbs_say_what_to_type(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(toy), "photo.jpg"]) == 2
    assert f"singleshot import '{toy}' --out NAME.safetensors" in capsys.readouterr().err


def test_a_backbone_is_not_used_with_other_options(tmp_path: Path) -> None:
    """The same tensors with other padding would be another network, and nothing would show it."""
    foreign, out = tmp_path / "tensorflow.pth", tmp_path / "trunk.safetensors"
    torch.save(build("mobilenetv2", options={"width": 0.25}).state_dict(), foreign)
    options = "--arguments.backbone_options", "{width: 0.25, padding: same}"
    assert run(foreign, "--as", "mobilenetv2", *options, "--out", out) == 0
    with pytest.raises(UserError, match=r"other options: give --arguments.backbone_options '{width: 0.25, padding: .s"):
        build("mobilenetv2", weights=out, options={"width": 0.25})
    build("mobilenetv2", weights=out, options={"width": 0.25, "padding": "same", "expanded": False})


def test_our_warnings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where in our code it was noticed says nothing to a user."""
    foreign = tmp_path / "weights.pth"
    weights = build("resnet18").state_dict()
    torch.save({"res2a_branch2a.weight": torch.zeros(1), **weights}, foreign)
    run(foreign, "--as", "resnet18", "--out", tmp_path / "x.safetensors")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Caffe's weights" in line]
    assert line.startswith("warning: these are Caffe's weights")


def test_photographs_give_norms_their_statistics(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained detector has no statistics, as weights whose norms were folded into the convolutions."""
    for number in range(2):
        Image.new("RGB", (64, 64), (90 * number, 50, 120)).save(tmp_path / f"{number}.png")
    assert run(toy, "--out", tmp_path / "a.safetensors") == 0
    assert "to train it give photographs with --photos DIR" in capsys.readouterr().out
    assert run(toy, "--out", tmp_path / "b.safetensors", "--photos", tmp_path) == 0
    assert "with the statistics of 2 photographs" in capsys.readouterr().out
    norms = checkpoint.load(tmp_path / "b.safetensors").get_submodule("backbone.backbone.features.0.1")
    assert torch.as_tensor(norms.running_mean).any()
    assert run(toy, "--out", tmp_path / "c.safetensors", "--photos", tmp_path / "nowhere") == 2
    assert not (tmp_path / "c.safetensors").exists()


def test_a_backbone_is_no_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "trunk.safetensors", tmp_path / "out.safetensors"
    save_file({key: value.contiguous() for key, value in build("resnet18").state_dict().items()}, source)
    assert run(source, "--as", "retinanet_r50", "--out", out) == 2
    said = capsys.readouterr().err
    assert "weights of the backbone resnet18 alone, and not of a detector retinanet_r50; without --as" in said
    save_file({"unknown": torch.zeros(1)}, source)
    assert run(source, "--out", out) == 2
    assert "docs/how_to/your_old_weights.md says what loads" in capsys.readouterr().err
    assert not out.exists()


def test_a_list_of_names_and_the_usual_backbone(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.json").write_text('["cat", "dog"]')
    assert run(toy, "--out", tmp_path / "a.safetensors", "--classes", tmp_path / "names.json") == 0
    assert "classes:     2: cat, dog\n" in capsys.readouterr().out
    assert [_usual_backbone(name) for name in ("ssd", "retinanet", None)] == ["vgg16", "resnet50", None]


@pytest.mark.parametrize("ending", [".tflite", ".caffemodel"])
def test_a_foreign_file_as_backbone_weights(ending: str, tmp_path: Path) -> None:
    """Its bytes say nothing to the reader of PyTorch's files, and its user can do one thing."""
    path = tmp_path / f"my model{ending}"
    path.write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=f"singleshot import '.*my model{ending}' --out"):
        build("mobilenetv2", weights=path)


def test_no_path_at_all() -> None:
    for function in (import_weights, checkpoint.load, download):
        with pytest.raises(UserError, match="got 3"):
            function(3)  # type: ignore[arg-type, operator]


def test_weights_of_another_backbone_are_recognised(tmp_path: Path) -> None:
    """Names of missing tensors say nothing to who has taken the wrong file."""
    path = tmp_path / "weights.pth"
    torch.save(build("mobilenetv2").state_dict(), path)
    with pytest.raises(UserError, match="They fit mobilenetv2 with its usual options: --arguments.b"):
        build("mobilenetv1", options={"width": 0.25}, weights=path)
