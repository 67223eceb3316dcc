"""singleshot.backbones.pretrained: files of weights, good and bad."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from singleshot.backbones import Backbone, build, load_backbone_weights
from singleshot.backbones.pretrained import read_tensors
from singleshot.backbones.vgg import VGG16, Tail
from singleshot.errors import UserError


@pytest.fixture(scope="module")
def source() -> Backbone:
    """A ResNet-18 whose every tensor is distinct."""
    torch.manual_seed(7)
    network = build("resnet18")
    for key, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
        elif not value.ndim:
            value.fill_(3)
        assert value.shape is not None, key
    return network


@pytest.fixture
def target() -> Backbone:
    torch.manual_seed(8)
    return build("resnet18")


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def classifier(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**weights, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


def test_safetensors(source: Backbone, target: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(classifier(source.state_dict()), path)
    assert not same(source, target)
    load_backbone_weights(target, path)
    assert same(source, target)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_pytorch_files(source: Backbone, target: Backbone, tmp_path: Path, container: str | None, legacy: bool) -> None:
    path = tmp_path / "resnet18.pth"
    weights: Any = OrderedDict(classifier(source.state_dict()))
    if container:
        weights = {container: weights, "epoch": 90, "arch": "resnet18"}
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    load_backbone_weights(target, path)
    assert same(source, target)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.", "module.backbone.body.", "backbone.backbone."])
def test_prefixes_and_whole_detectors(source: Backbone, target: Backbone, tmp_path: Path, prefix: str) -> None:
    weights = {prefix + key: value for key, value in source.state_dict().items()}
    if "backbone." in prefix:  # a detector: other parts stand beside the backbone
        weights |= {"head.levels.0.weight": torch.zeros(3)}
    if prefix == "backbone.backbone.":
        weights |= {"backbone.extras.0.0.0.weight": torch.zeros(2)}
    path = tmp_path / "wrapped.safetensors"
    save_file(weights, path)
    load_backbone_weights(target, path)
    assert same(source, target)


def test_half_precision_and_absent_counters(source: Backbone, target: Backbone, tmp_path: Path) -> None:
    weights = {key: value.half() for key, value in source.state_dict().items() if "num_batches" not in key}
    save_file(weights, tmp_path / "half.safetensors")
    load_backbone_weights(target, tmp_path / "half.safetensors")
    assert target.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(target.conv1.weight, source.conv1.weight, rtol=1e-3, atol=1e-4)


def test_stages_that_are_not_built_are_ignored(source: Backbone, tmp_path: Path) -> None:
    save_file(classifier(source.state_dict()), tmp_path / "a.safetensors")
    short = build("resnet18", options={"sources": (3, 4)}, weights=tmp_path / "a.safetensors")
    assert same(short, source)


def test_frozen_layers_are_loaded_too(source: Backbone, tmp_path: Path) -> None:
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    assert same(source, build("resnet18", norm="frozen", frozen_stages=2, weights=tmp_path / "a.safetensors"))


LIGHT = Tail((3, 1, 1), (3, 6), 16, ("conv4_3", "fc7"), {"conv4_3": 20.0})


def test_numbered_vgg_file_with_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    donor, taker = VGG16(LIGHT), VGG16(LIGHT)
    numbered = {
        "module." + key.replace("features.", "").replace("fc6.0.", "31.").replace("fc7.0.", "33."): value
        for key, value in donor.state_dict().items()
        if not key.startswith("scales.")
    }
    torch.save(numbered, tmp_path / "vgg16_reducedfc.pth")
    load_backbone_weights(taker, tmp_path / "vgg16_reducedfc.pth")
    assert same(donor, taker)


def test_missing_unexpected_and_misshapen_are_all_named(source: Backbone, target: Backbone, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in target.state_dict().items()}
    weights = dict(source.state_dict())
    del weights["layer1.0.conv1.weight"]
    weights["layer9.weight"] = torch.zeros(2)
    weights["bn1.bias"] = torch.zeros(5)
    path = tmp_path / "odd.safetensors"
    save_file(weights, path)
    with pytest.raises(UserError) as caught:
        load_backbone_weights(target, path)
    message = str(caught.value)
    for part in ("odd.safetensors", "ResNet", "1 missing: layer1.0.conv1.weight", "1 unexpected: layer9.weight"):
        assert part in message
    assert "bn1.bias is (5,), but the network needs (64,)" in message
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_another_architecture_is_refused_shortly(source: Backbone, tmp_path: Path) -> None:
    save_file(source.state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"missing.*and .* more.*unexpected") as caught:
        build("mobilenetv2", weights=tmp_path / "resnet.safetensors")
    assert len(str(caught.value)) < 700


def test_nan_is_refused(source: Backbone, target: Backbone, tmp_path: Path) -> None:
    weights = {key: value.clone() for key, value in source.state_dict().items()}
    weights["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"conv1\.weight"):
        load_backbone_weights(target, tmp_path / "nan.safetensors")


class Harmful:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Harmful(trap), protocol=2))
    torch.save({"state_dict": Harmful(trap)}, tmp_path / "zipped.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("plain.pkl", "zipped.pth", "module.pth"):
        with pytest.raises(UserError, match=name):
            read_tensors(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"hello, this is text\n",
        b"\x08\x00\x00\x00\x00\x00\x00\x00{",
        b"\xff" * 8 + b"{}",
        b"PK\x03\x04broken",
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        read_tensors(path)


def test_truncated_files(source: Backbone, tmp_path: Path) -> None:
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    torch.save(dict(source.state_dict()), tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=name):
            read_tensors(path)


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(1)], {"a": 1, "b": torch.zeros(1)}, torch.zeros(3), {1: torch.zeros(1)}]
)
def test_pytorch_files_of_other_things(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth.*expected a state dict"):
        read_tensors(tmp_path / "other.pth")


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        read_tensors(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_tensors(tmp_path)
