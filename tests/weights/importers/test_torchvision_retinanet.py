"""Torchvision's RetinaNets in ours: the stored outputs of the real ones, keys, labels, and what is refused.

`torchvision_retinanet.json` holds what torchvision's own models say; see `make_torchvision_fixture.py`.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot import backbones
from singleshot.detectors import Detector
from singleshot.errors import UserError
from singleshot.ops.shapes import without_values
from singleshot.structures import Predictions
from singleshot.weights import checkpoint
from singleshot.weights.importers.torchvision_retinanet import load_torchvision_retinanet

sys.path.insert(0, str(Path(__file__).parent))
import make_torchvision_fixture as made

V1, V2 = made.MODELS
EXPECTED: dict[str, Any] = json.loads(made.FIXTURE.read_text())
CLASS_BIAS = "head.classification_head.cls_logits.bias"


@functools.cache
def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The entries of torchvision's state dict, written down from its layout and compared with the real one's sum."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(key: str, outputs: int, inputs: int, kernel: int, *, bias: bool = True) -> None:
        found[f"{key}.weight"] = (outputs, inputs, kernel, kernel)
        if bias:
            found[f"{key}.bias"] = (outputs,)

    def norm(key: str, width: int, *, batch: bool = True) -> None:
        for kind in ("weight", "bias", *(("running_mean", "running_var") if batch else ())):
            found[f"{key}.{kind}"] = (width,)

    body, second = "backbone.body", name == V2
    conv(f"{body}.conv1", 64, 3, 7, bias=False)
    norm(f"{body}.bn1", 64)
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            at = f"{body}.layer{stage + 1}.{block}"
            sizes = ((width, inputs, 1), (width, width, 3), (4 * width, width, 1))
            for number, (outputs, before, kernel) in enumerate(sizes, 1):
                conv(f"{at}.conv{number}", outputs, before, kernel, bias=False)
                norm(f"{at}.bn{number}", outputs)
            if block == 0:
                conv(f"{at}.downsample.0", 4 * width, inputs, 1, bias=False)
                norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    for level, width in enumerate((512, 1024, 2048)):
        conv(f"backbone.fpn.inner_blocks.{level}.0", 256, width, 1)
        conv(f"backbone.fpn.layer_blocks.{level}.0", 256, 256, 3)
    conv("backbone.fpn.extra_blocks.p6", 256, 2048 if second else 256, 3)
    conv("backbone.fpn.extra_blocks.p7", 256, 256, 3)
    for head, last, outputs in (("classification", "cls_logits", 91), ("regression", "bbox_reg", 4)):
        for layer in range(4):
            conv(f"head.{head}_head.conv.{layer}.0", 256, 256, 3, bias=not second)
            if second:
                norm(f"head.{head}_head.conv.{layer}.1", 256, batch=False)
        conv(f"head.{head}_head.{last}", 9 * outputs, 256, 3)
    return found


@functools.cache
def weights(name: str) -> dict[str, Tensor]:
    return made.made_up_weights(shapes(name))


@functools.cache
def loaded(name: str) -> Detector:
    return load_torchvision_retinanet(weights(name), image_size=made.SHORT, max_size=made.LONGEST)


@functools.cache
def predictions(name: str) -> Predictions:
    with torch.no_grad():
        return loaded(name).raw(made.made_up_images()).predictions


@functools.cache
def with_class_0(name: str) -> Detector:
    """The same with all columns of torchvision's: there is a name for each."""
    names, epsilon = [f"c{number}" for number in range(91)], EXPECTED[name]["epsilon"]
    return load_torchvision_retinanet(
        weights(name), image_size=made.SHORT, max_size=made.LONGEST, class_names=names, norm_epsilon=epsilon
    )


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision named the entries before its version 0.13, and as the released file of v1 still does."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if "inner_blocks" in parts or "layer_blocks" in parts:
            del parts[-2]
        elif "conv" in parts:
            parts[-3:-1] = [str(2 * int(parts[-3]))]
        renamed[".".join(parts)] = value
    return renamed


def assert_close(found: Tensor, expected: Any, relative: float = 0.0) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=relative, atol=1e-4)


@pytest.mark.parametrize("name", made.MODELS)
def test_state_dict_is_torchvisions(name: str) -> None:
    entries = EXPECTED[name]["state_dict"]
    assert len(shapes(name)) == entries["entries"]
    assert made.checksum(shapes(name)) == entries["checksum"]


