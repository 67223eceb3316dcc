"""Running a detector over a dataset."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset, detect_with_each, sweep
from singleshot.evaluation.metrics import evaluate


@pytest.fixture
def dataset(tmp_path: Path, make_dataset):
    """Five images, each with one bright box on black, of different sizes."""
    made = make_dataset([[(0, 4, 6, 10 + 4 * i, 30)] for i in range(5)])
    records = []
    for i, record in enumerate(made.records):
        pixels = np.zeros((40, 50 + i, 3), np.uint8)
        x1, y1, x2, y2 = record.boxes[0].astype(int)
        pixels[y1:y2, x1:x2] = 255
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        records.append(replace(record, path=path))
    return replace(made, root=tmp_path, records=tuple(records))


def bright(images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Finds the bright box exactly."""
    found = []
    for image in images:
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
        assert torch.is_inference_mode_enabled()
        ys, xs = torch.nonzero(image[0] > 127, as_tuple=True)
        box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        found.append({"boxes": box[None], "scores": torch.ones(1), "labels": torch.zeros(1, dtype=torch.int64)})
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_finds_in_the_order_of_the_records(dataset, workers: int) -> None:
    seen: list[tuple[int, int]] = []
    found = detect_dataset(
        bright, dataset, batch_size=2, workers=workers, progress=lambda done, total: seen.append((done, total))
    )
    assert [f.boxes.tolist() for f in found] == [r.boxes.tolist() for r in dataset.records]
    assert all(f.boxes.dtype == f.scores.dtype == np.float64 and f.labels.dtype == np.int64 for f in found)
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert evaluate(dataset, found).to_json()["voc10"]["mAP"] == 1


def test_a_detector_that_finds_nothing(dataset) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    found = detect_dataset(lambda images: [nothing] * len(images), dataset)
    assert [f.boxes.shape for f in found] == [(0, 4)] * 5
    assert evaluate(dataset, found).to_json()["voc10"]["mAP"] == 0


def test_no_images(dataset) -> None:
    assert detect_dataset(bright, replace(dataset, records=())) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_put_back_in_its_mode(dataset, training: bool) -> None:
    class Module(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            assert not self.training
            return bright(images)

    module = Module().train(training)
    detect_dataset(module, dataset)
    assert module.training == training

    class Broken(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            raise RuntimeError("broken")

    broken = Broken().train(training)
    with pytest.raises(RuntimeError, match="broken"):
        detect_dataset(broken, dataset)
    assert broken.training == training


def test_missing_images_are_named_before_anything_runs(dataset) -> None:
    (dataset.root / "3.png").unlink()

    def never(images: list[Tensor]) -> list[dict[str, Tensor]]:
        raise AssertionError

    with pytest.raises(UserError, match=r"1 of 5 images of split 'val' are missing, such as .*3\.png"):
        detect_dataset(never, dataset)


def test_an_image_that_cannot_be_read_is_named(dataset) -> None:
    (dataset.root / "3.png").write_text("no image")
    with pytest.raises(UserError, match=r"3\.png"):
        detect_dataset(bright, dataset)


class Halves(nn.Module):
    """Finds the bright box and a wrong one; the post-processing is the score that the wrong one gets."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.alive: list[weakref.ref[Tensor]] = []

    def raw(self, images: Sequence[Tensor]) -> Tensor:
        assert not self.training
        assert not any(kept() is not None for kept in self.alive)  # of the batch before
        self.calls.append(len(images))
        raw = torch.cat([one["boxes"] for one in bright(list(images))])
        self.alive.append(weakref.ref(raw))
        return raw

    def detections(self, raw: Tensor, postprocess: float | None = None) -> list[dict[str, Tensor]]:
        score = 0.1 if postprocess is None else postprocess
        order = [0, 1] if score < 0.5 else [1, 0]
        scores, labels = torch.tensor([0.5, score])[order], torch.zeros(2, dtype=torch.int64)
        return [{"boxes": torch.stack([box, box + 15])[order], "scores": scores, "labels": labels} for box in raw]

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        return self.detections(self.raw(images))


def test_several_postprocessings_of_one_pass(dataset) -> None:
    module, seen = Halves().train(), []
    found = detect_with_each(
        module, dataset, [0.1, 0.9], batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert module.calls == [2, 2, 1]  # the network ran once
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert module.training
    for one, alone in zip(found[0], detect_dataset(module, dataset), strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(alone, name)) for name in ("boxes", "scores", "labels"))
    assert [one.scores.tolist() for one in found[1]] == [pytest.approx([0.9, 0.5])] * 5


def test_a_sweep_measures_each_of_them(dataset) -> None:
    found = sweep(Halves(), dataset, "score", {0.1: 0.1, 0.9: 0.9, "usual": None}, batch_size=3)
    assert found.name == "score"
    assert found.values == (0.1, 0.9, "usual")
    assert [metrics.coco.numbers["AP"] for metrics in found.metrics] == pytest.approx([1, 0.5, 1])


def test_a_sweep_of_nothing(dataset) -> None:
    assert detect_with_each(Halves(), dataset, []) == []
    assert detect_with_each(Halves(), replace(dataset, records=()), [0.1, 0.9]) == [[], []]
