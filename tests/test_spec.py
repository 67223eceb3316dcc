"""What surrounds a network: as plain data and back, in weights files, and enough to read predictions by."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_bytes

import singleshot as ss
from singleshot.detectors import Detector, iou_retinanet, refinedet, retinanet, ssd
from singleshot.errors import UserError
from singleshot.ops.fit import LongestSide, ShortSide, TorchvisionShortSide
from singleshot.postprocess import PerClassPostprocess, stored, vary
from singleshot.preprocess import KeepAspect, Pixels, Stretch
from singleshot.spec import Spec
from singleshot.tensor_files import unpacked
from singleshot.weights.checkpoint import read_spec

SMALL = {"backbone": "mobilenetv2", "backbone_options": {"width": 0.25}}
BUILD: dict[str, Callable[..., Detector]] = {
    "ssd": functools.partial(ssd, **SMALL, image_size=(64, 96), pixels="caffe_bgr"),
    "voting": functools.partial(ssd, **SMALL, image_size=64, vote=0.05),
    "focal": functools.partial(ssd, **SMALL, image_size=64, classification={"type": "FocalLoss"}, iou_head=True),
    "several": functools.partial(ssd, **SMALL, image_size=64, iou_head={"alpha": None}, outputs=["Centreness"]),
    "retinanet": functools.partial(retinanet, backbone="resnet18", channels=32, image_size=64, max_size=96),
    "torchvision": functools.partial(retinanet, backbone="resnet18", channels=32, image_size=64, resize="torchvision"),
    "longest": functools.partial(iou_retinanet, backbone="resnet18", channels=32, image_size=64, resize="longest"),
    "refinedet": functools.partial(refinedet, **SMALL, channels=32, image_size=64, soft_nms=0.3, candidates=None),
}


@functools.cache
def built(name: str) -> Detector:
    torch.manual_seed(0)
    detector = BUILD[name](num_classes=2, class_names=["cat", "dög"], category_ids=[7, "d"]).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith("class_logits.bias"):
            torch.nn.init.zeros_(parameter)  # an untrained network with a prior would find nothing at all
    return detector


@pytest.mark.parametrize("name", BUILD)
def test_plain_data_and_back(name: str) -> None:
    spec = built(name).spec
    assert Spec.from_json(json.loads(spec.to_text())) == spec
    assert spec.class_names == ("cat", "dög")
    assert spec.category_ids == (7, "d")
    assert spec.preprocess == built(name).preprocess
    fixed = replace(spec, input_size=(64, 96), batch=(2, 4), input="image", outputs="raw", precision="int8")
    assert Spec.from_json(json.loads(fixed.to_text())) == fixed


@pytest.mark.parametrize("name", BUILD)
def test_the_post_processing_that_it_tells_finds_the_same(name: str) -> None:
    detector = built(name)
    told = Spec.from_json(json.loads(detector.spec.to_text()))
    assert told.postprocess is not None
    again = stored.restore(told.postprocess)
    image = torch.rand(3, 80, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = detector.raw([image])
        (found,), (expected,) = detector.detections(raw, again), detector.detections(raw)
    assert len(expected["scores"]) > 0
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    # Another number is seen, so the comparison above can fail.
    (fewer,) = detector.detections(raw, vary(again, "detections", 1))
    assert len(fewer["scores"]) == 1 < len(expected["scores"])


def test_a_weights_file_tells_it(tmp_path: Path) -> None:
    ss.save(built("refinedet"), tmp_path / "model.safetensors")
    assert read_spec(tmp_path / "model.safetensors") == built("refinedet").spec


def test_a_file_of_an_older_version_does_not(tmp_path: Path) -> None:
    zoo = Path(__file__).resolve().parents[1] / "zoo" / "bccd.safetensors"
    tensors, text = unpacked(zoo.read_bytes(), "")
    old = tmp_path / "old.safetensors"
    old.write_bytes(to_bytes(tensors, {name: value for name, value in text.items() if name != "spec"}))
    with pytest.raises(UserError, match="has no spec .*load the detector and save it again"):
        read_spec(old)
    assert ss.load(old).spec == ss.load(zoo).spec == read_spec(zoo)


def test_parts_of_the_users_own_are_left_out() -> None:
    class Mine(Stretch):
        """Another preparation, which no file can name."""

    class MyScores:
        """Other scores."""

    detector = BUILD["ssd"](num_classes=1)
    detector.preprocess = Mine((64, 64))
    detector.postprocess = replace(detector.postprocess, scores=MyScores())  # type: ignore[type-var]
    assert detector.spec.preprocess is None
    assert detector.spec.postprocess is None
    assert Spec.from_json(detector.spec.to_json()) == detector.spec


RULES = [
    Stretch((30, 40), Pixels.named("caffe_bgr")),
    KeepAspect(ShortSide(30, 50), divisor=1),
    KeepAspect(TorchvisionShortSide(30, 50), jitter=(20, 40)),
    KeepAspect(LongestSide(40), Pixels((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule(rule: Any) -> None:
    spec = Spec(("a",), (1,), rule, None)
    assert Spec.from_json(json.loads(spec.to_text())) == spec


PLAIN = Spec(("a",), (1,), RULES[0], {"type": "PerClassPostprocess"}).to_json()


def _pixels(**changes: Any) -> dict[str, Any]:
    rule = PLAIN["preprocess"]
    return {**PLAIN, "preprocess": {**rule, "pixels": {**rule["pixels"], **changes}}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "all of it is missing"),
        ({}, "batch, category_ids, class_names"),
        ({**PLAIN, "class_names": ["a", "b"]}, "2 class names but 1 category ids"),
        ({**PLAIN, "class_names": [3]}, "a class name must be text, got 3"),
        ({**PLAIN, "batch": [3, 2]}, "fewest and the most"),
        ({**PLAIN, "batch": [float("inf"), 2]}, "cannot be read"),
        ({**PLAIN, "category_ids": [[1]]}, "a category id must be a whole number or text"),
        ({**PLAIN, "postprocess": [1]}, "the post-processing must be a mapping or null"),
        ({**PLAIN, "input_size": [8_001, 8_000]}, "would be 8001x8000, 64,008,000 pixels; expected at most 64,000,000"),
        ({**PLAIN, "preprocess": {**PLAIN["preprocess"], "size": [16_384, 16_384]}}, "expected at most 64,000,000"),
        ({**PLAIN, "input_size": [10**9, 64]}, "the input must be .* 1 to 16384 pixels each"),
        ({**PLAIN, "preprocess": {**PLAIN["preprocess"], "size": [64, 10**9]}}, "1 to 16384 pixels each"),
        ({**PLAIN, "preprocess": {**PLAIN["preprocess"], "size": ["64", 64]}}, "1 to 16384 pixels each"),
        (_pixels(mean=[0.1, "x", 0.3]), "three means, three positive stds"),
        (_pixels(std=[0.1, 0, 0.3]), "three means, three positive stds"),
        (_pixels(std=[0.1, float("nan"), 0.3]), "three means, three positive stds"),
        (_pixels(order="grb"), "three means, three positive stds"),
        ({**PLAIN, "preprocess": {**PLAIN["preprocess"], "pixels": 3}}, "must be a Pixels"),
        ({**PLAIN, "batch": 3}, "cannot be read"),
        ({**PLAIN, "preprocess": {"type": "os.system"}}, "'os.system' is not a rule for resizing images"),
        ({**PLAIN, "preprocess": {"type": "ShortSide", "short": 3, "longest": 4}}, "Stretch or a KeepAspect"),
        ({**PLAIN, "preprocess": {"type": "Stretch", "height": 3}}, "cannot be read"),
        ({**PLAIN, "input_size": [3]}, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Spec.from_json(data)


@pytest.mark.parametrize("change", [{"type": "Mine"}, {"link": "magic"}, {"variances": [1]}, {"factors": [{}]}])
def test_a_post_processing_that_cannot_be_read_is_told(change: dict[str, Any]) -> None:
    whole = stored.store(built("several").postprocess)
    assert whole is not None
    with pytest.raises(UserError, match="stored post-processing cannot be read"):
        stored.restore({**whole, **change})


def test_clipping_before_nms_is_told_only_where_it_is_done() -> None:
    made = built("several").postprocess
    assert isinstance(made, PerClassPostprocess)
    whole, clipped = stored.store(made), stored.store(replace(made, clip_first=True))
    assert whole is not None
    assert clipped == {**whole, "clip_first": True}
    assert stored.restore(clipped) == replace(stored.restore(whole), clip_first=True)
    with pytest.raises(UserError, match="cannot be read"):
        stored.restore({name: value for name, value in whole.items() if name != "iou"})


def test_needs_no_pytorch() -> None:
    program = (
        "import json, sys\n"
        "from singleshot.spec import Spec\n"
        "Spec.from_json(json.loads(sys.argv[1])).to_text()\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, built("longest").spec.to_text()], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