@pytest.mark.parametrize("name", made.MODELS)
def test_network_says_what_torchvisions_says(name: str) -> None:
    expected = EXPECTED[name]
    with torch.no_grad():
        found = with_class_0(name).raw(made.made_up_images()).predictions
    torch.testing.assert_close(predictions(name)["class_logits"], found["class_logits"][..., 1:])
    torch.testing.assert_close(predictions(name)["box_deltas"], found["box_deltas"])
    logits, deltas = found["class_logits"], found["box_deltas"]
    assert logits.shape == (2, sum(expected["counts"]), 91)
    places = made.positions(logits.shape[1])
    assert_close(torch.stack([logits[place] for place in places]), expected["logits"])
    assert_close(torch.stack([deltas[place[:2]] for place in places]), expected["deltas"])
    for output, values in (("logits", logits), ("deltas", deltas)):
        levels = torch.split(values, expected["counts"], 1)
        assert_close(
            torch.stack([torch.stack(made.moments(part)) for part in levels]), expected["level_mean_std"][output]
        )


@pytest.mark.parametrize("name", made.MODELS)
def test_anchors_are_torchvisions(name: str) -> None:
    expected = EXPECTED[name]
    anchors = loaded(name).raw(made.made_up_images()).anchors
    assert list(anchors.counts) == expected["counts"]
    found = torch.stack([anchors.boxes[a] for _, a, _ in made.positions(len(anchors.boxes))])
    assert torch.equal(found, torch.tensor(expected["anchors"]))


@pytest.mark.parametrize("name", made.MODELS)
def test_detections_are_torchvisions(name: str) -> None:
    """Best first, sizes rounded down, boxes cut at the image before suppression; labels are the ids."""
    results = loaded(name)(made.made_up_images())
    for found, expected in zip(results, EXPECTED[name]["detections"], strict=True):
        assert isinstance(found, dict)
        assert len(found["scores"]) == expected["count"] == 300
        assert [loaded(name).category_ids[label] for label in found["labels"][: made.KEPT]] == expected["labels"]
        assert_close(found["scores"][: made.KEPT], expected["scores"])
        # Pixels up to 173: in float32 these have not much more than four digits behind the point.
        assert_close(found["boxes"][: made.KEPT], expected["boxes"], relative=1e-5)


def test_labels_are_category_ids() -> None:
    detector = loaded(V1)
    assert detector.category_ids == tuple(range(1, 91))
    named = dict(zip(detector.category_ids, detector.class_names, strict=True))
    assert [named[i] for i in (1, 12, 18, 90)] == ["person", "unused 12", "dog", "toothbrush"]
    assert sum(name.startswith("unused") for name in detector.class_names) == 10


def test_class_0_is_left_out_unless_it_has_a_name() -> None:
    renamed = load_torchvision_retinanet(weights(V1), class_names=[f"c{i}" for i in range(1, 91)])
    assert (renamed.num_classes, renamed.category_ids[2], renamed.class_names[2]) == (90, 3, "c3")
    assert with_class_0(V1).category_ids == tuple(range(91))
    with pytest.raises(UserError, match="have 90 classes, but 80 names were given"):
        load_torchvision_retinanet(weights(V1), class_names=[f"c{i}" for i in range(80)])


def test_conventions() -> None:
    first, second = loaded(V1), loaded(V2)
    assert first.anchors.per_location == (9,) * 5
    postprocess: Any = first.postprocess
    assert (postprocess.threshold, postprocess.candidates, postprocess.iou, postprocess.detections) == (
        0.05, 1000, 0.5, 300,
    )  # fmt: skip
    assert load_torchvision_retinanet(weights(V1)).image_size == (800, 1344)
    trainable = {name for name, parameter in first.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) or ".bn" in name for name in trainable)
    assert "backbone.layer2.0.bn1.weight" in {name for name, p in second.named_parameters() if p.requires_grad}
    assert not first.training


def test_files_and_names_of_all_versions(tmp_path: Path) -> None:
    old = old_names(weights(V1))
    assert "backbone.fpn.inner_blocks.0.weight" in old
    assert "head.regression_head.conv.6.bias" in old
    torch.save({"model": {f"module.{key}": value for key, value in old.items()}}, tmp_path / "old.pth")
    detector = load_torchvision_retinanet(tmp_path / "old.pth")
    for key, value in loaded(V1).state_dict().items():
        assert torch.equal(detector.state_dict()[key], value), key
    batch_norm = {**weights(V2), "backbone.body.bn1.num_batches_tracked": torch.tensor(7)}
    assert load_torchvision_retinanet(batch_norm).builder == "retinanet"


