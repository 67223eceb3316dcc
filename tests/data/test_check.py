"""The check: every kind of finding, what it stops and how it is mended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singleshot.data import decode_all as decoded
from singleshot.data.check import ERRORS, WARNINGS, check, examine
from singleshot.data.dataset import Dataset
from singleshot.data.decode_all import decode_all, memory_file
from singleshot.data.images import Decoded
from singleshot.data.open import open_dataset
from singleshot.errors import UserError

Make = Callable[..., Dataset]
HEIGHT, WIDTH = 30, 40
NAMES = ("ant", "bee")


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a COCO file of one image per argument: a list of [x1, y1, x2, y2] or [x1, y1, x2, y2, label]."""

    def build(*images: list[list[float]], size: tuple[int, int] | None = (HEIGHT, WIDTH)) -> Dataset:
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
        for i, boxes in enumerate(images):
            entry: dict[str, object] = {"id": i, "file_name": f"{i}.png"}
            content["images"].append(entry if size is None else entry | {"height": size[0], "width": size[1]})
            save(tmp_path / f"{i}.png")
            for x1, y1, x2, y2, *label in boxes:
                box = [x1, y1, x2 - x1, y2 - y1]
                label_id = int(label[0]) + 1 if label else 1
                content["annotations"].append({"image_id": i, "category_id": label_id, "bbox": box})
        (tmp_path / "val.json").write_text(json.dumps(content))
        return open_dataset(tmp_path / "val.json", strict=False)

    return build


def save(path: Path, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path, exif=exif)


def kinds(findings: list[object]) -> list[str]:
    return [finding.kind for finding in findings]  # type: ignore[attr-defined]


def test_a_sound_dataset_is_returned_as_it_is(make: Make) -> None:
    data = make([[1, 2, 3, 4], [5.25, 6, 7, 8, 1]], [[0, 0, WIDTH, HEIGHT]])
    mended, report = check(data)
    assert not report.errors
    assert not report.warnings
    assert (report.images, report.boxes, report.usable) == (2, 3, 2)
    for before, after in zip(data.records, mended.records, strict=True):
        np.testing.assert_array_equal(before.boxes, after.boxes)
        np.testing.assert_array_equal(before.labels, after.labels)
        assert after.size == (HEIGHT, WIDTH)
    assert "2 images, 3 boxes; 0 errors, 0 warnings" in report.text()


