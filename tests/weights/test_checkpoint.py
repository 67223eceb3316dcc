"""One file holds a detector; nothing in it is executed or imported."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import singleshot
from singleshot.detectors import BUILDERS, Detector, find_builder, remembers_arguments, ssd
from singleshot.errors import UserError
from singleshot.losses.classification import SoftmaxLoss
from singleshot.ops.shapes import without_values
from singleshot.preprocess import Pixels
from singleshot.weights import checkpoint
from singleshot.weights.checkpoint import load, read_metadata, save

SMALL: dict[str, Any] = {
    "backbone": "mobilenetv2",
    "backbone_options": {"width": 0.25},
    "image_size": 64,
    "source_maps": [0, 1],
}
IMAGE = torch.rand(3, 70, 50, generator=torch.Generator().manual_seed(0))


@functools.cache
def built() -> Detector:
    torch.manual_seed(0)
    return ssd(num_classes=2, class_names=("cat", "dog"), category_ids=(17, "d"), **SMALL).eval()


@pytest.fixture
def detector() -> Detector:
    return copy.deepcopy(built())


@pytest.fixture
def path(detector: Detector, tmp_path: Path) -> Path:
    save(detector, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def found(detector: Detector) -> dict[str, Tensor]:
    with torch.no_grad():
        return detector([IMAGE])[0]  # type: ignore[return-value]


def text_of(path: Path) -> dict[str, str]:
    """The metadata as it is in the file."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def rewritten(path: Path, target: Path, **changes: object) -> Path:
    """The same file with other metadata; a value of None leaves an entry out."""
    text = {"format": "singleshot", **{name: json.dumps(value) for name, value in read_metadata(path).items()}}
    for name, value in changes.items():
        if value is None:
            del text[name]
        else:
            text[name] = value if isinstance(value, str) else json.dumps(value)
    save_file(load_file(path), target, text)
    return target


