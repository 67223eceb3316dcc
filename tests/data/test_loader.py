"""The stream of training images: the same whatever the workers, the processes and the step it starts from."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.loader import StreamOrder, TrainBatch, _TrainingImages, train_loader
from singleshot.data.transforms import Compose, Resize, Sample, Transform, ssd_augmentation
from singleshot.errors import UserError

AUGMENT = ssd_augmentation((16, 24), mean=(123.0, 117.0, 104.0))
AS_IT_IS: Transform = Compose(())
SIZES = [(20, 30), (40, 20), (16, 24), (33, 27), (20, 30), (10, 50), (24, 16)]


def record(path: Path, boxes: list[list[float]], flags: list[str] | None = None) -> ImageRecord:
    flags = flags or [""] * len(boxes)
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return ImageRecord(
        path=path,
        name=path.stem,
        id=path.stem,
        size=(0, 0),
        boxes=array,
        labels=np.arange(len(array)),
        difficult=np.array(["d" in flag for flag in flags], np.bool_),
        crowd=np.array(["c" in flag for flag in flags], np.bool_),
        truncated=np.zeros(len(array), np.bool_),
        areas=np.zeros(len(array)),
    )


def make(records: list[ImageRecord]) -> Dataset:
    return Dataset(Path("here"), "voc", "train", ("a", "b", "c"), (1, 2, 3), tuple(records))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven images of mixed sizes with 0 to 2 boxes."""
    root = tmp_path_factory.mktemp("images")
    records = []
    for i, (height, width) in enumerate(SIZES):
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(root / f"{i}.png"), noise)
        records.append(record(root / f"{i}.png", [[1, 2, width - 3, 9], [4.5, 3, 9, 10]][: i % 3]))
    return make(records)


def stream(dataset: Dataset, transform: Transform = AUGMENT, **choices: Any) -> list[TrainBatch]:
    count = choices.pop("count", 5)
    return list(islice(train_loader(dataset, transform, **({"batch_size": 3, "seed": 1} | choices)), count))


def same(a: TrainBatch, b: TrainBatch) -> bool:
    return (
        a.step == b.step
        and a.names == b.names
        and all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))
        and all(torch.equal(x[k], y[k]) for x, y in zip(a.targets, b.targets, strict=True) for k in x)
    )


def test_a_batch_is_what_the_contract_says(dataset: Dataset) -> None:
    for step, batch in enumerate(stream(dataset)):
        assert batch.step == step
        assert len(batch.images) == len(batch.targets) == len(batch.names) == 3
        for image, target in zip(batch.images, batch.targets, strict=True):
            assert image.dtype == torch.uint8
            assert image.shape == (3, 16, 24)
            assert image.is_contiguous()
            assert target["boxes"].dtype == torch.float32
            assert target["boxes"].shape == (len(target["labels"]), 4)
            assert target["labels"].dtype == torch.int64
            assert target["iscrowd"].dtype == torch.bool


def test_pixels_and_boxes_arrive_unchanged_and_in_rgb(dataset: Dataset) -> None:
    for batch in stream(dataset, AS_IT_IS):
        for image, target, name in zip(batch.images, batch.targets, batch.names, strict=True):
            source = dataset.records[int(name)]
            pixels = cv2.cvtColor(cv2.imread(str(source.path)), cv2.COLOR_BGR2RGB)
            assert np.array_equal(image.numpy(), pixels.transpose(2, 0, 1))
            assert target["boxes"].tolist() == source.boxes.tolist()
            assert target["labels"].tolist() == source.labels.tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(dataset: Dataset, workers: int) -> None:
    expected = stream(dataset, count=9)
    found = stream(dataset, steps=9, count=99, workers=workers)
    assert len(found) == 9
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))


def test_it_goes_on_at_any_step(dataset: Dataset) -> None:
    expected = stream(dataset, count=12)
    for start in (1, 5, 11):
        assert all(
            same(a, b) for a, b in zip(expected[start:], stream(dataset, start_step=start, count=12), strict=False)
        )