def test_unreadable_and_missing_images_stop(make: Make, tmp_path: Path) -> None:
    data = make(*([[[1, 2, 3, 4]]] * 6))
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "2.png").write_text("this is text, not an image")
    sound = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(sound[: len(sound) // 2])
    (tmp_path / "4.png").unlink()
    (tmp_path / "4.png").mkdir()
    with pytest.raises(UserError) as caught:
        check(data)
    message = str(caught.value)
    for part in ("5 errors", "--skip-bad", "missing image (1)", "unreadable image (4)", "0.png", "empty file", "text"):
        assert part in message
    mended, report = check(data, skip_bad=True)
    assert [record.name for record in mended.records] == ["5.png"]
    assert kinds(report.errors) == ["missing image", *["unreadable image"] * 4]
    assert report.usable == 1


def test_nan_infinite_and_inverted_boxes_stop(make: Make) -> None:
    nan, inf = float("nan"), float("inf")
    data = make([[1, 1, nan, 4], [1, 1, 2, 2]], [[1, 1, 2, inf]], [[5, 5, 3, 9]], [[1, 9, 2, 3]], [[1, 1, 2, 2]])
    with pytest.raises(UserError, match="invalid box") as caught:
        check(data)
    assert "NaN or infinite" in str(caught.value)
    with pytest.raises(UserError, match=r"beyond 1e\+09 pixels"):
        check(make([[1, 1, 4e38, 4]], [[1, 1, 2, 2]]))
    assert "x2 < x1" in str(caught.value)
    mended, report = check(data, skip_bad=True)
    assert [record.name for record in mended.records] == ["4.png"]
    assert kinds(report.errors) == ["invalid box"] * 4
    assert not report.warnings


def test_problems_of_the_reader_stop_and_are_in_the_same_report(make: Make, tmp_path: Path) -> None:
    make([[1, 2, 3, 4]], [[1, 2, 3, 4, 1]], [[1, 2, 3, 4]])
    content = json.loads((tmp_path / "val.json").read_text())
    content["images"].append({"id": 0, "file_name": "0.png"})
    content["annotations"][0]["bbox"] = "everywhere"
    content["annotations"].append({"image_id": 77, "category_id": 1, "bbox": [1, 1, 1, 1]})
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "2.png").write_bytes(b"")
    data = open_dataset(tmp_path / "val.json", class_names=["ant"], strict=False)
    with pytest.raises(UserError) as caught:
        check(data)
    for kind in ("duplicate image id", "broken annotation", "unknown class", "unreadable image"):
        assert f"error: {kind} (1)" in str(caught.value)
    mended, report = check(data, skip_bad=True)
    assert sorted(report.counts()) == sorted(
        [
            "duplicate image id",
            "broken annotation",
            "unknown class",
            "unreadable image",
            "annotation without image",
            "no boxes",
        ]
    )
    assert [record.name for record in mended.records] == ["1.png"]
    assert "left: 1 of 3 images; left out for: broken annotation (1), unreadable image (1)" in report.text()
    assert not mended.problems
    assert not mended.notes


def test_no_image_left_stops_in_any_case(make: Make, tmp_path: Path) -> None:
    data = make([[1, 2, 3, 4]])
    (tmp_path / "0.png").unlink()
    with pytest.raises(UserError, match="No usable image"):
        check(data, skip_bad=True)
    mended, report = examine(data)
    assert len(mended) == 0
    assert kinds(report.errors) == ["missing image"]


def test_boxes_are_mended_for_training(make: Make) -> None:
    data = make(
        [
            [1, 2, 3, 4],
            [5, 5, 5, 9],  # no width
            [5, 5, 9, 5],  # no height
            [-3, 2, 9, 99],  # partly outside
            [50, 2, 60, 9],  # outside
            [1, 2, 3, 4],  # a duplicate
            [1, 2, 3, 4, 1],  # none: of another class
            [-0.01, 0, WIDTH + 0.01, 5],  # rounding
        ]
    )
    mended, report = check(data)
    assert not report.errors
    assert report.counts() == {"zero-size box": 2, "box partly outside": 1, "box outside": 1, "duplicate box": 1}
    (record,) = mended.records
    assert record.boxes.tolist() == [[1, 2, 3, 4], [0, 2, 9, HEIGHT], [1, 2, 3, 4], [0, 0, WIDTH, 5]]
    assert record.labels.tolist() == [0, 0, 1, 0]
    assert len(record.areas) == len(record.difficult) == len(record.truncated) == len(record.crowd) == 4
    assert data.records[0].boxes[3].tolist() == [-3, 2, 9, 99]  # what was read stays, for evaluation
    assert "object 4 (ant) [-3, 2, 9, 99]" in report.text()
    mended_again, report_again = check(mended)
    assert not report_again.warnings
    np.testing.assert_array_equal(mended_again.records[0].boxes, record.boxes)


def test_a_box_that_has_no_width_in_float32(make: Make) -> None:
    _, report = check(make([[10, 10, 10 + 1e-9, 20], [1, 1, 2, 2]]))
    assert report.counts() == {"zero-size box": 1}


def test_an_image_without_boxes_is_kept(make: Make) -> None:
    mended, report = check(make([], [[1, 1, 2, 2]]))
    assert report.counts() == {"no boxes": 1}
    assert [len(record.labels) for record in mended.records] == [0, 1]


@pytest.mark.parametrize(
    ("said", "kind"),
    [(None, "missing size"), ((0, 0), "missing size"), ((WIDTH, HEIGHT), "swapped size"), ((31, 40), "wrong size")],
)
def test_the_size_of_the_file_counts(make: Make, said: tuple[int, int] | None, kind: str) -> None:
    mended, report = check(make([[1, 1, 2, 2], [1, 1, WIDTH, HEIGHT]], size=said))
    assert report.counts() == {kind: 1}
    assert mended.records[0].size == (HEIGHT, WIDTH)
    assert f"the file is {WIDTH}x{HEIGHT}" in report.warnings[0].message
    assert ("swapped" in report.warnings[0].message) == (kind == "swapped size")


def test_the_size_is_that_of_the_upright_image(make: Make, tmp_path: Path) -> None:
    data = make([[1, 1, 2, 2]])
    save(tmp_path / "0.png", orientation=6)
    mended, report = check(data)
    assert report.counts() == {"swapped size": 1}
    assert mended.records[0].size == (WIDTH, HEIGHT)


def test_an_image_without_annotation_file_is_left_out(make: Make) -> None:
    data = make([[1, 1, 2, 2]], [])
    bare = replace(data.records[1], annotated=False, annotation=None)
    mended, report = check(replace(data, records=(data.records[0], bare)))
    assert report.counts() == {"no annotation": 1}
    assert report.warnings[0].where.endswith("1.png")
    assert [record.name for record in mended.records] == ["0.png"]


def test_broken_xml_is_left_out_with_skip_bad(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    for stem, text in (("a", f"<object><name>x</name>{box}</object>"), ("b", "<object>\n<name>")):
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}</annotation>")
        save(tmp_path / "JPEGImages" / f"{stem}.png")
    data = open_dataset(tmp_path, strict=False)
    with pytest.raises(UserError, match=r"b\.xml:2"):
        check(data)
    mended, report = check(data, skip_bad=True)
    assert [record.name for record in mended.records] == ["a"]
    assert report.warnings[0].where.endswith("a.xml")  # it says nothing of the size


def test_the_report_is_cut_for_people_and_whole_for_machines(make: Make) -> None:
    _, report = check(make([[1, 1, 2, 2]], *([[]] * 7)))
    text = report.text(limit=2)
    assert "warning: no boxes (7): the image is kept" in text
    assert "... and 5 more" in text
    assert len(text.splitlines()) == 5
    content = json.loads(json.dumps(report.to_json()))
    assert content["counts"] == {"no boxes": 7}
    assert content["errors"] == []
    assert len(content["warnings"]) == 7
    assert set(content["warnings"][0]) == {"kind", "where", "message"}


def test_the_kinds_are_distinct() -> None:
    assert not set(ERRORS) & set(WARNINGS)


def test_sound_images_are_decoded_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda path: opened.append(Path(path).name) or real(path))
    data = make([[1, 1, 2, 2]], [[1, 1, 2, 2]])
    _, first = check(data)
    assert sorted(opened) == ["0.png", "1.png"]
    opened.clear()
    _, second = check(data)
    assert opened == []
    assert second == first
    os.utime(tmp_path / "1.png", ns=(1, 1))
    check(data)
    assert opened == ["1.png"]
    opened.clear()
    (tmp_path / "0.png").write_bytes(b"")  # what was sound once is looked at again
    with pytest.raises(UserError, match="empty file"):
        check(data)
    assert opened == ["0.png"]
    opened.clear()
    save(tmp_path / "0.png")
    check(data, cache=False)
    assert sorted(opened) == ["0.png", "1.png"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 2, "pillow": 0, "images": {"a": 1}}'])