class TestRoundTrip:
    def test_outputs_are_bit_equal_with_names_and_ids(self, detector: Detector, path: Path) -> None:
        loaded = load(path)
        assert not loaded.training
        assert loaded.class_names == ("cat", "dog")
        assert loaded.category_ids == (17, "d")
        assert loaded.builder == "ssd"
        assert loaded.image_size == (64, 64)
        assert loaded.num_classes == 2
        for key, value in found(detector).items():
            assert torch.equal(found(loaded)[key], value)
        for key, value in detector.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)
        assert all(p.requires_grad for p in loaded.parameters())

    def test_weights_lie_aligned(self, path: Path) -> None:
        """As those of a new detector do: in the file they begin at any byte, and a convolution may round otherwise."""
        assert all(value.data_ptr() % 64 == 0 for value in load(path).state_dict().values())

    def test_metadata(self, detector: Detector, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save(detector, path, recipe={"epochs": 3}, metrics={"voc07": {"mAP": 0.5}})
        assert read_metadata(path) == {
            "detector": "ssd",
            "arguments": {"num_classes": 2, **SMALL},
            "class_names": ["cat", "dog"],
            "category_ids": [17, "d"],
            "recipe": {"epochs": 3},
            "metrics": {"voc07": {"mAP": 0.5}},
            "version": singleshot.__version__,
        }

    def test_a_loaded_detector_can_be_saved_again(self, path: Path, tmp_path: Path) -> None:
        save(load(path), tmp_path / "again.safetensors")
        assert read_metadata(tmp_path / "again.safetensors") == read_metadata(path)
        assert torch.equal(found(load(tmp_path / "again.safetensors"))["boxes"], found(load(path))["boxes"])

    def test_training_state_of_parts_is_kept(self, tmp_path: Path) -> None:
        frozen = ssd(num_classes=2, norm="frozen", frozen_stages=2, **SMALL)
        save(frozen, tmp_path / "model.safetensors")
        loaded = load(tmp_path / "model.safetensors")
        expected = [(name, p.requires_grad) for name, p in frozen.named_parameters()]
        assert [(name, p.requires_grad) for name, p in loaded.named_parameters()] == expected

    def test_half_is_half_the_size_and_near(self, detector: Detector, path: Path, tmp_path: Path) -> None:
        save(detector, tmp_path / "half.safetensors", half=True)
        assert (tmp_path / "half.safetensors").stat().st_size < 0.65 * path.stat().st_size
        loaded = load(tmp_path / "half.safetensors")
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        pixels = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            exact, rough = (d.network(pixels)["class_logits"] for d in (detector, loaded))
        assert (exact - rough).norm() < 0.01 * exact.norm()

    def test_parts_as_arguments(self, tmp_path: Path) -> None:
        pixels = Pixels((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "bgr")
        given = ssd(num_classes=2, classification=SoftmaxLoss(ratio=1.5), pixels=pixels, **SMALL)
        save(given, tmp_path / "model.safetensors")
        stored = read_metadata(tmp_path / "model.safetensors")["arguments"]
        assert stored["classification"] == {"type": "SoftmaxLoss", "ratio": 1.5, "key": "class_logits"}
        loaded = load(tmp_path / "model.safetensors")
        assert loaded.criterion.terms["classification"] == SoftmaxLoss(ratio=1.5)
        assert loaded.preprocess.pixels == pixels

    def test_the_backbones_own_weights_file_need_not_exist(self, detector: Detector, tmp_path: Path) -> None:
        trunk = detector.backbone.backbone.state_dict()  # type: ignore[union-attr]
        save_file(trunk, tmp_path / "trunk.safetensors")
        given = ssd(num_classes=2, backbone_weights=tmp_path / "trunk.safetensors", **SMALL)  # type: ignore[arg-type]
        save(given, tmp_path / "model.safetensors")
        os.unlink(tmp_path / "trunk.safetensors")
        loaded = load(tmp_path / "model.safetensors")
        assert torch.equal(found(loaded)["scores"], found(given.eval())["scores"])
        assert loaded.arguments["backbone_weights"] == str(tmp_path / "trunk.safetensors")

    def test_a_header_of_any_length_is_read(self, detector: Detector, tmp_path: Path) -> None:
        """The file starts with the header's length, which may look like the start of a pickle."""
        path, seen = tmp_path / "model.safetensors", set()
        for padding in range(0, 264, 8):
            save(detector, path, recipe={"note": "x" * padding})
            seen.add(path.read_bytes()[:1])
            read_metadata(path)
        assert b"\x80" in seen


class TestSaveRefuses:
    def test_what_was_put_together_by_hand(self, detector: Detector, tmp_path: Path) -> None:
        detector.builder = None
        with pytest.raises(UserError, match="remembers_arguments"):
            save(detector, tmp_path / "model.safetensors")

    def test_an_argument_that_cannot_be_stored_naming_it(self, detector: Detector, tmp_path: Path) -> None:
        detector.arguments["classification"] = torch.nn.ReLU()
        with pytest.raises(UserError, match=r"argument 'classification' of ssd: cannot store ReLU"):
            save(detector, tmp_path / "model.safetensors")
        assert not list(tmp_path.iterdir())

    def test_a_failure_leaves_the_old_file(
        self, detector: Detector, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint.write_atomically.__globals__["os"], "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(detector, path)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class TestLoadRefuses:
    @pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
    def test_pickles_without_running_them(self, tmp_path: Path, kind: str) -> None:
        path, mark = tmp_path / "model.pt", tmp_path / "mark"
        if kind == "pickle":
            path.write_bytes(pickle.dumps(Evil(mark)))
        else:
            torch.save(Evil(mark), path, _use_new_zipfile_serialization=kind == "zip")
        with pytest.raises(UserError, match=r"model\.pt: this is a pickle .* expected a \.safetensors file"):
            load(path)
        assert not mark.exists()

    def test_a_pickle_called_safetensors(self, tmp_path: Path) -> None:
        torch.save({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match="is a pickle"):
            load(tmp_path / "model.safetensors")

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"hello, this is a text file", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{not json at all", b"\x00" * 64],
    )
    def test_broken_files(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file"):
            load(tmp_path / "model.safetensors")

    @pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
    def test_a_truncated_file(self, path: Path, share: float) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match="not a safetensors file"):
            load(path)

    def test_a_rotten_bit(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"model\.safetensors: damaged: .* checksum"):
            load(path)

    @pytest.mark.parametrize("name", ["weight", "running_var"])
    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_broken_weights_are_neither_read_nor_written(self, path: Path, name: str, value: float) -> None:
        detector, before = load(path), path.read_bytes()
        key = next(key for key in detector.state_dict() if key.endswith(name))
        detector.state_dict()[key].view(-1)[0] = value
        with pytest.raises(UserError, match=rf"not written: 1 tensor with NaN or infinite values: {re.escape(key)}; "):
            save(detector, path)
        assert path.read_bytes() == before
        weights = load_file(path)
        weights[key].view(-1)[0] = value
        save_file(weights, path, {name: text for name, text in text_of(path).items() if name != "sha256"})
        with pytest.raises(
            UserError, match=rf"model\.safetensors: 1 tensor with NaN or infinite values: {re.escape(key)}; "
        ):
            load(path)

    def test_weights_beyond_the_range_of_16_bits_keep_32(self, path: Path, tmp_path: Path) -> None:
        detector = load(path)
        weight = next(value for value in detector.state_dict().values() if value.ndim == 4)
        weight.view(-1)[0] = 1e6
        save(detector, tmp_path / "half.safetensors", half=True)
        assert all(value.isfinite().all() for value in load(tmp_path / "half.safetensors").state_dict().values())

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_named_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "model.safetensors")
        with pytest.raises(UserError, match="is a named pipe"):
            load(tmp_path / "model.safetensors")

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such file"):
            load(tmp_path / "nothing.safetensors")
        (tmp_path / "last.safetensors").touch()
        with pytest.raises(UserError, match=r"best\.safetensors: no such file; the run was not validated: take .*last"):
            load(tmp_path / "best.safetensors")
        with pytest.raises(UserError, match="is a folder"):
            load(tmp_path)

    def test_weights_of_something_else(self, tmp_path: Path) -> None:
        save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=r"holds weights but not a detector .* backbone_weights"):
            load(tmp_path / "model.safetensors")

    def test_another_kind_of_zip(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
            file.writestr("a", "b")
        with pytest.raises(UserError, match="pickle"):
            load(tmp_path / "model.zip")

    def test_a_builder_outside_of_the_table(self, path: Path) -> None:
        rewritten(path, path, detector=json.dumps("yolo"))
        with pytest.raises(UserError, match=r"builder 'yolo', which is not in this package .* builder="):
            load(path)

    def test_a_dotted_builder_is_not_imported(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "evil_lab.py").write_text("import os; os.mkdir(os.path.join(os.path.dirname(__file__), 'mark'))")
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("evil_lab:build", "evil_lab.build", "evil_lab"):
            rewritten(path, tmp_path / "evil.safetensors", detector=json.dumps(name))
            with pytest.raises(UserError, match="not in this package"):
                load(tmp_path / "evil.safetensors")
        arguments = {**read_metadata(path)["arguments"], "classification": {"type": "evil_lab:Loss"}}
        rewritten(path, tmp_path / "evil.safetensors", arguments=arguments)
        with pytest.raises(UserError, match="unknown part 'evil_lab:Loss'"):
            load(tmp_path / "evil.safetensors")
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize("part", ["FocalLossOfMine", "os.system", "__class__", "Detector", ["list"], None, 3])
    def test_a_part_outside_of_the_table(self, path: Path, part: object) -> None:
        arguments = {**read_metadata(path)["arguments"], "classification": {"type": part}}
        rewritten(path, path, arguments=arguments)
        with pytest.raises(UserError, match=r"model\.safetensors: .*"):
            load(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"colour": "red"},
            {"image_size": "large"},
            {"image_size": {}},
            {"image_size": [64]},
            {"image_size": -5},
            {"image_size": 10**30},
            {"num_classes": 0},
            {"num_classes": "two"},
            {"num_classes": 3},
            {"backbone": "resnet18"},
            {"backbone": 7},
            {"backbone_options": [1]},
            {"backbone_options": {"width": 1e9}},
            {"source_maps": 5},
            {"aspect_ratios": [0.0]},
            {"aspect_ratios": ["a"]},
            {"box_sizes": {"a": 1}},
            {"pixels": {"type": "Pixels", "colour": 1}},
            {"classification": {"ratio": 3}},
            {"classification": 3},
        ],
    )
    def test_arguments_that_cannot_be_or_do_not_fit(self, path: Path, changes: dict[str, object]) -> None:
        rewritten(path, path, arguments={**read_metadata(path)["arguments"], **changes})
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            load(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"detector": 3},
            {"detector": ["ssd"]},
            {"arguments": []},
            {"class_names": "cat"},
            {"class_names": ["cat"]},
            {"class_names": ["cat", "cat"]},
            {"category_ids": [[1], [2]]},
            {"category_ids": 5},
            {"arguments": "{broken"},
            {"arguments": "[" * 100_000},
            {"version": None},
            {"class_names": None},
            {"format": "other"},
            {"metrics": "9" * 5000},
            {"recipe": "[" * 100_000},
            {"arguments": {"num_classes": 10**400}},
            {"arguments": {**SMALL, "num_classes": 2, "backbone": "x" * 10**6}},
            {"arguments": {**SMALL, "num_classes": 2, "aspect_ratios": [2.0] * 10**5}},
            {"class_names": ["a"] * 10**6},
        ],
    )
    def test_broken_metadata(self, path: Path, changes: dict[str, object]) -> None:
        rewritten(path, path, **changes)
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            load(path)

    @pytest.mark.parametrize("kind", ["missing", "extra", "shape", "dtype"])
    def test_weights_that_do_not_fit(self, path: Path, kind: str) -> None:
        weights, metadata = load_file(path), read_metadata(path)
        name = next(key for key in weights if key.endswith("predict.box_deltas.bias"))
        match kind:
            case "missing":
                del weights[name]
            case "extra":
                weights["more"] = torch.zeros(1)
            case "shape":
                weights[name] = torch.zeros(3)
            case "dtype":
                weights[name] = weights[name].int()
        save_file(
            weights, path, {"format": "singleshot", **{key: json.dumps(value) for key, value in metadata.items()}}
        )
        with pytest.raises(UserError, match=r"does not fit the detector 'ssd': .*(box_deltas|more)"):
            load(path)


