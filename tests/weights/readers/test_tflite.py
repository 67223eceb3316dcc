"""singleshot.weights.readers.tflite: every storage of weights, and damaged files."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tflite_nets
import torch
from tflite_nets import Net

from singleshot.errors import UserError
from singleshot.weights.importers import import_weights
from singleshot.weights.readers import read
from singleshot.weights.readers.tflite import GRAPH, Graph


def small(storage: str) -> Net:
    net = Net((8, 6), storage=storage)
    net.outputs = [net.conv(net.conv(net.pixels, 4, 3, stride=2), 0, 3, depthwise=True, activation=None)]
    return net


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8", "int8"])
def test_weights_are_what_their_bits_stand_for(storage: str, tmp_path: Path) -> None:
    net = small(storage)
    source = read(net.save(tmp_path / "net.tflite"))
    expected = list(net.values.values())
    assert len(source.tensors) == len(expected) == 4
    for found, value in zip(source.tensors.values(), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-7)
    graph = source.notes[GRAPH]
    assert isinstance(graph, Graph)
    assert [one.kind for one in graph.operators] == ["CONV_2D", "DEPTHWISE_CONV_2D"]  # no conversion of constants
    first, second = graph.operators
    assert (first.options["padding"], first.options["stride"], first.options["activation"]) == ("SAME", 2, "relu6")
    assert (second.options["multiplier"], second.options["activation"]) == (1, None)
    assert (first.inputs[0], second.inputs[0], graph.outputs) == (*graph.inputs, first.outputs[0], second.outputs)
    assert graph.shapes[first.outputs[0]] == (1, 4, 3, 4)
    scales = {"uint8": (1 / 128, 128), "int8": (1 / 128, 128)}  # the zero counted from the smallest number
    assert graph.quantised.get(graph.inputs[0]) == scales.get(storage)


def test_custom_options_and_names(tmp_path: Path) -> None:
    net = tflite_nets.ssd(trunk="v1", ending="post")
    for one in net.tensors[:4]:
        one.name = "twice"
    source = read(net.save(tmp_path / "net.tflite"))
    graph = source.notes[GRAPH]
    assert graph.operators[-1].kind == "TFLite_Detection_PostProcess"
    assert graph.operators[-1].options["nms_iou_threshold"] == pytest.approx(0.6)
    assert graph.inputs == ("twice#0",)
    assert {"twice#1", "twice#2"} <= set(source.tensors)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(UserError, match=r"net\.tflite: reading it needs the package tflite: pip install"):
        read(small("float32").save(tmp_path / "net.tflite"))


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_damaged_files_end_in_one_error_or_a_result(storage: str, tmp_path: Path) -> None:
    """Truncated anywhere, and with bytes or whole numbers changed: no other exception, no hang, no large memory."""
    good = small(storage).save(tmp_path / "net.tflite").read_bytes()
    rng = random.Random(0)
    path = tmp_path / "bad.tflite"
    refused, start = 0, time.perf_counter()
    for case in range(150):
        content = bytearray(good)
        if case % 3 == 0:
            del content[rng.randrange(8, len(good)) :]
        for _ in range(rng.choice((0, 1, 8)) if case % 3 == 0 else rng.choice((1, 4, 30))):
            place = rng.randrange(8, len(content) - 4) if len(content) > 12 else 4
            many = rng.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes([rng.randrange(256)])))
            content[place : place + len(many)] = many
        path.write_bytes(bytes(content))
        try:
            import_weights(path)
        except UserError as error:
            refused += str(error).startswith(f"{path}: ")
    assert refused == 150  # none of them is a detector
    assert time.perf_counter() - start < 30


def test_bytes_that_many_tensors_share_do_not_fill_the_memory(tmp_path: Path) -> None:
    net = small("float32")
    net.step("CONCATENATION", [net.constant(np.ones(100)) for _ in range(99)], (9_900,))
    assert len(read(net.save(tmp_path / "net.tflite")).tensors) == 103
    net.shared = True
    with pytest.raises(UserError, match="many tensors share their bytes"):
        read(net.save(tmp_path / "net.tflite"))
