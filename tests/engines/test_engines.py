"""Engines behind one interface: a toy of one file and one line, on the package's and the command line's own paths."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_engine

import singleshot as ss
from singleshot.cli import main
from singleshot.data.images import read_image
from singleshot.detectors.detector import PRECISIONS
from singleshot.detectors.whole import Whole
from singleshot.engines import ENGINES, NAMES, find_engine, named_engine, quiet, weights_file
from singleshot.engines.exported import ExportedDetector
from singleshot.engines.options import Options
from singleshot.errors import UserError
from singleshot.multiscale import published
from singleshot.multiscale.detector import MultiScaleDetector
from singleshot.multiscale.views import MultiScale, View
from singleshot.ops.fit import LongestSide
from singleshot.preprocess import KeepAspect, Pixels, Stretch
from singleshot.preprocess.tensors import normalised
from singleshot.spec import Spec

Capture = pytest.CaptureFixture[str]


class Form(torch.nn.Module):
    """What engines export, in its shortest: the detector with its normalisation, and its spec."""

    def __init__(self, detector: ss.Detector, given: str, batch: tuple[int, int]) -> None:
        super().__init__()
        self.detector, self.whole = detector, Whole(detector)
        self.spec = replace(detector.spec, input_size=detector.image_size, batch=batch, input=given)

    def forward(self, images: torch.Tensor, limits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.spec.input == "image":
            images = normalised(self.detector.preprocess.pixels, images.permute(0, 3, 1, 2))
        boxes, scores, labels = self.whole(images, limits)
        return boxes, scores, labels, (scores > 0).sum(1)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, ".toy", "toy_engine")


@pytest.fixture(scope="module")
def toy(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, exported for 1 to 4 images."""
    path = tmp_path_factory.mktemp("toy") / "model.toy"
    detector = ss.load(tiny_model)
    toy_engine.export(Form(detector, "pixels", batch=(1, 4)).eval(), path)
    return path


