"""Image files as frames of a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import singleshot as ss
from singleshot.data.frames import dataset_frames, file_frames
from singleshot.errors import UserError

SIZES = [(20, 30), (41, 17), (8, 8), (33, 64), (25, 25), (60, 12), (9, 70)]


@dataclass(frozen=True)
class File:
    path: Path


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    generator = np.random.default_rng(0)
    made = []
    for i, (height, width) in enumerate(SIZES):
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        made.append(File(tmp_path / f"{i}.png"))
    return made


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_images_come_in_order(files: list[File], workers: int) -> None:
    frames = list(file_frames(files, workers=workers))
    assert [frame.source for frame in frames] == files
    assert [frame.size for frame in frames] == SIZES
    for frame in frames:
        assert frame.pixels.transpose(1, 2, 0).flags.c_contiguous  # a view of the picture
        assert frame.pixels.dtype == np.uint8
        picture = ss.read_image(frame.source.path)
        assert np.array_equal(frame.picture(), picture)
        assert torch.equal(frame.tensor(), torch.from_numpy(picture).permute(2, 0, 1))


def test_no_files_give_no_frames() -> None:
    assert list(file_frames([], workers=2)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(files: list[File], tmp_path: Path, workers: int) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for name in ("broken.jpg", "gone.jpg"):
        frames = file_frames([files[0], File(tmp_path / name), files[1]], workers=workers)
        assert next(frames).source == files[0]
        with pytest.raises(UserError, match=name):
            next(frames)
        skipped: list[UserError] = []
        rest = file_frames([files[0], File(tmp_path / name), files[1]], workers=workers, skip=skipped.append)
        assert [frame.source for frame in rest] == files[:2]
        assert [name in str(error) for error in skipped] == [True]


def test_a_dataset_gives_its_records_and_names_missing_images_at_the_call(tiny_voc: Path, tmp_path: Path) -> None:
    data = ss.open_dataset(tiny_voc, split="train")
    assert [frame.source.name for frame in dataset_frames(data)] == ["a", "b", "c", "d"]
    gone = replace(data, records=(*data.records, replace(data.records[0], path=tmp_path / "x.jpg")))
    with pytest.raises(UserError, match=r"1 of 5 images of split 'train' are missing, such as .*x\.jpg; restore them"):
        dataset_frames(gone)
