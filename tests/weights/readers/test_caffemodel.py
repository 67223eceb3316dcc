"""singleshot.weights.readers.caffemodel: every form that Caffe has written, and damaged files."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe_nets import Layer, blob, caffemodel, inner, number, old_caffemodel, real

from singleshot.errors import UserError
from singleshot.source import Source
from singleshot.weights.readers import caffemodel as reader
from singleshot.weights.readers import read

RNG = np.random.default_rng(0)
LAYERS = [
    Layer("data", "AnnotatedData", (), {"mean_value": (104.0, 117.0, 123.0), "side": 300}),
    Layer("conv", "Convolution", ("data",), {"num_output": 5, "pad": 6, "kernel_size": 3, "stride": 1, "dilation": 6}),
    Layer("bn", "BatchNorm", ("conv",), {}),
    Layer("scale", "Scale", ("bn",), {}),
    Layer("conv_mbox_priorbox", "PriorBox", ("scale", "data"), {
        "min_size": (30.0,), "max_size": (60.5,), "aspect_ratio": (2.0, 3.0), "flip": 1, "clip": 0,
        "variance": (0.1, 0.1, 0.2, 0.2), "step": 8.0, "offset": 0.5,
    }),
    Layer("out", "DetectionOutput", ("scale",), {
        "num_classes": 21, "background_label_id": 0, "code_type": 2, "keep_top_k": 200, "confidence_threshold": 0.01,
        "nms_threshold": 0.45, "top_k": 400,
    }),
]  # fmt: skip
BLOBS = {
    "conv": [RNG.standard_normal((5, 3, 3, 3), np.float32), RNG.standard_normal(5, np.float32)],
    "bn": [np.full(5, 20, np.float32), np.full(5, 8, np.float32), np.full(1, 4, np.float32)],
    "scale": [np.full(5, 2, np.float32), np.full(5, 3, np.float32)],
}
GOOD = caffemodel("net", LAYERS, BLOBS)


def read_bytes(tmp_path: Path, content: bytes) -> Source:
    path = tmp_path / "some.caffemodel"
    path.write_bytes(content)
    return read(path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_every_form_of_blobs(tmp_path: Path, old: bool, packed: bool, double: bool) -> None:
    source = read_bytes(tmp_path, caffemodel("net", LAYERS, BLOBS, old=old, packed=packed, double=double))
    torch.testing.assert_close(source.tensors["conv.weight"], torch.from_numpy(BLOBS["conv"][0]), rtol=0, atol=0)
    torch.testing.assert_close(source.tensors["conv.bias"], torch.from_numpy(BLOBS["conv"][1]), rtol=0, atol=0)
    assert all(tensor.dtype == torch.float32 for tensor in source.tensors.values())
    assert source.where == f"{tmp_path / 'some.caffemodel'}: "


def test_batch_norms_mean_what_ours_mean(tmp_path: Path) -> None:
    tensors = read_bytes(tmp_path, GOOD).tensors
    names = [name for name in tensors if not name.startswith("conv")]
    assert names == ["bn.running_mean", "bn.running_var", "scale.weight", "scale.bias"]
    assert [float(tensors[name][0]) for name in names] == [5, 2, 2, 3]
    layers = [*LAYERS[:2], Layer("bn", "BatchNorm", ("conv",), {"eps": 0.5}), LAYERS[3]]
    other = read_bytes(tmp_path, caffemodel("net", layers, BLOBS)).tensors
    assert float(other["bn.running_var"][0]) == pytest.approx(2.5 - 1e-5, abs=1e-6)
    never = {**BLOBS, "bn": [*BLOBS["bn"][:2], np.zeros(1, np.float32)]}
    assert (
        float(read_bytes(tmp_path, caffemodel("net", layers[:2] + LAYERS[2:], never)).tensors["bn.running_mean"][0])
        == 0
    )


def test_settings_of_layers_are_notes(tmp_path: Path) -> None:
    notes = read_bytes(tmp_path, GOOD + inner(3, "data") + inner(8, inner(1, b"\x01\x03\xac\x02\xac\x02"))).notes
    assert notes["net"] == {"name": "net", "input_shape": [{"dim": [1, 3, 300, 300]}]}
    layers = notes["layers"]
    assert layers["data"] == {
        "type": "AnnotatedData",
        "transform_param": {"mean_value": [104.0, 117.0, 123.0], "resize_param": {"height": 300, "width": 300}},
    }
    assert layers["conv"]["convolution_param"] == {
        "num_output": 5, "pad": [6], "kernel_size": [3], "stride": [1], "dilation": [6],
    }  # fmt: skip
    assert layers["conv_mbox_priorbox"]["prior_box_param"] == {
        "min_size": [30.0], "max_size": [60.5], "aspect_ratio": [2.0, 3.0], "flip": True, "clip": False,
        "variance": [0.1, 0.1, 0.2, 0.2], "step": 8.0, "offset": 0.5,
    }  # fmt: skip
    assert layers["out"]["detection_output_param"] == {
        "num_classes": 21, "background_label_id": 0, "code_type": 2, "keep_top_k": 200, "confidence_threshold": 0.01,
        "nms_param": {"nms_threshold": 0.45, "top_k": 400},
    }  # fmt: skip


def test_nets_of_before_2014(tmp_path: Path) -> None:
    layers = [
        Layer("conv1_1", "Convolution", ("data",)), Layer("relu1_1", "ReLU", ("conv1_1",)),
        Layer("fc6", "InnerProduct", ("conv1_1",)),
    ]  # fmt: skip
    blobs = {"conv1_1": BLOBS["conv"], "fc6": [RNG.standard_normal((4, 6), np.float32), np.ones(4, np.float32)]}
    source = read_bytes(tmp_path, old_caffemodel("old", layers, blobs))
    assert source.shapes == {
        "conv1_1.weight": (5, 3, 3, 3),
        "conv1_1.bias": (5,),
        "fc6.weight": (4, 6),
        "fc6.bias": (4,),
    }
    assert [layer["type"] for layer in source.notes["layers"].values()] == ["Convolution", "18", "InnerProduct"]
    torch.testing.assert_close(source.tensors["fc6.weight"], torch.from_numpy(blobs["fc6"][0]))


def test_long_runs_of_unpacked_numbers(tmp_path: Path) -> None:
    values = np.arange(5_000, dtype=np.float32).reshape(100, 50)
    layers = [Layer("fc", "InnerProduct")]
    for extra in (b"", real(5, 7.0)):  # also in two pieces, with another field between them
        content = blob(values, packed=False) + extra
        count = 5_000 + bool(extra)
        content = content.replace(inner(7, inner(1, b"\x64\x32")), inner(7, inner(1, number(0, count)[1:])))
        found = read_bytes(tmp_path, inner(100, inner(1, "fc") + inner(2, layers[0].type) + inner(7, content)))
        assert found.tensors["fc.weight"].flatten()[:5_000].tolist() == list(range(5_000))
        assert len(found.tensors["fc.weight"]) == count


def a_layer(*parts: bytes) -> bytes:
    return inner(1, "net") + inner(100, inner(1, "conv") + inner(2, "Convolution") + b"".join(parts))


SHAPE = inner(7, inner(1, b"\x02"))
BAD: dict[str, tuple[bytes, str]] = {
    "a length beyond the file": (inner(1, "net") + b"\xa2\x06" + b"\xff" * 8 + b"\x7f", "longer than what contains it"),
    "a length beyond the layer": (a_layer(b"\x3a\xff\xff\xff\xff\x07"), "longer than what contains it"),
    "a number without an end": (inner(1, "net") + b"\x12" + b"\xff" * 20, "a number without an end"),
    "a group": (inner(1, "net") + b"\x22\x00" + b"\x0b" * 50, "unknown kind 3"),
    "no field": (inner(1, "net") + b"\x22\x00\x00\x00", "no field"),
    "too few numbers": (a_layer(inner(7, inner(5, b"\0" * 4) + SHAPE)), r"conv.*1 numbers for .* shape \(2,\)"),
    "a huge shape": (
        a_layer(inner(7, inner(5, b"\0" * 8) + inner(7, inner(1, b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 4)))),
        "2 numbers for a blob of the shape",
    ),
    "a negative side": (a_layer(inner(7, inner(7, inner(1, b"\xff" * 9 + b"\x01")))), "0 numbers for a blob"),
    "many sides": (a_layer(inner(7, inner(5, b"\0" * 4) + inner(7, inner(1, b"\x01" * 40)))), "1 numbers for a blob"),
    "a part of a number": (a_layer(inner(7, inner(5, b"\0" * 7) + SHAPE)), "numbers of another kind than Caffe's"),
    "numbers as whole numbers": (a_layer(inner(7, number(5, 3) + SHAPE)), "numbers of another kind than Caffe's"),
    "a name that is no text": (inner(1, "net") + inner(100, inner(1, b"\xff\xfe")), "a name that is no text"),
    "a name that is too long": (inner(1, "net") + inner(100, inner(1, "x" * 2_000)), "a name that is too long"),
    "a list that is too long": (a_layer(inner(203, inner(1, bytes(20_000)))), "a list that is too long"),
    "a part of a list": (a_layer(inner(203, inner(1, bytes(7)))), "another kind than Caffe's"),
    "a setting of another kind": (a_layer(number(106, 3)), "another kind than Caffe's"),
    "no weights": (caffemodel("net", LAYERS, {}), "no layer of this .caffemodel of Caffe has weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    with pytest.raises(UserError, match=rf"some\.caffemodel: .*{message}"):
        read_bytes(tmp_path, content)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    ends = {0}  # where a whole number of layers ends; such a file is a smaller net
    content = inner(1, "net")
    for layer in LAYERS:
        ends.add(len(content))
        content = caffemodel("net", LAYERS[: LAYERS.index(layer) + 1], BLOBS)
    for end in range(10, len(GOOD), 7):
        if end not in ends:
            with pytest.raises(UserError, match=r"some\.caffemodel: "):
                read_bytes(tmp_path, GOOD[:end])


def test_changed_bytes_end_in_tensors_or_a_message(tmp_path: Path) -> None:
    generator = random.Random(0)
    for _ in range(100):
        content = bytearray(GOOD)
        for _ in range(generator.randrange(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        try:
            read_bytes(tmp_path, bytes(content))
        except UserError as error:
            assert str(error).startswith(str(tmp_path))  # noqa: PT017  either answer is right


@pytest.mark.parametrize(
    "content",
    [
        b"\x22\x00" * 50_000,  # empty fields
        inner(100, b"") * 50_000,  # empty layers
        a_layer(inner(7, real(5, 1.0) + inner(9, b"")) * 50_000),  # numbers that are never a run
    ],
    ids=["fields", "layers", "blobs"],
)
def test_many_small_parts_take_little_time(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_FIELDS", 20_000)
    start = time.process_time()
    with pytest.raises(UserError, match=r"more than 20,000 fields"):
        read_bytes(tmp_path, content if content[:1] == b"\x0a" else inner(1, "net") + content)
    assert time.process_time() - start < 5


def test_recognises_the_start_of_a_net() -> None:
    long = caffemodel("a net with a name that is longer than what is looked at, and longer still", LAYERS[:2], BLOBS)
    unnamed = GOOD[len(inner(1, "net")) :]
    assert all(reader.recognises(start[:64]) for start in (GOOD, long, unnamed, old_caffemodel("", [], {}) + b"\x12"))
    others: list[Any] = [
        b"",
        b"\x0a",
        b"\x0a\x03ne",
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x0a\x0a\x0a\x08" + b"a" * 20,
        b"\x08\x07",
    ]
    assert not any(reader.recognises(start) for start in others[:2] + others[3:])