@pytest.fixture(scope="module")
def model(toy: Path) -> Any:
    """The same, loaded: its graph takes seconds to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, ".toy", "toy_engine")
        return ss.load(toy)


@pytest.fixture(scope="module")
def pictures(tiny_voc: Path) -> list[Path]:
    return sorted((tiny_voc / "JPEGImages").iterdir())


def assert_same_findings(found: ss.Prediction, expected: ss.Prediction) -> None:
    assert len(found) == len(expected) > 0
    assert found.size == expected.size
    assert (found.class_names, found.category_ids) == (expected.class_names, expected.category_ids)
    np.testing.assert_allclose(found.scores_array, expected.scores_array, atol=1e-3)  # pixels differ by a rounding
    apart = np.abs(found.boxes_array[:, None] - expected.boxes_array).max(-1)
    apart = apart + 1e4 * (found.labels_array[:, None] != expected.labels_array)
    assert np.median(apart.min(1)) < 0.2
    assert (apart.min(1) < 2).mean() > 0.95  # near-equal scores at the end of the list may change places


class TestThePackage:
    def test_load_asks_the_table(self, model: Any, tiny_model: Path) -> None:
        assert isinstance(model, ExportedDetector)
        assert isinstance(ss.load(tiny_model), ss.Detector)
        assert model.class_names == ("cell", "other")
        assert model.image_size == (64, 64)

    def test_predict_finds_what_the_detector_finds(self, model: Any, tiny_model: Path, pictures: list[Path]) -> None:
        detector = ss.load(tiny_model)
        for found, expected in zip(model.predict(pictures), detector.predict(pictures), strict=True):
            assert_same_findings(found, expected)
            assert found.path == expected.path
        picture = read_image(pictures[0])
        tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        for source in (picture, tensor):
            assert_same_findings(model.predict(source), detector.predict(pictures[0]))
        floats = tensor.float() / 255  # resized as floats by both
        assert_same_findings(model.predict(floats), detector.predict(floats))

    def test_more_images_than_a_batch_holds(self, model: Any, tiny_model: Path, pictures: list[Path]) -> None:
        nine = (pictures * 9)[:9]
        found, expected = model.predict(nine, batch_size=9), ss.load(tiny_model).predict(nine)
        for one, other in zip(found, expected, strict=True):
            assert_same_findings(one, other)

    def test_a_list_of_none_and_a_batch_of_none(self, model: Any) -> None:
        assert model.predict([]) == []
        with pytest.raises(UserError, match="batch_size must be at least 1"):
            model.predict([], batch_size=0)

    def test_what_is_not_an_image(self, model: Any) -> None:
        with pytest.raises(UserError, match="int is not an image"):
            model.predict(3)

    def test_a_builder_is_refused(self, toy: Path) -> None:
        with pytest.raises(UserError, match="does not take a builder"):
            ss.load(toy, builder=ss.ssd)

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"gone\.toy: no such file"):
            ss.load(tmp_path / "gone.toy")

    def test_other_endings_are_looked_into(self, tmp_path: Path) -> None:
        (tmp_path / "model.pth").write_bytes(b"PK" + bytes(30))
        with pytest.raises(UserError, match="is a pickle"):
            ss.load(tmp_path / "model.pth")


class TestTheCommandLine:
    def test_detect(self, toy: Path, tiny_model: Path, pictures: list[Path], tmp_path: Path, capsys: Capture) -> None:
        told = []
        for model in (toy, tiny_model):
            words = ["detect", str(model), str(pictures[0].parent), "--threshold", "0", "--json", "--out"]
            assert main([*words, str(tmp_path / model.suffix)]) == 0
            told.append(json.loads(capsys.readouterr().out))
        assert [len(image["detections"]) for image in told[0]] == [len(image["detections"]) for image in told[1]]
        best = [[image["detections"][0]["score"] for image in one] for one in told]
        assert best[0] == pytest.approx(best[1], abs=1e-3)
        assert sorted(path.name for path in (tmp_path / ".toy").iterdir()) == sorted(
            path.name for path in (tmp_path / ".safetensors").iterdir()
        )

    def test_evaluate_and_analyse(self, toy: Path, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
        for verb in (["evaluate"], ["analyse", "errors"]):
            told = []
            for model in (toy, tiny_model):
                assert main([*verb, str(model), str(tiny_voc), "--json"]) == 0
                told.append(json.loads(capsys.readouterr().out))
            assert told[0].keys() == told[1].keys()

    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (["evaluate", "MODEL", "DATA", "--sweep", "nms=0.4,0.5"], "--sweep"),
            (["analyse", "iou", "MODEL", "DATA"], "analyse iou"),
            (["analyse", "loss", "MODEL", "DATA"], "analyse loss"),
            (["train", "DATA", "--from", "MODEL", "--out", "OUT"], "training from a model"),
        ],
    )
    def test_what_only_a_detector_can_do(
        self, words: list[str], wanted: str, toy: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        places = {"MODEL": str(toy), "DATA": str(tiny_voc), "OUT": str(tmp_path / "run")}
        assert main([places.get(word, word) for word in words]) == 2
        said = capsys.readouterr().err
        assert f"{toy}: {wanted} needs the detector itself" in said
        assert "give the .safetensors file" in said
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("verb", ["evaluate", "detect"])
    def test_several_sizes(self, verb: str, toy: Path, tiny_voc: Path, capsys: Capture) -> None:
        assert main([verb, str(toy), str(tiny_voc), "--tta", "refinedet320_voc"]) == 2
        said = capsys.readouterr().err
        assert f"{toy}: its graph takes images of 64x64 only, and multi-scale testing (--tta) shows them" in said

    def test_what_another_engine_cannot_do(self, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
        words = ["evaluate", str(tiny_model), str(tiny_voc), "--sweep", "nms=0.4,0.5", "--engine", "openvino"]
        assert main(words) == 2
        assert "--sweep needs the detector itself, which only the engine 'torch' runs" in capsys.readouterr().err


class TestWhatAGraphTakes:
    """A graph that is seen from outside: how large its batches are, and where the pictures lie in it."""

    def seen(self, batch: tuple[int, int | None], size: tuple[int, int] | None) -> tuple[ExportedDetector, list[Any]]:
        spec = Spec(("a",), (1,), KeepAspect(LongestSide(64)), None, input_size=size, batch=batch)
        shapes: list[Any] = []

        def run(pixels: Any, limits: Any) -> tuple[Any, Any, Any]:
            shapes.append((pixels.shape, limits.tolist()))
            corners = np.concatenate([np.zeros_like(limits), limits[:, ::-1]], 1)[:, None]  # the whole of each picture
            return corners, np.full((len(pixels), 1), 0.5, np.float32), np.zeros((len(pixels), 1), np.int64)

        return ExportedDetector(spec, run), shapes

    def test_a_fixed_batch_is_filled_and_its_rest_dropped(self) -> None:
        model, shapes = self.seen((3, 3), None)
        found = model.predict([np.zeros((32, 64, 3), np.uint8)] * 4)
        assert [shape[0] for shape, _ in shapes] == [3, 3]
        assert [prediction.boxes_array.tolist() for prediction in found] == [[[0, 0, 64, 32]]] * 4

    def test_several_sizes(self) -> None:
        model, shapes = self.seen((1, None), None)
        many = MultiScaleDetector(model, MultiScale((View(side=64), View(size=(32, 96))), mirror=True))
        (found,) = many([torch.zeros(3, 32, 64, dtype=torch.uint8)])
        assert [shape for shape, _ in shapes] == [(1, 3, 32, 64)] * 2 + [(1, 3, 32, 96)] * 2
        assert found["boxes"].tolist() == [[0, 0, 64, 32]]
        with pytest.raises(UserError, match="sets threshold, candidates, nms, detections of the post-processing"):
            MultiScaleDetector(model, published.load("refinedet512_coco"))

    def test_pictures_of_one_input_size_go_together(self) -> None:
        model, shapes = self.seen((1, None), None)
        wide, high = np.zeros((40, 80, 3), np.uint8), np.zeros((80, 40, 3), np.uint8)
        found = model.predict([wide, high, wide])
        assert [shape for shape, _ in shapes] == [(2, 3, 32, 64), (1, 3, 64, 32)]
        assert [prediction.boxes_array[0].tolist() for prediction in found] == [
            [0, 0, 80, 40], [0, 0, 40, 80], [0, 0, 80, 40],
        ]  # fmt: skip

    @pytest.mark.parametrize("order", ["imagenet_rgb", "caffe_bgr"])
    def test_an_image_graph_gets_the_pictures_themselves(self, order: str) -> None:
        rule = Stretch((4, 6), Pixels.named(order))
        spec = Spec(("a",), (1,), rule, None, input_size=(4, 6), input="image")
        picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)

        def run(images: Any, limits: Any) -> tuple[Any, Any, Any]:
            assert images.dtype == np.uint8
            np.testing.assert_array_equal(images[0], picture)
            return np.zeros((1, 1, 4), np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int64)

        model = ExportedDetector(spec, run)
        assert len(model.predict(picture)) == 0
        assert len(model.predict(torch.from_numpy(picture).permute(2, 0, 1).float() / 255)) == 0

    def test_a_fixed_size_pads(self) -> None:
        model, shapes = self.seen((1, None), (64, 96))
        (found,) = model.predict([np.zeros((80, 40, 3), np.uint8)])
        assert shapes == [((1, 3, 64, 96), [[64, 32]])]
        assert found.boxes_array.tolist() == [[0, 0, 40, 80]]

    def test_a_picture_that_does_not_fit_is_told(self) -> None:
        model, _ = self.seen((1, None), (32, 64))
        with pytest.raises(UserError, match=r"80x40 .* becomes 64x32, and this model takes 32x64"):
            model.predict(np.zeros((80, 40, 3), np.uint8))

    def test_without_a_known_preparation_it_cannot_predict(self) -> None:
        with pytest.raises(UserError, match="does not say how images are prepared"):
            ExportedDetector(Spec(("a",), (1,), None, None), lambda *_: ..., path="x.toy")  # type: ignore[arg-type, return-value]


def test_the_first_entry_keeps_the_contract(tiny_model: Path, tmp_path: Path, pictures: list[Path]) -> None:
    assert find_engine("model.safetensors") is weights_file
    assert find_engine("model.SAFETENSORS") is weights_file
    assert named_engine("torch") is weights_file
    detector = ss.load(tiny_model)
    weights_file.export(Form(detector, "pixels", (1, 4)), tmp_path / "again.safetensors")
    model = ExportedDetector(*weights_file.open(tmp_path / "again.safetensors", Options()))
    assert_same_findings(model.predict(pictures[0]), detector.predict(pictures[0]))
    assert model.spec == detector.spec
    assert weights_file.PRECISIONS == PRECISIONS


@pytest.mark.parametrize("suffix", ENGINES)
def test_every_entry_has_the_names_of_the_contract(suffix: str) -> None:
    engine = find_engine(f"model{suffix}")
    for name in ("TITLE", "SUFFIX", "PRECISIONS", "PACKAGES", "EXTRA", "export", "open"):
        assert hasattr(engine, name), name
    assert engine.NAME in NAMES
    assert suffix == engine.SUFFIX
    assert set(engine.PACKAGES) <= set(quiet.EXTRAS)


class TestHowItRuns:
    @pytest.mark.parametrize(
        ("chosen", "said"),
        [
            ({"engine": "onxruntime"}, "engine 'onxruntime' is not known.*expected one of auto, torch"),
            ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, int8, got 'fp16'"),
            ({"precision": 3}, "precision must be one of auto, fp32, bf16, int8, got 3"),
            ({"threads": 0}, "threads must be a whole number, 1 to 1000, got 0"),
            ({"threads": True}, "threads must be a whole number, 1 to 1000, got True"),
            ({"precision": "int8"}, "PyTorch computes in fp32 or bf16 here.*--calibrate"),
        ],
    )
    def test_words_that_are_not_known(self, chosen: dict[str, Any], said: str, tiny_model: Path) -> None:
        with pytest.raises(UserError, match=said):
            ss.load(tiny_model, **chosen)

    def test_a_detector_takes_them(self, tiny_model: Path) -> None:
        assert ss.load(tiny_model, engine="torch", precision="bfloat16").precision == "bf16"
        assert ss.load(tiny_model, precision="float32").precision == "fp32"
        threads = torch.get_num_threads()
        ss.load(tiny_model, threads=threads)
        assert torch.get_num_threads() == threads

    def test_a_file_runs_with_its_own_engine(self, toy: Path) -> None:
        with pytest.raises(UserError, match=r"a \.toy file runs with the toy \(engine 'toy'\), not with PyTorch"):
            ss.load(toy, engine="torch")

    @pytest.mark.parametrize(
        ("held", "asked", "bf16", "computed"),
        [
            ("fp32", {}, False, "fp32"),
            ("fp32", {}, True, "bf16"),
            ("fp32", {"exact": True}, True, "fp32"),
            ("fp32", {"precision": "fp32"}, True, "fp32"),
            ("bf16", {"exact": True}, True, "bf16"),
            ("bf16", {}, False, "fp32"),
            ("int8", {"exact": True}, True, "int8"),
            ("int8", {"precision": "int8"}, False, "int8"),
            ("fp32", {"precision": "bf16"}, False, None),
            ("fp32", {"precision": "int8"}, True, None),
            ("int8", {"precision": "fp32"}, True, None),
        ],
    )
    def test_the_precision_of_a_run(self, held: str, asked: dict[str, Any], bf16: bool, computed: str | None) -> None:
        options = Options(**asked)
        if computed is not None:
            assert options.computed(held, title="X", bf16=bf16) == computed
        else:
            with pytest.raises(UserError, match=f"m.x: .*{options.precision}"):
                options.computed(held, title="X", bf16=bf16, where="m.x: ")


class TestPackages:
    def test_one_that_is_missing_is_named_with_its_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(quiet.EXTRAS, "not_a_package", "export")
        with pytest.raises(
            UserError, match=r"not_a_package, which is not installed: pip install 'singleshot\[export\]'"
        ):
            quiet.load_package("not_a_package")

    def test_one_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(UserError, match=r"openvino.*pip install 'singleshot\[openvino\]'"):
            quiet.load_package("openvino")
