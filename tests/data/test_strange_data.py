"""Small files that were read wrongly, or ended in a traceback; they are gone through in place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singleshot.cli import main
from singleshot.data.open import open_dataset

Capture = pytest.CaptureFixture[str]
NAMES = ("a.png", "b.png", "c.png")


def hostile(shared: Path, kind: str) -> list[Path]:
    """The files that are given as annotations of one kind."""
    found = sorted((shared / "hostile").glob(f"{kind}-*"))
    if not found:
        pytest.skip(f"no files in {shared / 'hostile'}")
    return found


def awkward(shared: Path, name: str) -> Path:
    """One of the small datasets."""
    folder = shared / "awkward_sets" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


def refused(words: list[str], capsys: Capture) -> str:
    """What a verb says when it refuses with one message, not too long."""
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("singleshot: ")
    assert "Traceback" not in err
    assert len(err) < 5_000
    return err


def test_hostile_json(shared: Path, tmp_path: Path, capsys: Capture) -> None:
    for name in NAMES:
        Image.new("RGB", (80, 64)).save(tmp_path / name)
    for file in hostile(shared, "coco"):
        path = shutil.copy(file, tmp_path / "a.json")
        err = refused(["data", "show", str(path), "--out", str(tmp_path / "out.png")], capsys)
        assert str(path) in err
        assert main(["data", "check", str(path), "--json"]) == 2
        (split,) = json.loads(capsys.readouterr().out)["splits"]
        assert split["errors"]


def test_hostile_xml(shared: Path, tmp_path: Path, capsys: Capture) -> None:
    Image.new("RGB", (80, 64)).save(tmp_path / "a.png")
    for file in hostile(shared, "voc"):
        shutil.copy(file, tmp_path / "a.xml")
        assert main(["data", "check", str(tmp_path)]) == 2
        out, err = capsys.readouterr()
        assert f"{tmp_path / 'a.xml'}: object 1 (cat)" in out
        assert "Traceback" not in err


@pytest.mark.parametrize(
    "name",
    ["10_numbers_as_text", "10b_iscrowd_text_zero_and_mixed_ids", "24_category_names_numbers", "25_iscrowd_as_text"],
)
def test_numbers_and_flags_as_text(shared: Path, name: str, capsys: Capture) -> None:
    folder = awkward(shared, name)
    data = open_dataset(folder, split="train")
    assert not np.concatenate([record.crowd for record in data.records]).any()
    assert data.records[0].boxes[0].tolist() == [20, 20, 70, 60]
    assert data.records[0].areas[0] == 2000
    assert data.records[0].size == (120, 160)
    assert all(len(record.labels) for record in data.records)
    assert main(["data", "check", str(folder)]) == 0
    assert "0 errors" in capsys.readouterr().out


def test_text_as_flag_no_longer_hides_objects(shared: Path, capsys: Capture) -> None:
    folder = awkward(shared, "25_iscrowd_as_text")
    assert main(["evaluate", "--detections", str(folder / "dets.json"), str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["coco"]["AP"], found["voc07"]["mAP"], found["per_class"]["cup"]["boxes"]) == (1.0, 1.0, 8)


def test_polygons_without_boxes(shared: Path) -> None:
    (record,) = open_dataset(awkward(shared, "29_polygons_without_bbox")).records
    assert record.boxes.tolist() == [[20, 20, 70, 60]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("05b_xml_gbk_undeclared", "is no utf-8 text, and the file declares no other encoding"),
        ("05c_xml_latin1_undeclared", "is no utf-8 text, and the file declares no other encoding"),
        ("17_rotated_boxes", "rotated box"),
        ("05_xml_declared_gbk", None),
        ("05d_xml_declared_utf8_without_hyphen", None),
    ],
)
def test_encodings_and_rotated_boxes(shared: Path, name: str, said: str | None, capsys: Capture) -> None:
    folder = awkward(shared, name)
    if said is None:
        assert open_dataset(folder).records[0].boxes.tolist() == [[20, 20, 70, 60]]
    else:
        assert main(["data", "check", str(folder)]) == 2
        assert said in capsys.readouterr().out


def _fifo(path: Path) -> None:
    os.mkfifo(path)


ODD = {
    "named pipe": _fifo,
    "a folder": Path.mkdir,
    "link that leads back to itself": lambda path: path.symlink_to(path.name),
    "link to a file that is not there": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("place", ["Annotations/b.xml", "ImageSets/Main/val.txt", "ImageSets/Main/cat_val.txt"])
def test_what_is_in_the_place_of_a_voc_file_is_named(
    tmp_path: Path, tiny_voc: Path, what: str, place: str, capsys: Capture
) -> None:
    """It was passed over as if nothing was there: fewer images were used without a word."""
    root = shutil.copytree(tiny_voc, tmp_path / "data", symlinks=True)
    for name in ("Annotations/b.xml", "JPEGImages/b.jpg", "ImageSets/Main/val.txt"):
        (root / name).unlink(missing_ok=True)
    ODD[what](root / place)
    assert main(["data", "check", str(root)]) == 2
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert str(root / place) in said
    assert what in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("what", ODD)
def test_what_is_in_the_place_of_a_coco_file_is_named(tmp_path: Path, what: str, capsys: Capture) -> None:
    place = tmp_path / "annotations" / "instances_val.json"
    place.parent.mkdir()
    Image.new("RGB", (80, 64)).save(tmp_path / "a.png")
    good = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (place.parent / "instances_train.json").write_text(json.dumps(good))
    ODD[what](place)
    assert main(["data", "check", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert f"{place}: " in said
    assert what in said


@pytest.mark.parametrize("name", ["Annotations", "JPEGImages", "ImageSets", "ImageSets/Main"])
def test_a_link_to_nothing_in_the_place_of_a_voc_folder_is_named(
    tmp_path: Path, tiny_voc: Path, name: str, capsys: Capture
) -> None:
    """As when the disk that it leads to is not there."""
    root = shutil.copytree(tiny_voc, tmp_path / "data", symlinks=True)
    shutil.rmtree(root / name)
    (root / name).symlink_to(tmp_path / "not mounted")
    err = refused(["data", "check", str(root)], capsys)
    assert f"{root / name}: this is a link to a file that is not there, expected a folder" in err