def test_two_ranks_together_give_the_global_batch(dataset: Dataset) -> None:
    whole = stream(dataset, batch_size=4)
    ranks = [stream(dataset, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        together = TrainBatch(
            first.images + second.images, first.targets + second.targets, first.names + second.names, first.step
        )
        assert same(batch, together)


def test_each_epoch_takes_every_image_once_in_an_order_of_its_own(dataset: Dataset) -> None:
    order = [index for batch in islice(StreamOrder(7, 3, seed=5), 14) for index, _ in batch]
    epochs = [order[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    names = [name for batch in stream(dataset, count=7) for name in batch.names]
    assert all(names.count(str(i)) == 3 for i in range(7))


def test_a_batch_may_be_larger_than_the_dataset(dataset: Dataset) -> None:
    (batch,) = stream(dataset, batch_size=20, count=1)
    assert len(batch.images) == 20
    assert sorted(set(batch.names)) == [str(i) for i in range(7)]


def test_one_image_changes_from_epoch_to_epoch_and_with_the_seed(dataset: Dataset) -> None:
    one = make([dataset.records[0]])
    first, second = stream(one, batch_size=1, count=2)
    assert not torch.equal(first.images[0], second.images[0])
    assert not same(stream(dataset, seed=1)[0], stream(dataset, seed=2)[0])
    assert same(stream(dataset, seed=1)[0], stream(dataset, seed=1)[0])


def test_steps_is_where_it_ends(dataset: Dataset) -> None:
    assert [batch.step for batch in stream(dataset, start_step=3, steps=5)] == [3, 4]
    assert stream(dataset, start_step=5, steps=5) == []


def test_difficult_and_crowd(dataset: Dataset) -> None:
    boxes: list[list[float]] = [[0, 0, 9, 9], [1, 1, 8, 8], [2, 2, 7, 7]]
    mixed = make([record(dataset.records[0].path, boxes, ["", "d", "c"])])

    def left(**choices: Any) -> tuple[list[int], list[bool]]:
        (batch,) = stream(mixed, AS_IT_IS, batch_size=1, count=1, **choices)
        return batch.targets[0]["labels"].tolist(), batch.targets[0]["iscrowd"].tolist()

    assert left(crowd="ignore") == ([0, 1, 2], [False, False, True])
    assert left(crowd="drop") == ([0, 1], [False, False])
    assert left(crowd="ignore", drop_difficult=True) == ([0, 2], [False, True])
    assert left(crowd="drop", drop_difficult=True) == ([0], [False])


def test_the_global_random_states_are_left_alone(dataset: Dataset) -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 (it is the state that is looked at)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
    stream(dataset, workers=1, steps=2)
    stream(dataset, steps=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index] # noqa: NPY002


def test_workers_end_when_the_iteration_is_left(dataset: Dataset) -> None:
    batches = iter(train_loader(dataset, AUGMENT, batch_size=2, seed=0, workers=1))
    next(batches)
    assert multiprocessing.active_children()
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    loaders: list[Iterable[Any]] = [
        train_loader(make([record(broken, [])]), AUGMENT, batch_size=1, seed=0, workers=workers),
        train_loader(make([record(tmp_path / "gone.jpg", [])]), AUGMENT, batch_size=1, seed=0, workers=workers),
    ]
    for loader, name in zip(loaders, ("broken.jpg", "gone.jpg"), strict=True):
        with pytest.raises(UserError, match=name) as caught:
            list(loader)
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "choices", [{"batch_size": 0}, {"seed": -1}, {"crowd": "keep"}, {"workers": -1}], ids=lambda choices: str(choices)
)
def test_bad_choices_are_refused(dataset: Dataset, choices: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        stream(dataset, **choices)
    with pytest.raises(UserError, match="no images"):
        stream(make([]))


def test_what_goes_to_a_worker_can_be_pickled(dataset: Dataset) -> None:
    images = _TrainingImages(dataset.records, AUGMENT, 0, 3, False, "drop")
    again = pickle.loads(pickle.dumps(images))
    a, b = images.sample(1, 5), again.sample(1, 5)
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.boxes, b.boxes)


def test_errors_of_our_own_keep_their_traceback(dataset: Dataset) -> None:
    with pytest.raises(ZeroDivisionError):
        stream(dataset, _Broken())


class _Broken:
    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        raise ZeroDivisionError


def test_a_resizing_transform_makes_one_size_of_many(dataset: Dataset) -> None:
    assert {image.shape for batch in stream(dataset, Resize((8, 8))) for image in batch.images} == {(3, 8, 8)}
