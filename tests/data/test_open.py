"""Opening a path: format, split, and what keeps the truth from being used."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from singleshot.data.open import find_splits, open_dataset
from singleshot.data.splits import choose_split, find_split
from singleshot.errors import UserError

XML = (
    "<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>{}</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    "</object></annotation>"
)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for stem, name in (("a", "dog"), ("b", "cat")):
        (root / "Annotations" / f"{stem}.xml").write_text(XML.format(name, 2))
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    (root / "ImageSets/Main/val.txt").write_text("b\n")
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 2, 2]}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    return path


def test_the_format_is_found(voc: Path, coco: Path) -> None:
    assert open_dataset(str(voc), split="train").format == "voc"
    for path in (coco, coco.parent, coco.parents[1]):
        data = open_dataset(path)
        assert (data.format, data.split, data.root) == ("coco", "val2017", path)
        assert find_splits(path) == ("val2017",)
    assert find_splits(voc) == ("train", "val")


@pytest.mark.parametrize(("annotations", "images"), [("labels", "images"), ("xml", "img"), ("xmls", "JPEGImages")])
def test_other_names_of_the_folders(voc: Path, tmp_path: Path, annotations: str, images: str) -> None:
    for name in "ab":
        (voc / "JPEGImages" / f"{name}.jpg").touch()
    root = tmp_path / "other"
    shutil.copytree(voc / "Annotations", root / annotations)
    shutil.copytree(voc / "JPEGImages", root / images)
    data = open_dataset(root)
    assert [(record.name, len(record.boxes), record.path.exists()) for record in data.records] == [
        ("a", 1, True),
        ("b", 1, True),
    ]


def test_a_report_is_no_dataset(voc: Path) -> None:
    (voc / "analysis").mkdir()
    (voc / "analysis" / "errors.json").write_text('{"images": 30, "AP50": 0.7, "annotations": 3}')
    (voc / "analysis" / "more.json").write_text('{"AP50": 0.7, "images": 30}')
    assert open_dataset(voc, split="train").format == "voc"


def test_lists_beside_the_folders(voc: Path) -> None:
    for name in ("train", "val"):
        (voc / "ImageSets" / "Main" / f"{name}.txt").rename(voc / f"{name}.txt")
    (voc / "classes.txt").write_text("dog\ncat\n")
    assert find_splits(voc) == ("train", "val")
    assert [record.name for record in open_dataset(voc, split="val").records] == ["b"]
    (voc / "val.txt").rename(voc / "validation.txt")
    assert [record.name for record in open_dataset(voc, split="val").records] == ["b"]


@pytest.mark.parametrize("place", ["", "labels", "labels/train", "train/labels"])
def test_yolo_labels_are_named(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "classes.txt").write_text("dog\n")
    (tmp_path / place / "img.txt").write_text("0 .5 5e-1  0.25 1\n3 0.1 0.1 0.2 0.2\n")
    with pytest.raises(UserError, match=r"img.txt looks like a file of YOLO labels, .* examples/yolo_to_coco.py"):
        open_dataset(tmp_path)
    (tmp_path / place / "img.txt").write_text("some words\n")
    with pytest.raises(UserError, match="no dataset found in this folder"):
        open_dataset(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [dog]\n")
    with pytest.raises(UserError, match=r"none of the known formats. .* examples/yolo_to_coco.py"):
        open_dataset(tmp_path / "data.yaml")


def test_two_formats_in_one_folder(voc: Path, coco: Path) -> None:
    shutil.copytree(coco.parent, voc / "json")
    with pytest.raises(UserError, match=r"two formats: VOC.*COCO.*--format voc or --format coco"):
        open_dataset(voc)
    with pytest.raises(UserError, match="two formats"):
        find_splits(voc)
    assert open_dataset(voc, format="voc", split="val").format == "voc"
    assert open_dataset(voc, format="coco").format == "coco"
    assert open_dataset(voc / "json" / coco.name).format == "coco"
    assert find_splits(voc, format="coco") == ("val2017",)


def test_chess_is_such_a_folder(shared: Path) -> None:
    with pytest.raises(UserError, match="two formats"):
        open_dataset(shared / "chess", split="val")
    one = open_dataset(shared / "chess", split="val", format="voc")
    other = open_dataset(shared / "chess", split="val", format="coco", class_names=one.class_names)
    found = {record.path.name: record for record in other.records}
    for record in one.records:
        assert sorted(record.labels) == sorted(found[record.path.name].labels)


def test_what_holds_no_dataset(tmp_path: Path, voc: Path, coco: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    for name, message in (
        ("gone", "no such file or folder"),
        ("empty", "no dataset found in this folder"),
        ("notes.txt", "this file is in none of the known formats"),
    ):
        with pytest.raises(UserError, match=f"{name}: {message}.*expected a Pascal VOC folder"):
            open_dataset(tmp_path / name)
    with pytest.raises(UserError, match=r"'yolo' is unknown.*voc, coco"):
        open_dataset(voc, format="yolo")
    with pytest.raises(UserError, match="cannot be read as VOC"):
        open_dataset(coco, format="voc")
    with pytest.raises(UserError, match="no COCO data"):
        open_dataset(voc, format="coco")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    """Reading from a pipe that nobody writes to would never end."""
    os.mkfifo(tmp_path / "a.json")
    for path, said in ((tmp_path / "a.json", "neither a file nor a folder"), ("a" * 5_000, "a{9}")):
        with pytest.raises(UserError, match=said):
            open_dataset(path)
    with pytest.raises(UserError, match="no dataset found"):
        open_dataset(tmp_path)


def test_the_split_is_chosen(voc: Path, coco: Path) -> None:
    assert open_dataset(voc, prefer=("test", "val")).split == "val"
    assert open_dataset(voc, split="train", prefer=("val",)).split == "train"
    assert open_dataset(coco, prefer=("train",)).split == "val2017"  # the only one
    for kind in (voc, coco):
        with pytest.raises(UserError, match=r"no split 'test'.*val"):
            open_dataset(kind, split="test")
    with pytest.raises(UserError, match=r"has several splits: train, val\. Choose one with --split"):
        open_dataset(voc)


@pytest.mark.parametrize(
    ("wanted", "splits", "found"),
    [
        ("val", ["train2017", "val2017"], "val2017"),
        ("val", ["train", "valid"], "valid"),
        ("validation", ["train", "val"], "val"),
        ("val", ["val", "val2"], "val"),
        ("train", ["trainval", "val"], None),
        ("train", ["train2014", "train2017"], None),
        ("train2014", ["train2014", "train2017"], "train2014"),
        ("val", ["my_dataset-VAL", "my_dataset-train"], "my_dataset-VAL"),
        ("trainval", ["VOC2007:trainval", "VOC2007:test"], "VOC2007:trainval"),
        ("test", [], None),
    ],
)
def test_names_of_splits(wanted: str, splits: list[str], found: str | None) -> None:
    assert find_split(wanted, splits) == found


def test_no_split_at_all_is_said() -> None:
    with pytest.raises(UserError, match="none"):
        choose_split([], "train", (), "here")


def test_missing_truth_is_refused_where_it_is_needed(voc: Path, coco: Path) -> None:
    (voc / "Annotations/b.xml").unlink()
    with pytest.raises(UserError, match="'val' has no annotations"):
        open_dataset(voc, split="val")
    assert not open_dataset(voc, split="val", need_truth=False).records[0].annotated
    (voc / "ImageSets/Main/all.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="image b has no annotation"):
        open_dataset(voc, split="all")
    data = open_dataset(voc, split="all", strict=False)  # the check warns of it
    assert [record.annotated for record in data.records] == [True, False]
    content = json.loads(coco.read_text())
    del content["annotations"]
    coco.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has no annotations"):
        open_dataset(coco)
    assert len(open_dataset(coco, need_truth=False)) == 1


def test_all_problems_are_in_one_message(voc: Path) -> None:
    (voc / "ImageSets/Main/all.txt").write_text("a\nb\nc\n")
    (voc / "Annotations/a.xml").write_text("<annotation>")
    (voc / "Annotations/b.xml").write_text(XML.format("dog", "nan"))
    (voc / "Annotations/c.xml").write_text(XML.format("cow", 2))
    with pytest.raises(UserError) as caught:
        open_dataset(voc, split="all", class_names=("cat", "dog"))
    message = str(caught.value)
    assert "3 problems" in message
    assert "a.xml:1" in message
    assert "broken XML" in message
    assert "b.xml" in message
    assert "not finite" in message
    assert "'cow'" in message
    assert "cat, dog" in message
    data = open_dataset(voc, split="all", class_names=("cat", "dog"), strict=False)
    assert [record.name for record in data.records] == ["b", "c"]
    assert len(data.problems) == 2


def test_long_messages_are_cut(voc: Path) -> None:
    (voc / "ImageSets/Main/all.txt").write_text("\n".join(map(str, range(50))) + "\na\n")
    with pytest.raises(UserError, match="50 problems") as caught:
        open_dataset(voc, split="all")
    assert "... and 30 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 22


def test_inverted_and_empty_boxes_are_the_evaluators_business(voc: Path) -> None:
    (voc / "Annotations/a.xml").write_text(XML.format("dog", 9))
    assert open_dataset(voc, split="train").records[0].boxes.tolist() == [[1, 9, 3, 4]]