def test_a_damaged_memory_is_none(make: Make, text: str) -> None:
    data = make([[1, 1, 2, 2]])
    memory = memory_file(data.root)
    assert memory is not None
    memory.parent.mkdir(parents=True)
    memory.write_text(text)
    check(data)
    assert json.loads(memory.read_text())["images"]


def test_a_memory_with_damaged_entries_is_none(make: Make) -> None:
    data = make([[1, 1, 2, 2]])
    memory = memory_file(data.root)
    assert memory is not None
    check(data)
    content = json.loads(memory.read_text())
    memory.write_text(json.dumps(content | {"images": {key: [1, "x", None] for key in content["images"]}}))
    check(data)
    assert json.loads(memory.read_text()) == content


def test_no_place_for_the_memory_is_no_error(make: Make, cache_home: Path) -> None:
    cache_home.write_text("a file where the folder should be")
    assert len(check(make([[1, 1, 2, 2]]))[0]) == 1


def test_progress_counts_to_the_end(make: Make) -> None:
    seen: list[tuple[int, int]] = []
    check(make([], [], [[1, 1, 2, 2]]), workers=2, progress=lambda done, whole: seen.append((done, whole)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_each_path_is_decoded_once_and_none_is_fine(make: Make, tmp_path: Path) -> None:
    make([])
    assert decode_all([], memory=None) == {}
    assert decode_all([tmp_path / "0.png"] * 2, memory=None) == {tmp_path / "0.png": Decoded((HEIGHT, WIDTH), None)}


def test_real_folders(shared: Path) -> None:
    expected = {
        ("bccd", "train", None): {"zero-size box": 1},
        ("bccd", "val", None): {"zero-size box": 1},
        ("chess", "val", "voc"): {},
        ("chess", "train", "voc"): {"duplicate box": 1},
        ("neu_det", "val", None): {},
        ("coco128", "train", None): {"no boxes": 2},
        ("voc_zero_size", "all", None): {"missing size": 12},
    }
    for (name, split, form), counts in expected.items():
        data = open_dataset(shared / name, split=split, format=form, strict=False)
        mended, report = check(data)
        assert (report.counts(), len(mended)) == (counts, len(data)), name
        for record in mended.records:
            assert min(record.size) > 0
            height, width = record.size
            assert (record.boxes >= 0).all()
            assert (record.boxes <= [width, height, width, height]).all()


def test_boxes_at_minus_1_are_clipped(shared: Path) -> None:
    data = open_dataset(shared / "chess" / "coco_json" / "instances_train.json", strict=False)
    mended, report = check(data)
    assert report.counts() == {"box partly outside": 46, "duplicate box": 1}
    assert min(record.boxes.min() for record in mended.records) == 0


def test_several_entries_with_one_image(make: Make) -> None:
    dataset = make([[1, 1, 9, 9]], [[2, 2, 8, 8]], [])
    first, second, third = dataset.records
    shared = replace(dataset, records=(first, replace(second, path=first.path), third))
    _, report = check(shared)
    assert [finding.message for finding in report.warnings if finding.kind == "shared image"] == [
        "2 entries have this file: '0.png' (id 0), '1.png' (id 1)"
    ]
    assert "shared image" not in check(dataset)[1].counts()
