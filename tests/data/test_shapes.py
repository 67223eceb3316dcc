"""The generated dataset: what it promises, and that both formats say the same."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from singleshot.data.open import open_dataset
from singleshot.data.shapes import CLASS_NAMES, ShapesImage, draw_shapes, write_shapes
from singleshot.data.shapes.draw import HIDDEN, LEAST_SEEN, outline_of
from singleshot.errors import UserError


@pytest.fixture(scope="module")
def drawn() -> list[ShapesImage]:
    return [draw_shapes(np.random.default_rng([0, i])) for i in range(150)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("made") / "shapes", train=8, val=4, seed=3)


def test_pictures_are_as_described(drawn: list[ShapesImage]) -> None:
    counts = [len(image.labels) for image in drawn]
    assert min(counts) == 0
    assert max(counts) <= 8
    assert 0.04 < np.mean(np.array(counts) == 0) < 0.17
    labels, visible = np.concatenate([d.labels for d in drawn]), np.concatenate([d.visible for d in drawn])
    assert np.bincount(labels, minlength=len(CLASS_NAMES)).min() > 0.14 * len(labels)
    assert 0.25 < (visible < HIDDEN).mean() < 0.42  # about a third partly hidden
    assert visible.min() >= LEAST_SEEN
    assert visible.max() <= 1
    for image in drawn:
        assert image.image.shape == (256, 256, 3)
        assert image.image.dtype == np.uint8
        assert image.image.std() > 1


def test_boxes_lie_in_the_image_and_have_the_sides_promised(drawn: list[ShapesImage]) -> None:
    boxes, cut = np.concatenate([d.boxes for d in drawn]), np.concatenate([d.truncated for d in drawn])
    assert boxes.min() >= 0
    assert boxes.max() <= 256
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[~cut]
    assert longer.min() >= 16
    assert longer.max() <= 162  # whole pixels around 160
    middle = np.median(np.log(longer))
    assert np.log(35) < middle < np.log(62)  # log-uniform has it at 50.6; large shapes find a place less often
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_box_frames_its_shape(drawn: list[ShapesImage]) -> None:
    # Where a picture has one shape, uncovered and whole, that shape is where the picture differs from the ground
    # around it: inside the box much, just outside little.
    inside, outside = [], []
    for image in drawn:
        if len(image.labels) != 1 or image.visible[0] < 1 or image.truncated[0]:
            continue
        x1, y1, x2, y2 = image.boxes[0].tolist()
        edges = cv2.Laplacian(cv2.cvtColor(cv2.medianBlur(image.image, 5), cv2.COLOR_RGB2GRAY), cv2.CV_32F)
        strength = np.abs(edges)
        ring = strength[max(y1 - 6, 0) : y2 + 6, max(x1 - 6, 0) : x2 + 6].sum() - strength[y1:y2, x1:x2].sum()
        inside.append(strength[y1:y2, x1:x2].sum())
        outside.append(ring)
    assert len(inside) >= 3
    assert np.sum(inside) > 2 * np.sum(outside)


@pytest.mark.parametrize(
    ("name", "corners", "filled"), [("square", 4, 1.0), ("triangle", 3, 0.5), ("circle", 48, 0.785)]
)
def test_outlines(name: str, corners: int, filled: float) -> None:
    for seed in range(20):
        points = outline_of(CLASS_NAMES.index(name), np.random.default_rng(seed))
        assert len(points) == corners
        area = abs(cv2.contourArea(points.astype(np.float32)))
        assert area <= 1.02 * filled * np.prod(points.max(axis=0) - points.min(axis=0))


def test_a_seed_repeats_a_picture() -> None:
    a, b, c = (draw_shapes(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.boxes, b.boxes)
    assert not np.array_equal(a.image, c.image)


def test_both_formats_hold_the_same_truth(folder: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        voc = open_dataset(folder / "voc", split=split)
        coco = open_dataset(folder / "coco", split=split)
        assert len(voc) == len(coco) == count
        assert set(voc.class_names) <= set(coco.class_names) == set(CLASS_NAMES)
        for a, b in zip(voc.records, coco.records, strict=True):
            assert a.path.stem == b.path.stem
            assert a.path.read_bytes() == b.path.read_bytes()
            assert a.size == b.size == (256, 256)
            assert np.array_equal(a.boxes, b.boxes)
            assert [voc.class_names[i] for i in a.labels] == [coco.class_names[i] for i in b.labels]


def test_the_same_seed_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    def contents(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    again = contents(write_shapes(tmp_path / "again", train=8, val=4, seed=3))
    assert again == contents(folder)
    longer = contents(write_shapes(tmp_path / "longer", train=9, val=4, seed=3))
    assert longer["voc/JPEGImages/train_00002.jpg"] == again["voc/JPEGImages/train_00002.jpg"]
    other = contents(write_shapes(tmp_path / "other", train=8, val=4, seed=4))
    assert other["voc/JPEGImages/val_00002.jpg"] != again["voc/JPEGImages/val_00002.jpg"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_finished_folder_is_kept_and_a_foreign_one_refused(folder: Path, tmp_path: Path) -> None:
    mark = folder / "shapes.json"
    before = mark.stat().st_mtime_ns
    assert write_shapes(folder, train=8, val=4, seed=3) == folder
    assert mark.stat().st_mtime_ns == before
    assert json.loads(mark.read_text())["seed"] == 3
    with pytest.raises(UserError, match="already exists and does not hold this dataset"):
        write_shapes(folder, train=8, val=4, seed=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="already exists and does not hold this dataset"):
        write_shapes(tmp_path / "mine", train=1, val=1)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="shapes"):
        write_shapes(tmp_path / "file" / "shapes", train=1, val=1)
    with pytest.raises(UserError, match="seed"):
        write_shapes(tmp_path / "new", train=1, val=1, seed=-1)
    with pytest.raises(UserError, match="pictures of 64 x 64 pixels: the largest shapes need 160 or more"):
        write_shapes(tmp_path / "new", train=1, val=1, size=64)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(open_dataset(write_shapes(tmp_path / "empty", train=3, val=1) / "voc", split="train")) == 3
