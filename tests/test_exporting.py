"""The export of a detector: the file is left only if it finds what the detector finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import singleshot as ss
from singleshot.cli import main
from singleshot.engines.graph import exportable
from singleshot.engines.options import Options
from singleshot.errors import UserError
from singleshot.exporting import export as module
from singleshot.exporting import raw, request
from singleshot.exporting.place import find_format, find_target, staged
from singleshot.exporting.samples import generated
from singleshot.exporting.triton import config
from singleshot.layers import BatchNorm2d

Capture = pytest.CaptureFixture[str]
Change = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class Engine:
    """An engine whose file is a few words: the graph stays in memory, as PyTorch runs it, changed by `change`."""

    NAME, TITLE, SUFFIX, EXTRA = "memory", "Memory", ".onnx", None
    PRECISIONS = ("fp32", "bf16", "int8")
    PACKAGES = ()

    def __init__(self) -> None:
        self.form: Any = None
        self.change: Change = lambda *found: found

    def export(self, form: Any, path: Path) -> None:
        self.form = form
        path.write_text("a graph")

    def open(self, path: Path, options: Options) -> Any:
        def run(images: Any, limits: Any) -> Any:
            inputs = [torch.from_numpy(one) for one in (images, limits)][: len(self.form.input_names)]
            with torch.inference_mode():
                boxes, scores, labels, _ = self.form(*inputs)
            return self.change(boxes.numpy(), scores.numpy(), labels.numpy())

        return self.form.spec, run


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """In the place of ONNX Runtime."""
    made = Engine()
    here = module.load
    for name in ("COMPARED_IMAGES", "_TIMED", "_WARM"):  # an untrained network finds much, so each image takes long
        monkeypatch.setattr(module, name, 2)
    for place in (module, request):
        monkeypatch.setattr(place, "find_engine", lambda _: made)
    monkeypatch.setattr(request, "load_package", lambda _: SimpleNamespace())

    def load(path: Path, precision: str = "auto") -> Any:
        from singleshot.engines.exported import ExportedDetector

        return ExportedDetector(*made.open(path, Options())) if path.suffix == ".onnx" else here(path)

    monkeypatch.setattr(module, "load", load)
    return made


def test_the_file_and_the_report(
    engine: Engine, tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "new" / "model.onnx"
    words = ["export", str(tiny_model), "--out", str(out), "--data", str(tiny_voc), "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parity"]["exact"]
    assert report["parity"]["objects"] >= 5
    assert report["images"] == "the 2 images of split 'val'"
    assert report["drop"] == pytest.approx(0, abs=0.1)
    assert set(report["after"]["per_class"]) == {"cell", "other"}
    assert [one.name for one in tmp_path.rglob("*") if one.is_file()] == ["model.onnx"]
    assert main(words) == 2
    assert "exists already; choose another name" in capsys.readouterr().err


def test_nothing_beyond_the_tolerance(engine: Engine, tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    engine.change = lambda boxes, scores, labels: (boxes, scores * 0.9, labels)
    assert main(["export", str(tiny_model), "--out", str(tmp_path / "new" / "model.onnx")]) == 1
    out, err = capsys.readouterr()
    assert "generated images" in out
    assert "does not find the same objects" in err
    assert "no file was written" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_finds_nothing(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    engine.change = lambda boxes, scores, labels: (boxes, np.zeros_like(scores), labels)
    for precision in ("fp32", "bf16"):
        with pytest.raises(module.NotTheSame, match="no file was written") as caught:
            ss.export(tiny_model, tmp_path / "model.onnx", precision=precision)
        assert caught.value.report.parity.share == 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_compare_is_no_proof(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(module.NotTheSame, match="finds nothing in these images at threshold .*give --data"):
        ss.export(tiny_model, tmp_path / "model.onnx", threshold=1.0)


def test_nothing_after_ctrl_c(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    def interrupted(*found: Any) -> Any:
        raise KeyboardInterrupt

    engine.change = interrupted
    assert main(["export", str(tiny_model), "--out", str(tmp_path / "a" / "model.onnx")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_bf16_may_differ_by_points_of_ap(engine: Engine, tiny_model: Path, tiny_voc: Path, tmp_path: Path) -> None:
    engine.change = lambda boxes, scores, labels: (boxes + np.float32(0.5), scores, labels)
    report = ss.export(tiny_model, tmp_path, format="onnx", precision="bf16", data=tiny_voc, max_drop=100)
    assert report.path == tmp_path / "model.onnx"
    assert not report.parity.exact
    assert report.fault is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ssd", "refinedet", "retinanet"])
def test_the_network_alone_is_compared_through_the_post_processing(
    kind: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    detector = getattr(ss, kind)(num_classes=2, backbone="mobilenetv2", image_size=64, backbone_weights=None)
    scale = [1.0]

    def graph(path: Path, form: Any) -> Any:
        assert form.spec.outputs == "raw"

        def run(feeds: Any) -> Any:
            with torch.inference_mode():
                found = form(*(torch.from_numpy(feeds[name]) for name in form.input_names))
            return [
                value.numpy() if value.dtype == torch.bool else value.numpy() * np.float32(scale[0]) for value in found
            ]

        return run

    monkeypatch.setitem(raw._GRAPHS, ".onnx", graph)
    assert ss.export(detector, tmp_path / "one.onnx", outputs="raw", threshold=0.001).parity.exact
    scale[0] = 0.5
    with pytest.raises(module.NotTheSame):
        ss.export(detector, tmp_path / "two.onnx", outputs="raw", threshold=0.001)
    assert [one.name for one in tmp_path.iterdir()] == ["one.onnx"]


def test_a_threshold_of_its_own(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    detector = ss.load(tiny_model)
    before = detector.postprocess
    scores = detector.predict(generated(1)[0]).scores_array
    report = ss.export(detector, tmp_path / "model.onnx", threshold=float(scores[5]))
    assert report.parity.exact
    assert detector.postprocess is before
    found = module.load(tmp_path / "model.onnx").predict(generated(1)[0])
    assert 4 <= len(found) <= 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.pt2", "--format", "onnx"], "a model of format onnx ends in .onnx"),
        (["--out", "x"], "give --format, one of onnx, openvino, torch, triton"),
        (["--out", "x.onnx", "--format", "triton"], "format triton is a folder"),
        (["--out", "x.onnx", "--precision", "int8"], "int8 needs images like those of the training"),
        (["--out", "x.pt2", "--precision", "int8", "--calibrate", "DATA"], "has no int8 here"),
        (["--out", "x.onnx", "--calibrate", "DATA"], "calibrate is for int8, and the precision is fp32"),
        (["--out", "x.onnx", "--max-drop", "0.5"], "max_drop is for bf16 and int8"),
        (["--out", "x.onnx", "--max-drop", "-1", "--precision", "bf16"], "from 0 to 100"),
        (["--out", "x.onnx", "--precision", "int4"], "invalid choice"),
        (["--out", "x.onnx", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["--out", "x.onnx", "--half"], "'--half' is called --precision bf16 here"),
        (["--out", "folder", "--format", "triton", "--outputs", "raw"], "format triton has the detections"),
        ([], "required: out"),
    ],
)
def test_words(
    words: list[str],
    said: str,
    engine: Engine,
    tiny_model: Path,
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(tiny_voc) if word == "DATA" else word for word in words]
    assert main(["export", str(tiny_model), *given]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_exported_model(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "old.onnx").write_text("")
    with pytest.raises(UserError, match="export needs the detector itself"):
        ss.export(tmp_path / "old.onnx", tmp_path / "new.onnx")


def test_data_of_other_classes(
    engine: Engine, tiny_model: Path, tmp_path: Path, capsys: Capture, tiny_voc: Path
) -> None:
    detector = ss.ssd(num_classes=1, class_names=("horse",), backbone="mobilenetv2", image_size=64)
    with pytest.raises(UserError, match="horse"):
        ss.export(detector, tmp_path / "model.onnx", data=tiny_voc)


def test_an_empty_folder(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("data", "calibrate"):
        with pytest.raises(UserError, match="empty"):
            ss.export(
                tiny_model,
                tmp_path / "m.onnx",
                precision="int8",
                **{"calibrate": tiny_model, name: tmp_path / "empty"},
            )


def test_a_missing_package(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package, extra in (("onnxruntime", "export"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, package, None)
        suffix = {"onnxruntime": ".onnx", "openvino": ".xml"}[package]
        with pytest.raises(UserError, match=rf"{package}.*pip install 'singleshot\[{extra}\]'"):
            ss.export(tiny_model, tmp_path / f"model{suffix}")


def test_the_format_of_a_name() -> None:
    assert [find_format(None, f"a.{end}") for end in ("onnx", "XML", "pt2")] == ["onnx", "openvino", "torch"]
    assert find_format("triton", "a") == "triton"
    with pytest.raises(UserError, match="did you mean 'openvino'"):
        find_format("openvin", "a")


def test_a_folder_gets_the_file(tmp_path: Path) -> None:
    (tmp_path / "v1.5").mkdir()
    assert find_target(tmp_path / "v1.5", format="onnx", stem="best") == tmp_path / "v1.5" / "best.onnx"
    assert find_target(tmp_path / "a", format="openvino", stem="best") == tmp_path / "a" / "best.xml"
    (tmp_path / "a.bin").touch()
    with pytest.raises(UserError, match=r"a.bin exists already"):
        find_target(tmp_path / "a.xml", format="openvino", stem="best")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        find_target(tmp_path / "file", format="onnx", stem="best")


def test_what_lies_beside_comes_too_and_nothing_stays(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "b" / "m.xml") as place:
        place.write_text("graph")
        place.with_suffix(".bin").write_text("weights")
        (place.parent / "other").write_text("")
    assert sorted(one.name for one in tmp_path.rglob("*") if one.is_file()) == ["m.bin", "m.xml"]
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def make() -> None:
        with staged(tmp_path / "m.onnx") as place:
            place.write_text("ours")
            (tmp_path / "m.onnx").write_text("theirs")

    with pytest.raises(UserError, match="exists already"):
        make()
    assert (tmp_path / "m.onnx").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_triton_describes_the_graph(tiny_model: Path) -> None:
    from singleshot.engines.graph import exportable

    text = config(exportable(ss.load(tiny_model)), "cells")
    assert text.startswith('name: "cells"\nbackend: "onnxruntime"\nmax_batch_size: 8\n')
    assert 'input [ { name: "images" data_type: TYPE_UINT8 dims: [ 64, 64, 3 ] } ]' in text
    assert 'output [ { name: "boxes" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]' in text
    assert 'name: "count" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] }' in text


def test_layers_have_the_names_of_the_detector_also_where_a_norm_is_folded(tiny_model: Path) -> None:
    detector = ss.load(tiny_model)
    frozen = next(part for part in detector.backbone.modules() if isinstance(part, BatchNorm2d))
    frozen.frozen = True
    form = exportable(detector)
    convolutions = {name: part for name, part in form.named_modules() if isinstance(part, torch.nn.Conv2d)}
    shapes = [tuple(part.weight.shape) for part in convolutions.values()]
    found = module._names(form, shapes, [f"node_{place}" for place in range(len(shapes))])
    assert found == list(convolutions)
    assert module._names(form, shapes[1:], ["a"] * len(shapes[1:]))[0] == "a (32x1x3x3)"
    assert not any("_conv_forward" in part.__dict__ for part in convolutions.values())


def test_generated_images_are_always_the_same() -> None:
    one, two = generated(3), generated(3)
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert len({one.shape for one in one}) == 3
