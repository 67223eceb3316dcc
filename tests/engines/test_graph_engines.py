"""ONNX Runtime and OpenVINO on tiny graphs: what they find, what they refuse, and files that are broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_files import WRITE, need, small_spec, write_onnx, write_openvino, write_raw
from PIL import Image

import singleshot as ss
from singleshot.cli import main
from singleshot.engines import find_engine
from singleshot.engines.onnx_file import metadata
from singleshot.engines.options import Options
from singleshot.engines.quiet import load_package
from singleshot.errors import UserError

# Many loads with both engines in one process leave it so that its next signal ends it (seen with SIGINT and SIGTERM in
# later tests of training; the cause is not found). So these tests do not share a process with those of the fast suite.
pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", params=WRITE)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny graph as the file of each engine."""
    return WRITE[request.param](tmp_path_factory.mktemp("graph") / f"model{request.param}", small_spec())


@pytest.fixture
def picture() -> np.ndarray[Any, Any]:
    return np.full((4, 4, 3), 51, np.uint8)


def answer(do: Callable[[], Any]) -> str | None:
    """What a user is told; None if it went well."""
    try:
        do()
    except UserError as error:
        return str(error)
    return None


class TestWhatTheyFind:
    def test_boxes_scores_and_labels(self, model: Path, picture: np.ndarray[Any, Any]) -> None:
        detector = ss.load(model, threads=1)
        assert detector.class_names == ("cat", "dog")
        assert detector.image_size == (8, 16)
        one, two = detector.predict([picture, picture * 2])
        assert one.boxes_array.tolist() == [[0.5, 0.5, 2.5, 3.5]]
        assert one.scores_array == pytest.approx([0.2], abs=1e-6)
        assert two.scores_array == pytest.approx([0.4], abs=1e-6)
        assert one.names == ["dog"]
        assert len(detector.predict(np.zeros((4, 4, 3), np.uint8))) == 0

    def test_arrays_belong_to_the_caller(self, model: Path, picture: np.ndarray[Any, Any]) -> None:
        _, run = find_engine(model).open(model, Options())
        limits = np.array([[8, 16]], np.float32)
        first = run(np.full((1, 8, 16, 3), 51, np.uint8), limits)
        kept = [np.array(one) for one in first]
        second = run(np.full((1, 8, 16, 3), 102, np.uint8), limits)
        for one, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(one, before)
            assert one.flags.writeable
        assert [one.dtype for one in second] == [np.float32, np.float32, np.int64]

    def test_threads_may_share_one(self, model: Path) -> None:
        detector = ss.load(model)
        levels = [*range(5, 255, 10)] * 4
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda level: detector.predict(np.full((8, 16, 3), level, np.uint8)), levels))
        assert [one.scores_array.tolist()[0] for one in found] == pytest.approx([n / 255 for n in levels], abs=1e-6)

    def test_the_command_line(self, model: Path, tmp_path: Path, capsys: Capture) -> None:
        Image.new("RGB", (32, 16), (255, 255, 255)).save(tmp_path / "white.png")
        assert main(["detect", str(model), str(tmp_path / "white.png")]) == 0
        assert capsys.readouterr().out.endswith("white.png: 1 dog\n")