def test_a_saved_detector_is_the_same(tmp_path: Path) -> None:
    checkpoint.save(loaded(V1), tmp_path / "model.safetensors")
    again = checkpoint.load(tmp_path / "model.safetensors")
    assert again.class_names == loaded(V1).class_names
    images = made.made_up_images()
    for found, expected in zip(again(images), loaded(V1)(images), strict=True):
        assert isinstance(found, dict)
        assert isinstance(expected, dict)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_epsilon_goes_into_the_scales() -> None:
    """By hand: a variance of 1e-4 trained with epsilon 0 needs a scale of sqrt(1.1) times as much with our 1e-5."""
    state = {**weights(V1), "backbone.body.bn1.running_var": torch.full((64,), 1e-4)}
    scale = state["backbone.body.bn1.weight"]
    found = load_torchvision_retinanet(state).state_dict()["backbone.bn1.weight"]
    torch.testing.assert_close(found, scale * 1.1**0.5)
    untouched = load_torchvision_retinanet(state, norm_epsilon=1e-5).state_dict()["backbone.bn1.weight"]
    assert torch.equal(untouched, scale)
    dead = {**state, "backbone.body.bn1.running_var": torch.zeros(64)}
    assert load_torchvision_retinanet(dead).state_dict()["backbone.bn1.weight"].isfinite().all()


def test_the_given_weights_stay_as_they_are() -> None:
    state = {key: value.clone() for key, value in weights(V2).items()}
    detector = load_torchvision_retinanet(state)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert torch.equal(state[CLASS_BIAS], weights(V2)[CLASS_BIAS])


def test_other_numbers_of_classes() -> None:
    state = dict(weights(V1))
    state[CLASS_BIAS] = state[CLASS_BIAS][: 9 * 3]
    state[CLASS_BIAS.replace("bias", "weight")] = state[CLASS_BIAS.replace("bias", "weight")][: 9 * 3]
    detector = load_torchvision_retinanet(state)
    assert detector.class_names == ("class 1", "class 2")
    assert detector.category_ids == (1, 2)
    # Only the released weights of 91 classes were trained with epsilon 0.
    assert torch.equal(detector.state_dict()["backbone.bn1.weight"], state["backbone.body.bn1.weight"])


def test_wrong_keys_are_named() -> None:
    state = dict(weights(V1))
    state["backbone.body.layer4.2.conv3.extra"] = state.pop("backbone.body.layer4.2.conv3.weight")
    with pytest.raises(UserError, match="1 missing: backbone.body.layer4.2.conv3.weight; 1 unexpected: .*conv3.extra"):
        load_torchvision_retinanet(state)
    shape = {**weights(V1), "backbone.fpn.layer_blocks.1.0.weight": torch.zeros(256, 128, 3, 3)}
    with pytest.raises(UserError, match=r"layer_blocks.1.0.weight is \(256, 128, 3, 3\), expected \(256, 256, 3, 3\)"):
        load_torchvision_retinanet(shape)
    with pytest.raises(UserError, match=r"RetinaNet on resnet101: 255 missing: backbone.body.layer3.6"):
        load_torchvision_retinanet(weights(V1), backbone="resnet101")


def test_what_is_no_retinanet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cls_logits.bias.* missing; the keys are conv1.weight"):
        load_torchvision_retinanet({"conv1.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="the keys are none"):
        load_torchvision_retinanet({})
    own = {**weights(V1), "head.regression_head.bbox_reg.bias": torch.zeros(12)}
    with pytest.raises(UserError, match="models with another anchor generator cannot be loaded"):
        load_torchvision_retinanet(own)
    damaged = {**weights(V1), "backbone.body.bn1.bias": torch.full((64,), torch.nan)}
    with pytest.raises(UserError, match="NaN or infinite.*backbone.bn1.bias"):
        load_torchvision_retinanet(damaged)
    with pytest.raises(UserError, match="gone.pth: no such file"):
        load_torchvision_retinanet(tmp_path / "gone.pth")


def test_the_trunk_is_the_one_of_the_weights() -> None:
    """A file with the layers of another ResNet is read as that one, without its name."""
    others = {key: value for key, value in weights(V1).items() if ".layer3.5." not in key}
    with pytest.raises(UserError, match="3-4-5-3 blocks.*expected a ResNet or ResNeXt: one of resnet18, "):
        load_torchvision_retinanet(others)
    with without_values():
        trunk = backbones.build("resnext50_32x4d", norm="frozen").state_dict()
    kept = {key: value for key, value in weights(V1).items() if "backbone.body" not in key}
    made_up = {f"backbone.body.{key}": torch.ones(value.shape) for key, value in trunk.items()}
    assert load_torchvision_retinanet({**kept, **made_up}).arguments["backbone"] == "resnext50_32x4d"
