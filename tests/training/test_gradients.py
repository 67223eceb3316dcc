"""N batches of a step have the loss and the gradient of one batch with all of their images."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import singleshot as ss
from singleshot.data.loader import TrainBatch
from singleshot.detectors.detector import Detector
from singleshot.losses.focal import FocalLoss
from singleshot.losses.ohem import OHEMLoss
from singleshot.structures import Matched, Predictions
from singleshot.training import override, train
from singleshot.training.gradients import backward, sum_of_counts
from singleshot.training.recipe import Recipe


def small(builder: str, **more: Any) -> Detector:
    """A detector without batch norm that follows its batches: those differ by their nature."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"num_classes": 2, "backbone": "resnet18", "image_size": 64, **more}
    detector: Detector = getattr(ss, builder)(**arguments)
    for norm in detector.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    return detector


def batch(counts: tuple[int, ...], seed: int = 1) -> TrainBatch:
    """Images with that many objects each."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for count in counts:
        images.append(torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8))
        low = torch.rand(count, 2, generator=generator) * 30
        boxes = torch.cat([low, low + 8 + 24 * torch.rand(count, 2, generator=generator)], 1)
        targets.append({"boxes": boxes, "labels": torch.randint(0, 2, (count,), generator=generator)})
    return TrainBatch(images, targets, [f"{i}" for i in range(len(images))], 0)


def parts(whole: TrainBatch, size: int) -> list[TrainBatch]:
    return [
        TrainBatch(whole.images[i : i + size], whole.targets[i : i + size], whole.names[i : i + size], 0)
        for i in range(0, len(whole.images), size)
    ]


def gradients(detector: Detector, batches: list[TrainBatch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    detector.zero_grad(set_to_none=True)
    losses = backward(detector, detector, batches)
    return losses, {
        name: parameter.grad.clone() for name, parameter in detector.named_parameters() if parameter.grad is not None
    }


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = float(value.abs().max())
        torch.testing.assert_close({name: other[name]}, {name: value}, rtol=1e-4, atol=1e-5 * scale + 1e-9)


class Own:
    """A term that brings a number of its own, which depends on what is predicted."""

    own_number: ClassVar[bool] = True

    def __call__(self, predictions: Predictions, matched: Matched) -> tuple[Tensor, Tensor]:
        logits = predictions["class_logits"]
        return logits.square().sum(), (logits.detach() > 0).sum().float()


CASES: dict[str, Callable[[], Detector]] = {
    "ssd": lambda: small("ssd"),
    "retinanet": lambda: small("retinanet", channels=16),
    "refinedet": lambda: small("refinedet", channels=16),
    "refinedet, focal": lambda: small("refinedet", channels=16, classification=FocalLoss()),
    "iou_retinanet": lambda: small("iou_retinanet", channels=16),
    "ohem": lambda: small("retinanet", channels=16, classification=OHEMLoss(batch_size=16)),
    "own": lambda: with_terms(small("ssd"), {"own": Own()}),
}


def with_terms(detector: Detector, terms: dict[str, Any]) -> Detector:
    detector.criterion = replace(detector.criterion, terms={**detector.criterion.terms, **terms})
    return detector


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in CASES), ("refinedet", 1)])
def test_parts_equal_the_whole(name: str, size: int) -> None:
    detector = CASES[name]()
    whole = batch((4, 0, 1, 2))
    losses, expected = gradients(detector, [whole])
    again, found = gradients(detector, parts(whole, size))
    assert_equal(losses, again)
    assert_equal(expected, found)
    assert min(float(value) for value in losses.values()) > 0


def test_nothing_to_find_in_one_batch_or_in_all() -> None:
    detector = CASES["refinedet"]()
    losses, found = gradients(detector, parts(batch((0, 0)), 1))
    assert all(float(value) == 0 for value in losses.values())
    assert all((value == 0).all() for value in found.values())


def test_counting_changes_nothing_and_counts_what_the_step_sees() -> None:
    """Dropout decides what `Own` counts: the same in the pass that counts and in the step itself."""
    from tiny_detector import tiny

    torch.manual_seed(0)
    detector = with_terms(tiny(num_classes=2, dropout=0.5, norm=True).train(), {"own": (own := Recorded())})
    batches = parts(batch((2, 1, 3, 1)), 2)
    before = {name: value.clone() for name, value in detector.named_buffers()}
    state = torch.get_rng_state()
    counts = sum_of_counts(detector, batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in detector.named_buffers())
    assert all(parameter.grad is None for parameter in detector.parameters())
    for one in batches:
        detector(one.images, one.targets)
    counted, seen = own.numbers[:2], own.numbers[2:]
    assert counted == seen
    assert counted[0] != counted[1]
    assert float(counts["own"]) == sum(counted)
    assert not torch.equal(torch.get_rng_state(), state)
    assert any(not torch.equal(value, before[name]) for name, value in detector.named_buffers())


class Recorded(Own):
    def __init__(self) -> None:
        self.numbers: list[float] = []

    def __call__(self, predictions: Predictions, matched: Matched) -> tuple[Tensor, Tensor]:
        total, number = super().__call__(predictions, matched)
        self.numbers.append(float(number))
        return total, number


@pytest.mark.parametrize("name", CASES)
def test_the_network_runs_only_where_its_predictions_decide(name: str) -> None:
    detector, runs, one = CASES[name](), list[str](), batch((1, 2))
    detector.backbone.register_forward_hook(lambda *call: runs.append(call[2][0].device.type))
    counts = detector.counts(one.images, one.targets)
    assert runs.count("cpu") == (name in ("refinedet", "refinedet, focal", "ohem", "own"))  # "meta": sizes of the maps
    assert counts.keys() == detector(one.images, one.targets).keys()


def test_a_number_that_is_not_declared_is_refused() -> None:
    detector = with_terms(small("ssd"), {"mine": lambda found, matched: (found["class_logits"].sum(), torch.ones(()))})
    with pytest.raises(ss.UserError, match=r"the loss 'mine' returns its own divisor, .*add `own_number = True`"):
        backward(detector, detector, parts(batch((1, 1)), 1))


@pytest.mark.parametrize("name", ["ssd", "refinedet"])
def test_memory_does_not_grow_with_the_number_of_batches(name: str) -> None:
    """What autograd keeps for the backward pass, at its highest."""
    most = []
    for counts in ((2,), (2, 2), (2, 2, 2, 2)):
        detector, kept, peak = CASES[name](), [0], [0]

        def keep(tensor: Tensor, kept: list[int] = kept, peak: list[int] = peak) -> Kept:
            box, size = Kept(tensor.detach()), tensor.numel()  # an output that knows its graph would keep it alive
            kept[0] += size
            peak[0] = max(peak[0], kept[0])
            weakref.finalize(box, lambda: kept.__setitem__(0, kept[0] - size))
            return box

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda box: box.tensor):
            backward(detector, detector, parts(batch(counts), 1))
        most.append(peak[0])
    assert most[0] > 100_000
    assert most[1] == most[2] <= 1.01 * most[0]


@dataclass(eq=False)
class Kept:
    tensor: Tensor


def test_a_run_with_accumulation_is_the_run_with_the_large_batch(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(batch_size=4, arguments={"dropout": 0.0}, log__every=1, schedule__steps=6)
    train(recipe, out=tmp_path / "one")
    train(override(recipe, {"batch_size": 1, "optimizer.accumulate": 4}), out=tmp_path / "four")
    for a, b in zip(logged(tmp_path / "one"), logged(tmp_path / "four"), strict=True):
        assert b == pytest.approx(a, rel=2e-5, abs=1e-6)
    first, second = load_file(tmp_path / "one/last.safetensors"), load_file(tmp_path / "four/last.safetensors")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def logged(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if line["kind"] == "step"]
