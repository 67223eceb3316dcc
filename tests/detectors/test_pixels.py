"""The pixel values of a detector are those that its backbone's weights expect, unless they are given."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from singleshot.backbones import build
from singleshot.data.dataset import Dataset
from singleshot.detectors import BUILDERS, Detector, ssd
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.preprocess import Pixels
from singleshot.training.recipe import Recipe
from singleshot.training.resolve import resolve_resumed
from singleshot.training.start import build_detector, with_pixels
from singleshot.weights import checkpoint

HALVES = [[0.5] * 3, [0.25] * 3, "rgb"]
NARROW: dict[str, Any] = {
    "num_classes": 2, "backbone": "mobilenetv2", "backbone_options": {"width": 0.25}, "image_size": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a narrow backbone, which say their pixels."""
    path = tmp_path_factory.mktemp("told") / "trunk.safetensors"
    torch.manual_seed(0)
    trunk = build("mobilenetv2", options={"width": 0.25})
    save_file(trunk.state_dict(), path, metadata={"pixels": json.dumps(HALVES)})
    return path


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_those_of_the_weights(name: str, told: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = BUILDERS[name](**NARROW, backbone_weights=told)
        assert detector.preprocess.pixels == Pixels.named(HALVES)
    with without_values():
        assert BUILDERS[name](**NARROW).preprocess.pixels == Pixels()
        assert BUILDERS[name](**NARROW, pixels="caffe_bgr").preprocess.pixels == Pixels.named("caffe_bgr")
    if name == "ssd":
        checkpoint.save(detector, tmp_path / "a.safetensors")  # its reader does not see the trunk's own file
        assert checkpoint.load(tmp_path / "a.safetensors").preprocess.pixels == Pixels.named(HALVES)


def test_others_than_the_weights_expect_are_a_warning(told: Path) -> None:
    with pytest.warns(UserWarning, match=r"pixels are imagenet_rgb, but the backbone's weights expect \[\[0.5"):
        detector = ssd(**NARROW, backbone_weights=told, pixels="imagenet_rgb")
    assert detector.preprocess.pixels == Pixels()


def test_trunks_have_their_own() -> None:
    with without_values():
        lite, caffe = build("efficientnet_lite0"), build("vgg16")
    assert Pixels.named(lite.pixels) == Pixels((127 / 255,) * 3, (128 / 255,) * 3, "rgb")
    assert caffe.pixels == "imagenet_rgb"
    caffe.adapt_weights({"0.weight": torch.zeros(1), "31.weight": torch.zeros(1), "fc6.0.weight": torch.zeros(1)})
    assert (caffe.pixels, caffe.pixels_told) == ("caffe_bgr", True)


def test_files_of_before_keep_what_they_had(tmp_path: Path) -> None:
    """They do not say the default, which does not change with the backbone's."""
    path = tmp_path / "a.safetensors"
    checkpoint.save(ssd(**NARROW), path)
    arguments = checkpoint.read_metadata(path)["arguments"]
    assert "pixels" not in arguments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("singleshot.backbones.mobilenet.MobileNetV2.pixels", "caffe_bgr")
        assert checkpoint.load(path).preprocess.pixels == Pixels()


def test_metadata_that_says_no_pixels(told: Path, tmp_path: Path) -> None:
    for text, message in (("{", "broken metadata: pixels"), ('"red"', "pixels must be one of")):
        save_file(load(told.read_bytes()), tmp_path / "a.safetensors", metadata={"pixels": text})
        with pytest.raises(UserError, match=message):
            ssd(**NARROW, backbone_weights=tmp_path / "a.safetensors")


def test_another_builder_from_a_detector_shows_its_trunk_the_same(told: Path) -> None:
    source: Detector = ssd(**NARROW, backbone_weights=told)
    arguments = {key: value for key, value in NARROW.items() if key != "num_classes"}
    recipe = Recipe(builder="refinedet", arguments=arguments)
    data = Dataset(Path(), "voc", "train", ("a", "b"), (1, 2), ())
    assert build_detector(recipe, data, source).detector.preprocess.pixels == Pixels.named(HALVES)


def test_a_run_keeps_them_without_the_file_of_the_weights(told: Path) -> None:
    arguments = {key: value for key, value in NARROW.items() if key != "num_classes"}
    recipe = Recipe(builder="ssd", arguments={**arguments, "backbone_weights": str(told)})
    data = Dataset(Path(), "voc", "train", ("a", "b"), (1, 2), ())
    begun = with_pixels(recipe, build_detector(recipe, data).detector)
    assert begun.arguments["pixels"] == HALVES
    again, _ = resolve_resumed(begun, recipe)  # as the user names the recipe again, without a word on pixels
    gone = replace(again, arguments={**again.arguments, "backbone_weights": "gone.safetensors"})
    assert build_detector(gone, data, resumed=True).detector.preprocess.pixels == Pixels.named(HALVES)
