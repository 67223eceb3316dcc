"""Weights files of other programs with bytes changed: read and imported, or refused."""

from __future__ import annotations

import argparse
import io
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import caffe_nets
import numpy as np
import tflite_nets
import torch
from faults.answers import answer
from faults.kinds import Case, Kind
from safetensors.torch import save

from singleshot.weights.importers import import_weights
from singleshot.weights.readers import read

NUMBERS = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@cache
def caffemodel() -> bytes:
    """SSD300 with all its layers and settings, and one channel in most places."""
    layers = []
    for layer in caffe_nets.ssd(300, 3, caffe_nets.SSD_SIZES[300, 21]):
        rows = [shape[:1] if "_mbox_" in layer.name else (1,) for shape in layer.shapes]
        shapes = tuple((*row, *(1,) * (len(shape) - 1)) for row, shape in zip(rows, layer.shapes, strict=True))
        layers.append(replace(layer, shapes=shapes))
    return caffe_nets.caffemodel("VGG_SSD_300x300", layers, caffe_nets.random_blobs(layers))


@cache
def safetensors() -> bytes:
    """A file of another program: metadata, and no checksum."""
    return save({"conv1_1.weight": torch.ones(2, 3), "fc6.bias": torch.ones(4).half()}, {"class_names": '["a", "b"]'})


@cache
def tflite() -> bytes:
    """An SSD on MobileNet in 8 bits, with its anchors and settings."""
    return tflite_nets.ssd(trunk="v1", width=0.01, extras=(4,), storage="int8", ending="post").content()


@cache
def zipped(legacy: bool = False) -> bytes:
    """What a training program saves: weights, options, the state of an optimiser."""
    file = io.BytesIO()
    state = {"conv1_1.weight": torch.ones(2, 3), "fc6.bias": torch.ones(4).half()}
    content = {"state_dict": state, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


GOOD: dict[str, Callable[[], bytes]] = {
    "weights.pth": zipped,
    "older.pth": partial(zipped, True),
    "weights.caffemodel": caffemodel,
    "weights.safetensors": safetensors,
    "weights.tflite": tflite,
}
"""The name of a small file of each kind, and what makes it."""


def mutated(chance: random.Random, good: bytes) -> tuple[str, bytes]:
    """What was done to a file, and its bytes: one to three changes."""
    content, said = bytearray(good), []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.choice((chance.randrange(len(content) + 1), chance.randrange(min(len(content), 200) + 1)))
        size = min(chance.choice((1, 1, 2, 4, 8, 100, 5_000)), max(1, len(content) - place))
        match chance.randrange(7):
            case 0:
                content[place : place + 1] = bytes([chance.randrange(256)])
                said.append(f"byte {place} is another")
            case 1:
                del content[place:]
                said.append(f"cut to {place} bytes")
            case 2:
                del content[place : place + size]
                said.append(f"{size} bytes at {place} are missing")
            case 3:
                content[place:place] = content[place : place + size]
                said.append(f"{size} bytes at {place} are there twice")
            case 4:
                number = chance.choice(NUMBERS)
                form = chance.choice(("<Q", "<I", ""))
                new = struct.pack(form, number % 2 ** (8 * struct.calcsize(form))) if form else _varint(number)
                content[place : place + len(new)] = new
                said.append(f"{number} at {place}, as {form or 'a varint'}")
            case 5:
                content[place : place + size] = bytes(chance.randrange(256) for _ in range(size))
                said.append(f"{size} bytes at {place} are others")
            case _:
                content[place : place + size] = chance.choice((b"\0", b"\xff")) * size
                said.append(f"{size} bytes at {place} are the same")
        if not content:
            break
    return "; ".join(said), bytes(content)


def _varint(number: int) -> bytes:
    out = io.BytesIO()
    while number > 127:
        out.write(bytes([number & 127 | 128]))
        number >>= 7
    out.write(bytes([number]))
    return out.getvalue()


def make(rng: np.random.Generator, number: int) -> Case:
    """The file and the change are drawn."""
    chance = random.Random(int(rng.integers(2**62)))
    name = chance.choice(list(GOOD))
    what, content = mutated(chance, GOOD[name]())
    return Case(f"{name}: {what}", content, name=name)


def check(case: Case, shared: None, folder: Path) -> None:
    """Read it; and make a detector of what was read."""
    path = folder / case.name
    path.write_bytes(case.content)
    source = answer(lambda: read(path), names=str(path))
    if source is None:
        return
    assert sum(tensor.numel() for tensor in source.tensors.values()) <= len(case.content), "more numbers than bytes"
    answer(lambda: import_weights(path), names=str(path))


KIND = Kind(
    "weights files of other programs with one to three things changed are read and imported, or refused with a message",
    make,
    check,
    cases=4_000,
    fast=40,
    seconds=20,
    memory=300,
)
