"""`singleshot benchmark`: every number is there, parts sum to the whole, and what is wrong is said before the work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import singleshot
from singleshot import benchmarking
from singleshot.benchmarking import loads, machine, opening, timing
from singleshot.benchmarking.pictures import Pictures
from singleshot.benchmarking.plot import check
from singleshot.benchmarking.stages import LAYERS, GraphStages, LayerStages
from singleshot.cli import main
from singleshot.detectors import registry
from singleshot.errors import UserError


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short measurements, of PyTorch alone."""
    monkeypatch.setattr(machine, "_SECONDS", 0.0)
    monkeypatch.setattr(machine, "_SIDES", (32,))
    monkeypatch.setattr(timing, "_PAUSE", 0.0)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def tiny_variant() -> Iterator[str]:
    """A variant that is quickly built."""
    name = "tiny_for_a_test"
    registry.VARIANTS[name] = registry.Variant("ssd", {"backbone": "mobilenetv2", "image_size": 64})
    yield name
    del registry.VARIANTS[name]


def test_a_variant_and_its_numbers(tiny_variant: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["benchmark", tiny_variant, "--engine", "torch", "--batch-size", "1", "2", "--rounds", "2"]
    plot = tmp_path / "plot.png"
    assert main([*words, "--json", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["complete"]
    assert found["gflop_rates"]["fp32"] > 0
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert "5.0 pass the threshold for each 100 boxes" in found["scores"][tiny_variant]
    first, second = found["lines"]
    assert (first["batch"], second["batch"]) == (1, 2)
    assert first["input"] == [64, 64]
    assert first["detections"] > 0
    assert first["share"] > 0
    assert list(first["parts"]) == list(LAYERS)
    assert all(ms >= 0 for ms in first["parts"].values())
    assert first["images_per_second"] == pytest.approx(1000 / first["ms"]["median"], rel=1e-3)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_file_on_data_and_on_given_images(
    tiny_model: Path, tiny_voc: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", str(tiny_model), "--engine", "torch", "--rounds", "1"]
    assert main([*words, "--data", str(tiny_voc)]) == 0
    text = capsys.readouterr().out
    assert "AP" in text.splitlines()[4]
    assert "as the weights give them on 2 images" in text
    found = singleshot.benchmark(tiny_model, engine="torch", precision="float32", rounds=1, image=photo, size=96)
    (line,) = found.lines
    assert line.input == (96, 96)
    assert line.ap is None
    assert "of the weights as they are" in found.scores[line.model]


def test_ctrl_c_gives_what_was_measured(
    tiny_model: Path, photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    divided, done = LayerStages.divided, []

    def third_is_too_much(self: Any, call: Any) -> Any:
        done.append(call)
        if len(done) == 3:
            raise KeyboardInterrupt
        return divided(self, call)

    monkeypatch.setattr(LayerStages, "divided", third_is_too_much)
    assert main(["benchmark", str(tiny_model), "--engine", "torch", "--image", str(photo)]) == 130
    out = capsys.readouterr().out
    assert "interrupted: only what was measured so far" in out
    assert "64x64" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ssd301_vgg16"], "'ssd301_vgg16' is neither a file nor the name of a variant; did you mean ssd300_vgg16"),
        (["MODEL", "--engine", "tensorflow"], "engine 'tensorflow' is not known"),
        (["MODEL", "--precision", "fp8"], "precision must be one of auto, fp32, bf16, int8, got 'fp8'"),
        (["MODEL", "--image", "BROKEN"], "broken.jpg"),
        (["MODEL", "--image", "nowhere.jpg"], "nowhere.jpg"),
        (["missing.safetensors"], "missing.safetensors"),
        (["MODEL", "--size", "0"], "expected pixels such as 320"),
        (["MODEL", "--size", "17"], "17"),
        (["refinedet320_mobilenetv2", "--size", "300"], "300"),
        (["MODEL", "--plot", "plot.txt"], "expected a name that ends in .png, .svg, .pdf"),
        (["MODEL", "--split", "val"], "split names a part of data"),
        (["MODEL", "--image", "BROKEN", "--data", "DATA"], "given twice"),
        (["MODEL", "--engine", "torch", "--precision", "int8"], "nothing to measure"),
        (["MODEL", "--rounds", "0"], "expected a whole number, 1 or more"),
    ],
)
def test_wrong_input(
    words: list[str], message: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no picture")
    known = {"MODEL": str(tiny_model), "BROKEN": str(broken), "DATA": str(tmp_path)}
    assert main(["benchmark", *(known.get(word, word) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_wrong_keyword_and_nothing(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="benchmark takes batch_size, engine"):
        singleshot.benchmark(tiny_model, batch=2)  # type: ignore[call-arg]
    with pytest.raises(UserError, match="at least one model"):
        singleshot.benchmark([])


def test_parts_are_told_apart_and_their_sum_is_the_whole() -> None:
    torch.manual_seed(0)
    detector = singleshot.ssd(num_classes=2, backbone="mobilenetv2", image_size=64).eval()
    clock = iter(range(1000))
    stages = LayerStages(detector)
    detector.predict(torch.rand(3, 64, 64))  # the first call asks the layers for the shapes of their maps
    stages._now = lambda: float(next(clock))  # type: ignore[method-assign]
    took = stages.divided(lambda: detector.predict(torch.rand(3, 64, 64)))
    # start, added layers begin, base network begins and ends, added layers end, neck, head, end: one second each
    assert took == {"read": 1, "base network": 1, "added layers": 3, "heads": 1, "post-processing": 3}
    detector.network = _constant(detector)
    assert list(stages.divided(lambda: detector.predict(torch.rand(3, 64, 64)))) == ["network and all"]


def _constant(detector: singleshot.Detector) -> Any:
    count = len(detector.anchors_for(detector.image_size).boxes)
    return lambda pixels: {"class_logits": torch.zeros(1, count, 3), "box_deltas": torch.zeros(1, count, 4)}


def test_a_graph_is_one_part() -> None:
    class Model:
        """As an exported detector: `run` is the engine's."""

        def run(self, images: Any, limits: Any) -> int:
            return 1

        def predict(self, files: Any) -> int:
            time.sleep(0.001)
            return self.run(None, None) + self.run(None, None)

    model = Model()
    stages = GraphStages(model)
    for _ in range(2):
        took = stages.divided(lambda: model.predict([]))
        assert list(took) == ["read", "graph", "rest"]
        assert took["read"] >= 0.001
        assert took["graph"] > 0
        assert took["rest"] >= 0


def test_an_exported_file_has_its_own_engine_precision_and_size() -> None:
    source = opening.Source("m", Path("m.onnx"), True, None, None, "", own=True)
    assert opening.engines_of(source, ["torch"]) == ["onnxruntime"]
    assert opening.precisions_of(source, "onnxruntime", None, machine.this_machine(), "cpu") == (["auto"], [])
    assert len(Pictures((Path("a.jpg"),), "", made=True).dataset()) == 1


@pytest.mark.parametrize("builder", ["ssd", "retinanet"])
def test_a_stated_share_of_the_scores_passes(builder: str) -> None:
    torch.manual_seed(0)
    size = 64 if builder == "ssd" else [64, 64]
    detector = singleshot.create(builder, num_classes=5, backbone="mobilenetv2", image_size=size).eval()
    images = [torch.rand(3, 64, 64)]
    load = loads.made(detector, images, share=0.05)
    assert load.made
    assert load.share == pytest.approx(0.05, abs=0.01)
    assert loads.measured_share(detector, images) == load.share


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr(opening, "missing", lambda engine: "other: thing is not installed: pip install 'singleshot[x]'")
    with pytest.raises(UserError) as caught:
        benchmarking.benchmark(tiny_model)
    assert str(caught.value) == "nothing to measure\nother: thing is not installed: pip install 'singleshot[x]'"


def test_flags_of_processors() -> None:
    text = "processor: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n"
    assert machine.flags_in(text) == ("avx2", "avx512", "avx512_vnni", "amx_int8")
    assert machine.flags_in("Features\t: fp asimd asimddp i8mm\n") == ("neon", "neon_dot", "i8mm")
    assert machine.flags_in("") == ()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_rates_are_measured(precision: str) -> None:
    rate = machine.matmul_rate(precision)
    assert rate is None or rate > 0


def test_spread_and_rounds() -> None:
    assert timing.Spread.of([3.0]) == timing.Spread(3.0, 3.0, 3.0)
    assert timing.Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == timing.Spread(3.0, 2.0, 4.0)
    calls = [lambda: {"a": 1.0}, lambda: {"a": 2.0}]
    found, complete = timing.interleaved(calls, rounds=3, pause=0.0)
    assert complete
    assert found == [[{"a": 1.0}] * 3, [{"a": 2.0}] * 3]


def test_kinds_of_plots() -> None:
    with pytest.raises(UserError, match="expected a name that ends in"):
        check("plot.jpeg")
