"""`singleshot data check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tiny_voc: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return shutil.copytree(tiny_voc, tmp_path / "data")


def test_nothing_wrong(tiny_voc: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(tiny_voc)]) == 0
    out, err = capsys.readouterr()
    assert "4 images, 8 boxes; 0 errors, 0 warnings" in out
    assert "2 images, 4 boxes; 0 errors, 0 warnings" in out
    assert err == ""


def test_one_split(tiny_voc: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(tiny_voc), "--split", "val", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (split,) = document["splits"]
    assert split["split"] == "val"
    assert split["format"] == "voc"
    assert split["class_names"] == ["cell", "other"]
    assert (split["images"], split["boxes"], split["usable"]) == (2, 4, 2)
    assert split["errors"] == split["warnings"] == []


def test_errors_stop(data: Path, capsys: Capture) -> None:
    (data / "JPEGImages" / "b.jpg").write_bytes(b"")
    (data / "JPEGImages" / "e.jpg").unlink()
    assert main(["data", "check", str(data), "--json"]) == 2
    out, err = capsys.readouterr()
    errors = {split["split"]: [error["kind"] for error in split["errors"]] for split in json.loads(out)["splits"]}
    assert errors == {"train": ["unreadable image"], "val": ["missing image"]}
    assert err.startswith(f"singleshot: {data}: 2 errors; correct them, or leave them out with --skip-bad")
    assert main(["data", "check", str(data), "--skip-bad"]) == 0
    assert "b.jpg" in capsys.readouterr().out


def test_broken_xml_is_named(data: Path, capsys: Capture) -> None:
    broken = data / "Annotations" / "c.xml"
    broken.write_text("<annotation>\n<object>\n")
    assert main(["data", "check", str(data)]) == 2
    assert str(broken) in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["nowhere"], ["nowhere", "--split", "val"], ["nowhere", "--format", "coco", "--json"]]
)
def test_no_data(words: list[str], capsys: Capture) -> None:
    assert main(["data", "check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("singleshot: nowhere: no such file or folder")


def test_empty_folder(tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "no dataset found" in capsys.readouterr().err


def test_unknown_split(tiny_voc: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(tiny_voc), "--split", "night"]) == 2
    err = capsys.readouterr().err
    assert "'night'" in err
    assert "train, val" in err


def test_a_split_that_cannot_be_read_does_not_hide_the_others(shared: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(shared / "chess"), "--format", "coco", "--json"]) == 2
    splits = {split.get("split", split["title"]): split for split in json.loads(capsys.readouterr().out)["splits"]}
    assert "normalised" in splits["train2"]["errors"][0]["message"]
    assert splits["val"]["images"] == 58


def test_an_image_that_is_used_for_a_name_that_leads_elsewhere_is_said(tmp_path: Path, capsys: Capture) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "/gone/a.png", "width": 20, "height": 20}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10]}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    found = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 10], "score": 0.9}
    (tmp_path / "found").mkdir()
    (tmp_path / "found/detections.json").write_text(json.dumps([found]))
    message = f"the name /gone/a.png leads to /gone/a.png; {tmp_path}/a.png is used"
    assert main(["data", "check", str(tmp_path / "val.json")]) == 0
    out = capsys.readouterr().out
    assert "warning: image of another folder (1): the image of the data that has the last part" in out
    assert message in out
    detections = ["--detections", str(tmp_path / "found/detections.json")]
    for words in (["evaluate", *detections], ["analyse", "errors", *detections], ["data", "show"]):
        more = ["--out", str(tmp_path / "sheet.png")] if words[0] == "data" else []
        assert main([*words, str(tmp_path / "val.json"), *more]) == 0
        assert message in capsys.readouterr().err, words


def test_what_is_left_is_counted(data: Path, capsys: Capture) -> None:
    for stem in "ab":
        path = data / "Annotations" / f"{stem}.xml"
        path.write_text(path.read_text().replace("<name>cell</name>", "<name>Cell</name>"))
    (data / "Annotations" / "d.xml").unlink()
    assert main(["data", "check", str(data), "--split", "train"]) == 0
    out = capsys.readouterr().out
    assert "warning: similar class names (1): they remain different classes" in out
    assert "'Cell' (2 boxes) and 'cell' (1 boxes) may be one class, written differently" in out
    assert "left: 3 of 4 images" in out
    assert "images: 96 x 72 (3)" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["class", "objects", "images", "10%", "median", "90%"] in rows
    assert ["Cell", "2", "2", "32", "32", "32"] in rows
    assert ["other", "3", "3", "32", "32", "32"] in rows
    assert main(["data", "check", str(data), "--split", "val", "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"]
    assert split["image_sizes"] == [{"width": 96, "height": 72, "images": 2}]
    assert split["classes"][0] == {
        "name": "Cell",
        "boxes": 0,
        "images": 0,
        "small": None,
        "median": None,
        "large": None,
    }
    assert split["classes"][1]["median"] == pytest.approx(32)


def test_data_split(data: Path, capsys: Capture) -> None:
    shutil.rmtree(data / "ImageSets")
    assert main(["data", "split", str(data), "--val", "0.5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {part: found["images"] for part, found in document.items()} == {"train": 3, "val": 3}
    assert main(["data", "check", str(data)]) == 0
    assert "split val): 3 images" in capsys.readouterr().out
    assert main(["data", "split", str(data)]) == 2
    assert "no list is overwritten" in capsys.readouterr().err


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A COCO folder that names an image outside of it, and has one object with an unclear flag."""
    folder = tmp_path / "data"
    folder.mkdir()
    for place in (tmp_path / "secret.png", folder / "a.png", folder / "b.png"):
        Image.new("RGB", (40, 30)).save(place)
    names = ["../secret.png", "a.png", "b.png"]
    content = {
        "images": [{"id": k, "file_name": name, "width": 40, "height": 30} for k, name in enumerate(names)],
        "annotations": [
            {"id": k + 1, "image_id": k, "category_id": 1, "bbox": [1, 1, 20, 20], "iscrowd": flag}
            for k, flag in enumerate((0, 0, "maybe"))
        ],
        "categories": [{"id": 1, "name": "ant"}],
    }
    (folder / "all.json").write_text(json.dumps(content))
    return folder


def test_images_that_are_left_out_are_counted_with_the_reason(stranger: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(stranger)]) == 2
    out = capsys.readouterr().out
    assert "error: outside of the data (1): with --skip-bad the image is left out" in out
    assert "annotations[2]: image b.png: iscrowd is 'maybe', expected 0 or 1 (or false or true)" in out
    assert "left: 1 of 3 images; left out for: outside of the data (1), broken annotation (1)" in out
    assert main(["data", "check", str(stranger), "--skip-bad", "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"]
    assert (split["images"], split["usable"]) == (3, 1)
    assert split["left_out"] == {"outside of the data": 1, "broken annotation": 1}


@pytest.mark.parametrize("verb", ["data show --out x.png", "data split --split all", "evaluate --detections x.json"])
def test_every_verb_refuses_what_lies_outside(
    stranger: Path, verb: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stranger)
    assert main([*verb.split(), str(stranger)]) == 2
    err = capsys.readouterr().err
    assert "outside of" in err
    assert "--allow-outside" in err
    path = stranger / "all.json"
    path.write_text(path.read_text().replace('"maybe"', "0"))
    main([*verb.split(), str(stranger), "--allow-outside"])
    assert "outside of" not in capsys.readouterr().err
    assert main(["data", "check", str(stranger), "--allow-outside"]) == 0