@remembers_arguments
def my_detector(*, num_classes: int, side: int = 64) -> Detector:
    """A user's own builder, without class_names."""
    return ssd(num_classes=num_classes, **{**SMALL, "image_size": side})


@remembers_arguments
def my_flexible_detector(num_classes: int, **options: Any) -> Detector:
    return ssd(num_classes=num_classes, **options)


@remembers_arguments
def tied(num_classes: int) -> Detector:
    """One parameter under two names, and a mask."""
    detector: Any = ssd(num_classes=num_classes, **SMALL)
    detector.scale = torch.nn.Parameter(torch.rand(2))
    detector.twin = detector.scale
    detector.register_buffer("mask", torch.zeros(2))
    return detector  # type: ignore[no-any-return]


class TestOwnBuilder:
    def test_is_passed_by_the_user(self, tmp_path: Path) -> None:
        path, own = tmp_path / "model.safetensors", my_detector(num_classes=2, side=96).eval()
        save(own, path)
        assert read_metadata(path)["detector"] == "my_detector"
        assert read_metadata(path)["arguments"] == {"num_classes": 2, "side": 96}
        with pytest.raises(UserError, match="not in this package"):
            load(path)
        loaded = load(path, builder=my_detector)
        assert loaded.image_size == (96, 96)
        assert torch.equal(found(loaded)["scores"], found(own)["scores"])
        save(loaded, tmp_path / "again.safetensors")
        assert read_metadata(tmp_path / "again.safetensors") == read_metadata(path)

    def test_names_and_ids_travel_although_the_builder_does_not_take_them(self, tmp_path: Path) -> None:
        own = my_detector(num_classes=2)
        own.class_names, own.category_ids = ("a", "b"), (5, 9)
        save(own, tmp_path / "model.safetensors")
        loaded = load(tmp_path / "model.safetensors", builder=my_detector)
        assert (loaded.class_names, loaded.category_ids) == (("a", "b"), (5, 9))

    def test_with_free_keywords(self, tmp_path: Path) -> None:
        own = my_flexible_detector(2, class_names=("a", "b"), **SMALL).eval()
        assert own.arguments == {"num_classes": 2, **SMALL}
        save(own, tmp_path / "model.safetensors")
        loaded = load(tmp_path / "model.safetensors", builder=my_flexible_detector)
        assert loaded.class_names == ("a", "b")
        assert torch.equal(found(loaded)["scores"], found(own)["scores"])

    def test_what_is_one_parameter_stays_one(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        own = tied(2)
        own.mask[0] = -torch.inf
        save(own, path)
        loaded = load(path, builder=tied)
        assert loaded.twin is loaded.scale
        assert loaded.scale.requires_grad
        assert loaded.mask.tolist() == [-torch.inf, 0]
        assert len(list(loaded.parameters())) == len(list(own.parameters()))
        weights = load_file(path)
        weights["twin"] += 1
        save_file(weights, path, {name: text for name, text in text_of(path).items() if name != "sha256"})
        with pytest.raises(UserError, match="scale and twin differ, but in this detector they are one tensor"):
            load(path, builder=tied)

    def test_no_builder_of_this_package_has_one_parameter_under_two_names(self) -> None:
        for build in BUILDERS.values():
            with without_values():
                detector = build(num_classes=2)
            names = detector.state_dict(keep_vars=True)
            assert len({id(tensor) for tensor in names.values()}) == len(names)

    def test_by_dotted_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own_parts.py").write_text("from singleshot.detectors import ssd as mine\nnumber = 3\n")
        monkeypatch.syspath_prepend(tmp_path)
        assert find_builder("own_parts:mine") is ssd
        for wrong, message in (
            ("own_parts:other", "cannot be imported"),
            ("nowhere:x", "cannot be"),
            ("own_parts:number", "int"),
        ):
            with pytest.raises(UserError, match=message):
                find_builder(wrong)

    def test_an_error_in_it_is_not_hidden(self, path: Path) -> None:
        def broken(**_: object) -> Detector:
            raise KeyError("a mistake in the user's own code")

        with pytest.raises(KeyError, match="mistake"):
            load(path, builder=broken)


def test_mapping_metadata_of_any_kind_is_stored(detector: Detector, tmp_path: Path) -> None:
    metrics: Mapping[str, Any] = {"coco": {"AP": float("nan")}, "none": None}
    save(detector, tmp_path / "model.safetensors", metrics=metrics)
    assert read_metadata(tmp_path / "model.safetensors")["metrics"]["none"] is None


def test_loading_does_not_unpickle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    assert isinstance(load(path), Detector)
    with pytest.raises(AssertionError):
        torch.load(io.BytesIO())
