"""Dividing a dataset into train and val."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.divide import divide, write_parts
from singleshot.data.open import find_splits, open_dataset
from singleshot.errors import UserError


def dataset(labels: list[list[int]], classes: int = 3) -> Dataset:
    records = []
    for i, own in enumerate(labels):
        none = np.zeros(len(own), np.bool_)
        boxes = np.tile([0.0, 0.0, 2.0, 2.0], (len(own), 1)).reshape(-1, 4)
        records.append(
            ImageRecord(
                Path(f"{i}.jpg"), str(i), i, (9, 9), boxes, np.array(own, np.int64), none, none, none, boxes[:, 2]
            )
        )
    names = tuple("abc"[:classes])
    return Dataset(Path("set"), "voc", "all", names, tuple(range(classes)), tuple(records))


def test_every_class_has_its_share_in_both_parts() -> None:
    labels = [[0, 0]] * 60 + [[0, 1]] * 30 + [[0, 2]] * 10 + [[]] * 20
    for seed in range(20):
        train, val = divide(dataset(labels), 0.2, seed)
        assert sorted(train + val) == list(range(120))
        assert (train, val) == (tuple(sorted(train)), tuple(sorted(val)))
        assert len(val) == 24
        shown = [tuple(labels[k]) for k in val]
        counts = [shown.count(kind) for kind in ((0, 0), (0, 1), (0, 2), ())]
        assert np.abs(np.subtract(counts, [12, 6, 2, 4])).max() <= 1
    assert divide(dataset(labels), 0.2, 0) == divide(dataset(labels), 0.2, 0) != divide(dataset(labels), 0.2, 1)


@pytest.mark.parametrize(("count", "share", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (5, 0.2, 1), (10, 0.25, 3)])
def test_neither_part_is_empty(count: int, share: float, expected: int) -> None:
    train, val = divide(dataset([[0]] * count), share)
    assert (len(train), len(val)) == (count - expected, expected)


def test_what_cannot_be_divided() -> None:
    for share in (0.0, 1.0, 20.0, float("nan")):
        with pytest.raises(UserError, match="expected a number between 0 and 1, such as 0.2"):
            divide(dataset([[0]] * 3), share)
    with pytest.raises(UserError, match="has 1 image, and two parts need at least two"):
        divide(dataset([[0]]), 0.5)


def test_both_lists_or_none(tiny_voc: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_voc, tmp_path / "data")
    shutil.rmtree(root / "ImageSets")
    (root / "ImageSets" / "Main" / "val.txt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"already has a split 'val' .*no list is overwritten"):
        write_parts(root)
    (root / "ImageSets" / "Main" / "val.txt").rmdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("singleshot.files.os.replace", _full_disk_after_one())
        with pytest.raises(OSError, match="full"):
            write_parts(root)
    assert not list((root / "ImageSets" / "Main").iterdir())


def test_a_file_that_is_no_list_is_not_overwritten_either(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}.png"} for k in range(3)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "all.json").write_text(json.dumps(content))
    (tmp_path / "instances_val.json").write_text("[]")  # a results file
    with pytest.raises(UserError, match=r"instances_val.json already exists, and no list is overwritten"):
        write_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "instances_val.json"}


def _full_disk_after_one() -> Callable[[str, Path], None]:
    calls: list[Path] = []

    def replace(name: str, path: Path) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise OSError("the disk is full")
        os.rename(name, path)

    return replace


@pytest.mark.parametrize("flat", [False, True])
def test_a_voc_folder_without_lists(tiny_voc: Path, tmp_path: Path, flat: bool) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for part in ("JPEGImages", "Annotations"):
        shutil.copytree(tiny_voc / part, root if flat else root / part, dirs_exist_ok=True)
    before = {record.path for record in open_dataset(root).records}
    written = write_parts(root, 0.3)
    assert find_splits(root) == ("train", "val")
    assert {part: number for part, (_, number) in written.items()} == {"train": 4, "val": 2}
    parts = {part: open_dataset(root, split=part) for part in written}
    assert {record.path for data in parts.values() for record in data.records} == before
    for part, (file, number) in written.items():
        assert file == root / "ImageSets" / "Main" / f"{part}.txt"
        assert len(parts[part]) == number
    content = [file.read_bytes() for file, _ in written.values()]
    with pytest.raises(UserError, match=r"already has a split 'train' .*rename that split, for example to trainval"):
        write_parts(root, 0.5)
    assert [file.read_bytes() for file, _ in written.values()] == content
    (root / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(UserError, match="if a division that was stopped has left it, remove its list"):
        write_parts(root, 0.5)
    written["train"][0].rename(root / "ImageSets" / "Main" / "trainval.txt")
    assert write_parts(root, 0.5, split="trainval")["val"][1] == 2


def test_several_datasets_are_not_divided_at_once(tiny_voc: Path, tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        shutil.copytree(tiny_voc, tmp_path / "devkit" / year)
    with pytest.raises(UserError, match="give the folder of one of them"):
        write_parts(tmp_path / "devkit", split="VOC2007:train")


@pytest.mark.parametrize("folder", ["images", "default", "images/default"])
def test_a_coco_file(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "data"
    (root / folder).mkdir(parents=True)
    (root / "annotations").mkdir()
    names = [f"{i}.jpg" for i in range(10)]
    for name in names:
        (root / folder / name).write_bytes(b"")
    content = {
        "info": {"year": 2026},
        "images": [{"id": i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(names)],
        "annotations": [
            {"id": 5 * i + k, "image_id": i, "category_id": 7, "bbox": [1, 2, 3, 4], "kept": k}
            for i in range(10)
            for k in range(3)
        ],
        "categories": [{"id": 7, "name": "dog"}],
    }
    content["images"].append("no entry")
    content["annotations"].append({"id": 99, "image_id": None})
    source = root / "annotations" / "instances_default.json"
    source.write_text(json.dumps(content))
    before = {record.path for record in open_dataset(root, strict=False).records}
    written = write_parts(root)
    assert json.loads(source.read_text()) == content
    assert {part: number for part, (_, number) in written.items()} == {"train": 8, "val": 2}
    parts = {part: open_dataset(root, split=part) for part in written}
    assert {record.path.resolve() for data in parts.values() for record in data.records} == before
    assert [len(data) for data in parts.values()] == [8, 2]
    annotations = [entry for file, _ in written.values() for entry in json.loads(file.read_text())["annotations"]]
    assert sorted(annotations, key=lambda entry: entry["id"]) == content["annotations"][:-1]
    assert json.loads(written["val"][0].read_text())["info"] == {"year": 2026}
    with pytest.raises(UserError, match="already has a split 'train'"):
        write_parts(root, split="default")


def test_joined_coco_files_are_not_divided(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images = [{"id": f"{name}{i}", "file_name": f"{name}{i}.jpg"} for i in range(4)]
        (tmp_path / f"instances_{name}.json").write_text(json.dumps({"images": images}))
    with pytest.raises(
        UserError, match="only one file can be divided at a time, got a, b; name one of them with --split"
    ):
        write_parts(tmp_path, split="a+b")
    assert write_parts(tmp_path, 0.5, split="b")["val"][1] == 2


def test_a_folder_around_the_dataset(tiny_voc: Path, tmp_path: Path) -> None:
    """The lists go where they are looked for: into the dataset, not beside it."""
    root = shutil.copytree(tiny_voc, tmp_path / "outer" / "cells")
    shutil.rmtree(root / "ImageSets")
    written = write_parts(tmp_path / "outer")
    assert {file.parent for file, _ in written.values()} == {root / "ImageSets" / "Main"}
    parts = [open_dataset(tmp_path / "outer", split=f"cells:{part}") for part in written]
    assert [len(data) for data in parts] == [number for _, number in written.values()]


def test_what_the_reader_takes_is_divided(tmp_path: Path) -> None:
    """Ids like 1.0, names in addresses only (LVIS), and images that nobody has labelled."""
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    images = [{"id": float(i), "coco_url": f"http://x/{i}.jpg", "width": 9, "height": 9} for i in range(4)]
    boxes = [{"id": i, "image_id": float(i), "category_id": 7, "bbox": [1, 2, 3, 4]} for i in range(4)]
    content: dict[str, object] = {"images": images, "categories": [{"id": 7, "name": "dog"}]}
    (tmp_path / "a.json").write_text(json.dumps({**content, "annotations": boxes}))
    written = write_parts(tmp_path / "a.json", 0.5)
    for file, number in written.values():
        data = open_dataset(file)
        assert (len(data), len(data.labels())) == (number, number) == (2, 2)
        assert all(record.path.parent == tmp_path for record in data.records)
        file.unlink()
    (tmp_path / "a.json").write_text(json.dumps(content))
    for file, _ in write_parts(tmp_path / "a.json", 0.5).values():
        assert "annotations" not in json.loads(file.read_text())


def test_an_entry_that_was_not_read_is_in_neither_file(tmp_path: Path) -> None:
    """A second entry with the id of another one, and an image that cannot be divided away silently."""
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(4)] + [{"id": 1, "file_name": None}],
        "annotations": [{"image_id": str(k), "category_id": 1, "bbox": [1, 1, 9, 9]} for k in range(4)],
        "categories": [{"id": 1, "name": "ant"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    parts = write_parts(tmp_path, 0.5)
    found = [json.loads(file.read_text()) for file, _ in parts.values()]
    assert sorted(image["file_name"] for part in found for image in part["images"]) == [f"{k}.jpg" for k in range(4)]
    assert [len(part["annotations"]) for part in found] == [2, 2]  # ids that are the same as text
    for file, _ in parts.values():
        file.unlink()
    content["annotations"][0]["iscrowd"] = 2  # type: ignore[call-overload]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"iscrowd is 2"):
        write_parts(tmp_path, 0.5)
