"""Accuracy control, and the part of a graph that may become int8."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from singleshot.engines.quantise.control import Judged, controlled
from singleshot.engines.quantise.graph_parts import network_part

COSTS = {f"layer{k}": float(k == 3) * 9 + float(k == 7) * 5 + k / 100 for k in range(10)}


class Toy:
    """Ten layers, of which two cost much; the file holds the names of those in float32."""

    PACKAGES = ()
    layers = tuple(COSTS)
    shapes = tuple((1,) for _ in COSTS)

    def __init__(self) -> None:
        self.ranked = 0

    def write(self, path: Path, keep: Collection[str] = ()) -> None:
        path.write_text(" ".join(keep))

    def costs(self) -> Mapping[str, float]:
        self.ranked += 1
        return COSTS


def judge(needed: set[str]):  # type: ignore[no-untyped-def]
    def judged(path: Path) -> Judged:
        kept = set(path.read_text().split())
        return Judged(needed <= kept, len(kept) / 10, 1.0, 1.0)

    return judged


def test_all_layers_if_that_is_good(tmp_path: Path) -> None:
    toy = Toy()
    steps = controlled(toy, tmp_path / "x", judge(set()))
    assert [step.kept for step in steps] == [()]
    assert not toy.ranked


def test_the_layers_that_cost_most_stay_float(tmp_path: Path) -> None:
    toy, said = Toy(), []
    steps = controlled(toy, tmp_path / "x", judge({"layer3", "layer7"}), say=said.append)
    assert [step.kept for step in steps] == [(), ("layer3",), ("layer3", "layer7")]
    assert steps[-1].judged.good
    assert toy.ranked == 1
    assert "the 2 most costly of 10 layers" in said[-1]


def test_it_ends_with_half_of_the_layers(tmp_path: Path) -> None:
    steps = controlled(Toy(), tmp_path / "x", judge({"layer0"}))
    assert [len(step.kept) for step in steps] == [0, 1, 2, 4, 8]
    assert not steps[-1].judged.good


def test_the_network_ends_with_the_last_layers() -> None:
    children = {
        "images": ["normalise"],
        "normalise": ["conv1"],
        "conv1": ["relu"],
        "relu": ["conv2", "scores", "boxes"],
        "conv2": ["add"],
        "add": ["scores2"],
        "scores": ["softmax"],
        "scores2": ["softmax"],
        "boxes": ["decode"],
        "softmax": ["nms"],
        "decode": ["nms"],
        "anchors": ["decode"],
        "nms": [],
    }
    inside, last = network_part(children, ["conv1", "conv2", "scores", "scores2", "boxes"])
    assert last == {"scores", "scores2", "boxes"}
    assert inside == {"images", "normalise", "conv1", "relu", "conv2", "add", *last}


def test_a_deep_graph() -> None:
    children: dict[str, list[str]] = {str(k): [str(k + 1)] for k in range(5000)} | {"5000": []}
    assert network_part(children, ["4000"]) == ({str(k) for k in range(4001)}, {"4000"})