class TestWhatTheyRefuse:
    @pytest.mark.parametrize(
        ("chosen", "said"),
        [
            ({"device": "tpu"}, "device 'tpu' is not one"),
            ({"precision": "int8"}, "holds the model in fp32, and int8 is asked for.*--calibrate"),
            ({"builder": ss.ssd}, "does not take a builder"),
            ({"engine": "torch"}, "runs with (ONNX Runtime|OpenVINO).* not with PyTorch"),
        ],
    )
    def test_choices(self, chosen: dict[str, Any], said: str, model: Path) -> None:
        with pytest.raises(UserError, match=said) as caught:
            ss.load(model, **chosen)
        assert "device" in said or str(caught.value).startswith(f"{model}: ")

    def test_bf16_which_onnx_runtime_lacks_on_every_processor(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="ONNX Runtime does not compute in bf16; take --precision fp32"):
            ss.load(write_onnx(tmp_path / "model.onnx", small_spec()), precision="bf16")

    def test_cuda_without_it(self, tmp_path: Path) -> None:
        path = write_onnx(tmp_path / "model.onnx", small_spec())
        if "CUDAExecutionProvider" in load_package("onnxruntime").get_available_providers():
            pytest.skip("this onnxruntime has CUDA")
        with pytest.raises(UserError, match="device 'cuda:0': the installed package onnxruntime has no CUDA"):
            ss.load(path, device="cuda:0")

    @pytest.mark.parametrize("suffix", WRITE)
    def test_a_folder_and_a_file_of_text(self, suffix: str, tmp_path: Path) -> None:
        folder, text = tmp_path / f"folder{suffix}", tmp_path / f"text{suffix}"
        folder.mkdir()
        text.write_text("<annotation><object/></annotation>")
        text.with_suffix(".bin").touch()
        need(find_engine(folder).PACKAGES[0])
        with pytest.raises(UserError, match="is a folder; expected the file of an exported model"):
            ss.load(folder)
        with pytest.raises(UserError, match=f"text{suffix}: "):
            ss.load(text)

    def test_openvino_without_its_weights(self, tmp_path: Path) -> None:
        path = write_openvino(tmp_path / "model.xml", small_spec())
        (tmp_path / "model.bin").unlink()
        with pytest.raises(UserError, match=r"model\.bin, which holds its weights, is not beside it"):
            ss.load(path)

    @pytest.mark.parametrize("suffix", WRITE)
    @pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"class_names": 3}', '{"input": "x"}'])
    def test_a_broken_spec(self, suffix: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("singleshot.spec.Spec.to_text", lambda self: text)
        path = tmp_path / f"model{suffix}"
        monkeypatch.setattr("engine_files.json.dumps", lambda _: text)
        WRITE[suffix](path, small_spec())
        with pytest.raises(UserError, match=f"model{suffix}: "):
            ss.load(path)


@pytest.mark.parametrize("suffix", WRITE)
def test_a_model_of_another_program(suffix: str, tmp_path: Path) -> None:
    path = WRITE[suffix](tmp_path / f"model{suffix}", None)
    with pytest.raises(UserError, match="a model of another program"):
        ss.load(path)


@pytest.mark.parametrize("suffix", WRITE)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": "bs"}, "its graph does not give labels"),
        ({"label": 7}, r"gives labels from 7 to 7.*2 classes"),
        ({"label": -1}, r"gives labels from -1 to -1.*2 classes"),
        ({"box": (0, 0, float("nan"), 1)}, "gives boxes that are not numbers"),
    ],
)
def test_graphs_that_were_changed(suffix: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = WRITE[suffix](tmp_path / f"model{suffix}", small_spec(), **changes)
    with pytest.raises(UserError, match=said):
        ss.load(path).predict(np.full((8, 16, 3), 9, np.uint8))


@pytest.mark.parametrize("suffix", WRITE)
def test_files_that_were_cut_or_changed(suffix: str, tmp_path: Path) -> None:
    whole = WRITE[suffix](tmp_path / f"whole{suffix}", small_spec())
    content = whole.read_bytes()
    rng = np.random.default_rng(0)
    broken = tmp_path / f"broken{suffix}"
    if suffix == ".xml":
        broken.with_suffix(".bin").write_bytes(whole.with_suffix(".bin").read_bytes())
    for number in range(60):
        held = bytearray(content)
        if number % 2:
            held = held[: int(rng.integers(len(held)))]
        else:
            for place in rng.integers(len(held), size=3):
                held[place] = int(rng.integers(256))
        broken.write_bytes(held)
        said = answer(lambda: ss.load(broken, threads=1).predict(np.full((8, 16, 3), 9, np.uint8)))
        assert said is None or said.startswith(f"{broken}: "), said


def test_weights_of_openvino_that_were_cut(tmp_path: Path) -> None:
    path = write_openvino(tmp_path / "model.xml", small_spec())
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:3])
    with pytest.raises(UserError, match=r"model\.xml: OpenVINO cannot load it"):
        ss.load(path)


@pytest.mark.parametrize("suffix", WRITE)
def test_a_network_alone_gets_its_post_processing_here(suffix: str, tiny_model: Path, tmp_path: Path) -> None:
    """A raw graph by hand: it predicts for two anchors, whatever the image."""
    whole = ss.load(tiny_model).spec
    spec = small_spec(outputs="raw")
    values = {
        "class_logits": [[[9.0, 0.0, 0.0], [0.0, 4.0, 0.0]]],  # the last is the background
        "box_deltas": [[[0.0] * 4, [0.0] * 4]],
        "anchors": [[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]],
    }
    path = write_raw(tmp_path / f"model{suffix}", replace(spec, postprocess=whole.postprocess), values)
    found = ss.load(path).predict(np.full((8, 16, 3), 9, np.uint8))
    assert found.names[:2] == ["cat", "dog"]
    assert found.boxes_array[:2].tolist() == [[0, 0, 8, 8], [8, 0, 16, 8]]
    assert found.scores_array[:2] == pytest.approx([np.exp(9) / (np.exp(9) + 2), np.exp(4) / (np.exp(4) + 2)], abs=1e-5)
    for changed, said in (
        (spec_of_pyramid(), "without the levels of its pyramid"),
        (None, "a post-processing that is not part of this package"),
    ):
        with pytest.raises(UserError, match=said):
            ss.load(write_raw(path, replace(spec, postprocess=changed), values))
    with pytest.raises(UserError, match="does not give anchors"):
        ss.load(write_raw(path, replace(spec, postprocess=whole.postprocess), {"class_logits": [[[0.0]]]}))
    values["box_deltas"] = [[[0.0] * 4]]
    with pytest.raises(UserError, match="what its network gives does not fit together"):
        ss.load(write_raw(path, replace(spec, postprocess=whole.postprocess), values)).predict(
            np.zeros((8, 16, 3), np.uint8)
        )


def spec_of_pyramid() -> dict[str, Any]:
    detector = ss.retinanet(num_classes=2, backbone="resnet18", channels=8, image_size=64)
    return dict(detector.spec.postprocess or {})


def test_the_metadata_is_read_without_a_package(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", small_spec())
    assert metadata(path) == {"other": "x", "singleshot": small_spec().to_text()}
    for content in (b"", b"\xff" * 40, path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="empty|not an ONNX file|not a whole ONNX file"):
            metadata(path)


PROBE = """
import sys
import singleshot as ss
from singleshot.cli import main
code = main(["detect", sys.argv[1], sys.argv[2]])
found = ss.load(sys.argv[1]).predict(sys.argv[2])
assert len(found) == 1 and not code
print("loaded:", *(name for name in ("torch", "matplotlib", "accelerate", "rich") if name in sys.modules))
"""


def test_torch_is_not_imported(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 16), (255, 255, 255)).save(tmp_path / "white.png")
    words = [sys.executable, "-c", PROBE, str(model), str(tmp_path / "white.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
