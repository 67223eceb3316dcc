"""Decoded images that are kept: the same pixels, shared, checked, and refused where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from singleshot.data import image_cache, loader
from singleshot.data.dataset import Dataset
from singleshot.data.image_cache import ImageCache
from singleshot.data.images import read_image
from singleshot.data.loader import train_loader
from singleshot.data.open import open_dataset
from singleshot.data.shapes import write_shapes
from singleshot.data.transforms import ssd_augmentation
from singleshot.errors import UserError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(write_shapes(tmp_path / "shapes", train=4, val=1) / "voc", split="train")


def never() -> np.ndarray:
    raise AssertionError("the file was read again")


def reader(dataset: Dataset, index: int) -> Callable[[], np.ndarray]:
    return lambda: read_image(dataset.records[index].path)


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_an_image_is_read_once_and_stays_the_same(dataset: Dataset, tmp_path: Path, where: image_cache.Where) -> None:
    cache = ImageCache(where, dataset.records, tmp_path / "cache")
    for index in range(len(dataset)):
        expected = reader(dataset, index)()
        assert np.array_equal(cache.read(index, reader(dataset, index)), expected)
        kept = cache.read(index, never)
        assert np.array_equal(kept, expected)
        assert not kept.flags.writeable
    assert "4 decoded images take" in str(cache)
    assert " MB in " in str(cache)
    if where == "disk":  # another run
        assert np.array_equal(
            ImageCache(where, dataset.records, tmp_path / "cache").read(0, never), reader(dataset, 0)()
        )
        assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".pixels"]


def test_a_changed_file_is_read_anew(dataset: Dataset, tmp_path: Path) -> None:
    path, height_width = dataset.records[0].path, dataset.records[0].size
    cache = ImageCache("disk", dataset.records, tmp_path / "cache")
    cache.read(0, reader(dataset, 0))
    Image.new("RGB", height_width[::-1], (1, 2, 3)).save(path, "JPEG", quality=100)
    os.utime(path, ns=(1, 1))
    for later in (cache, ImageCache("disk", dataset.records, tmp_path / "cache")):
        assert np.array_equal(later.read(0, reader(dataset, 0)), read_image(path))


def test_damaged_bytes_on_the_disk_are_noticed(dataset: Dataset, tmp_path: Path) -> None:
    first = ImageCache("disk", dataset.records, tmp_path / "cache")
    first.read(1, reader(dataset, 1))
    with first.file.open("r+b") as file:
        file.seek(int(first.begins[1]) + 5)
        file.write(b"\xaa\x55\xaa\x55")
    again = ImageCache("disk", dataset.records, tmp_path / "cache")
    assert np.array_equal(again.read(1, reader(dataset, 1)), reader(dataset, 1)())


def test_an_image_of_another_size_than_its_annotation_says_is_not_kept(dataset: Dataset, tmp_path: Path) -> None:
    cache = ImageCache("ram", dataset.records, tmp_path)
    other = np.zeros((3, 3, 3), np.uint8)
    assert cache.read(0, lambda: other) is other
    assert cache.read(0, lambda: other) is other


def test_what_does_not_fit_is_refused(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "_free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"data.cache ram: 4 decoded images take .* MB, and 0 MB of memory are free"):
        ImageCache("ram", dataset.records, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="has 0 MB free. Name another folder with SINGLESHOT_CACHE"):
        ImageCache("disk", dataset.records, tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot hold"):
        ImageCache("disk", dataset.records, tmp_path / "file")


def test_workers_share_it_and_batches_stay_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = ssd_augmentation((32, 32), mean=(0.0, 0.0, 0.0))

    def batches(steps: int, **how: object) -> list[torch.Tensor]:
        made = train_loader(dataset, transform, batch_size=2, seed=3, steps=steps, **how)  # type: ignore[arg-type]
        return [image for batch in made for image in batch.images]

    plain = batches(6)
    cache = ImageCache("ram", dataset.records, tmp_path)
    for workers in (1, 0):
        kept = batches(6, cache=cache, workers=workers)
        assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))
        monkeypatch.setattr(loader, "read_image", lambda *_, **__: never())  # the worker has left all images there
