"""Files of detections: written in both forms, read back, and refused with the place of the fault."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from singleshot.errors import UserError
from singleshot.evaluation.detections import ImageDetections, read_detections, save_detections
from singleshot.evaluation.metrics import evaluate

CLASSES = ("car", "race_car", "traffic light", "on/off")


@pytest.fixture
def dataset(make_dataset):
    rows = [(0, 10, 10, 60, 60), (1, 5, 5, 40, 90), (2, 1, 1, 30, 30), (3, 80, 80, 99, 99)]
    return make_dataset([rows, rows[:2], []], CLASSES, names=["000001", "my image", "b"])


@pytest.fixture
def found(make_found):
    """Numbers as a network gives them: float32, of many digits."""
    rng = np.random.default_rng(0)
    result = []
    for count in (9, 0, 25):
        corner = rng.random((count, 2)) * 50
        table = np.column_stack([rng.integers(0, 4, count), rng.random(count), corner, corner + 30 * rng.random()])
        result.append(make_found(table.astype(np.float32)))
    return result


def assert_same(a: list[ImageDetections], b: list[ImageDetections], *, in_order: bool = True) -> None:
    for x, y in zip(a, b, strict=True):
        rows_x, rows_y = (
            sorted(zip(f.labels.tolist(), f.scores.tolist(), f.boxes.tolist(), strict=True))
            if not in_order
            else list(zip(f.labels.tolist(), f.scores.tolist(), f.boxes.tolist(), strict=True))
            for f in (x, y)
        )
        assert rows_x == rows_y


def test_what_was_saved_is_read_again(tmp_path: Path, dataset, found) -> None:
    files = save_detections(tmp_path / "a" / "b", dataset, found)
    assert [file.name for file in files] == [
        "detections.json",
        "comp4_det_test_car.txt",
        "comp4_det_test_race_car.txt",
        "comp4_det_test_traffic light.txt",
        "comp4_det_test_on%2Foff.txt",
    ]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(file.name for file in files)
    from_json = read_detections(files[0], dataset)
    assert_same(from_json, found)
    from_text = read_detections(tmp_path / "a" / "b", dataset)
    assert_same(from_text, found, in_order=False)
    metrics = evaluate(dataset, found).to_json()
    assert evaluate(dataset, from_json).to_json() == metrics
    assert evaluate(dataset, from_text).to_json() == metrics


def test_a_folder_with_results_alone(tmp_path: Path, dataset, found) -> None:
    for file in save_detections(tmp_path, dataset, found)[1:]:
        file.unlink()
    assert_same(read_detections(tmp_path, dataset), found)


def test_no_detections_are_saved_and_read(tmp_path: Path, dataset, make_found) -> None:
    nothing = [make_found()] * 3
    files = save_detections(tmp_path, dataset, nothing)
    assert json.loads(files[0].read_text()) == []
    assert files[1].read_text() == ""
    for path in (tmp_path, files[0]):
        assert [len(found) for found in read_detections(path, dataset)] == [0, 0, 0]


def test_the_ids_of_the_files_come_back(tmp_path: Path, dataset, make_found) -> None:
    other = replace(
        dataset,
        category_ids=(7, "x", 90, 3),
        records=(replace(dataset.records[0], id=42), replace(dataset.records[1], id="seven"), dataset.records[2]),
    )
    found = [make_found([(0, 0.5, 1, 2, 4, 8)]), make_found([(1, 0.25, 1, 2, 4, 8)]), make_found()]
    files = save_detections(tmp_path, other, found)
    assert json.loads(files[0].read_text()) == [
        {"image_id": 42, "category_id": 7, "bbox": [1, 2, 3, 6], "score": 0.5},
        {"image_id": "seven", "category_id": "x", "bbox": [1, 2, 3, 6], "score": 0.25},
    ]
    assert files[1].read_text() == "000001 0.5 1.0 2.0 4.0 8.0\n"
    assert_same(read_detections(files[0], other), found)


def test_results_keep_their_own_sides(tmp_path: Path, dataset) -> None:
    box = [32.4, 0.1, 32.0, 0.3]
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"image_id": "b", "category_id": 1, "bbox": box, "score": 1, "extra": None}]))
    found = read_detections(path, dataset)
    assert found[2].sides().tolist() == [box]
    assert found[2].boxes.tolist() == [[32.4, 0.1, 32.4 + 32.0, 0.1 + 0.3]]
    again = read_detections(save_detections(tmp_path / "again", dataset, found)[0], dataset)
    assert again[2].sides().tolist() == [box]


def test_voc_lines_are_read_as_they_stand_and_keep_their_order(tmp_path: Path, dataset) -> None:
    (tmp_path / "comp3_det_val_car.txt").write_text(
        "b 0.5 1 2 3 4\n\n000001 5e-1 -1.5 2 3.25 4\n  my image .5 1 2 3 4 \n"
    )
    (tmp_path / "results_race_car.txt").write_text("b 1 7 8 9 10\n")
    (tmp_path / "README.txt").write_text("made by hand\n")
    found = read_detections(tmp_path, dataset)
    assert found[0].boxes.tolist() == [[-1.5, 2, 3.25, 4]]
    assert found[2].boxes.tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]]
    assert found[2].labels.tolist() == [0, 1]
    assert [f.order.tolist() for f in found] == [[3], [4], [1, 1]]
    assert (save_detections(tmp_path / "out", dataset, found)[1]).read_text().split()[0] == "b"


def test_coco_images_are_called_by_their_stem(tmp_path: Path, dataset, make_found) -> None:
    names = ("train/000001.jpg", "c.v2.jpg", "b.png")
    coco = replace(
        dataset,
        format="coco",
        records=tuple(replace(r, name=n, id=i) for i, (r, n) in enumerate(zip(dataset.records, names, strict=True))),
    )
    found = [make_found([(0, 0.5, 1, 2, 3, 4)])] * 3
    text = save_detections(tmp_path, coco, found)[1].read_text()
    assert [line.split()[0] for line in text.splitlines()] == ["000001", "c.v2", "b"]
    assert_same(read_detections(tmp_path, coco), found)
    (tmp_path / "comp4_det_test_car.txt").write_text("train/000001.jpg 0.5 1 2 3 4\n1 0.5 1 2 3 4\nb 0.5 1 2 3 4\n")
    assert_same(read_detections(tmp_path, coco), found)


def test_coco_images_of_one_stem_are_called_by_their_id(tmp_path: Path, dataset, make_found) -> None:
    names = ("a/1.jpg", "b/1.jpg", "c/1.jpg")
    records = tuple(replace(r, name=n, id=10 + i) for i, (r, n) in enumerate(zip(dataset.records, names, strict=True)))
    coco = replace(dataset, format="coco", records=records)
    found = [make_found([(0, 0.5, 1, 2, 3, 4 + i)]) for i in range(3)]
    text = save_detections(tmp_path, coco, found)[1].read_text()
    assert [line.split()[0] for line in text.splitlines()] == ["10", "11", "12"]
    assert_same(read_detections(tmp_path, coco), found)


GOOD = {"image_id": "b", "category_id": 1, "bbox": [10, 10, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**GOOD, "image_id": "nobody"}, "image_id 'nobody' is not among the 3 images"),
        ({**GOOD, "image_id": 1}, "image_id 1 is not among"),
        ({**GOOD, "image_id": True}, "image_id must be a number or a text"),
        ({**GOOD, "image_id": None}, "image_id must be"),
        ({**GOOD, "image_id": [1]}, "image_id must be"),
        ({**GOOD, "category_id": 5}, "category_id 5 is not among the 4 categories"),
        ({**GOOD, "category_id": True}, "category_id must be"),
        ({**GOOD, "bbox": [1, 2, 3]}, "bbox must be four finite numbers"),
        ({**GOOD, "bbox": "1 2 3 4"}, "bbox must be four finite numbers"),
        ({**GOOD, "bbox": [1, 2, 3, "4,5"]}, "bbox must be four finite numbers"),
        ({**GOOD, "bbox": [1, 2, 3, None]}, "bbox must be four finite numbers"),
        ({**GOOD, "bbox": [1, 2, 3, -1]}, "the box is inverted: its width is 3, its height -1"),
        ({**GOOD, "bbox": [1, 2, -(2**63), 4]}, "the box is inverted"),
        ({**GOOD, "bbox": [1, 2, 3, 2e9]}, "a number is beyond 1e+09"),
        ({**GOOD, "bbox": [-2e9, 2, 3, 4]}, "a number is beyond 1e+09"),
        ({**GOOD, "score": -1e308}, "a number is beyond 1e+09: box [10.0, 10.0, 15.0, 15.0], score -1e+308"),
        ({**GOOD, "score": "maybe"}, "score must be a finite number, got 'maybe'"),
        ({**GOOD, "score": "１２"}, "score must be a finite number"),
        ({**GOOD, "image_id": "x" * 100_000}, "is not among the 3 images"),
        ({**GOOD, "bbox": [1, 2, 3, float("nan")]}, "bbox must be four finite numbers"),
        ({**GOOD, "bbox": [1, 2, 3, 10**400]}, "bbox must be four finite numbers"),
        ({**GOOD, "score": float("inf")}, "score must be a finite number"),
        ({**GOOD, "score": True}, "score must be a finite number"),
        ({"image_id": "b", "category_id": 1, "score": 1}, "'bbox' is missing"),
        ([1, 2], "expected an object, got a list"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, dataset, entry, words: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, entry]))
    with pytest.raises(UserError) as error:
        read_detections(path, dataset)
    assert f"{path}: entry 1 (counted from 0): " in str(error.value)
    assert words in str(error.value)
    assert len(str(error.value)) < 1000


def test_numbers_as_text_are_read(tmp_path: Path, dataset) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{**GOOD, "bbox": [10, "10", 5.0, "5e0"], "score": "0.5"}]))
    (found,) = read_detections(path, dataset)[2:]
    assert (found.boxes.tolist(), found.scores.tolist()) == ([[10, 10, 15, 15]], [0.5])


def test_scores_of_other_kinds_and_repetitions_are_warnings(
    tmp_path: Path, dataset, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "results.json"
    rows = [GOOD, {**GOOD, "score": 12.5}, {**GOOD, "bbox": [0, 0, 5, 0]}, {**GOOD, "score": -3}, GOOD, GOOD]
    path.write_text(json.dumps(rows))
    assert len(read_detections(path, dataset)[2]) == 6
    scores, twice = (record.getMessage() for record in caplog.records)
    assert scores.startswith(f"{path}: 2 of 6 scores are not between 0 and 1 (the first: {path}: entry 1 (counted from")
    assert twice.startswith(f"{path}: 2 of 6 detections are there twice (the first: {path}: entry 4 (counted from 0))")
    caplog.clear()
    (tmp_path / "comp4_det_test_car.txt").write_text("b 97 1 2 3 4\n\nb 97 1 2 3 4\n000001 97 1 2 3 4\n")
    read_detections(tmp_path, dataset)
    scores, twice = (record.getMessage() for record in caplog.records)
    assert f"3 of 3 scores are not between 0 and 1 (the first: {tmp_path / 'comp4_det_test_car.txt'}:1: 97)" in scores
    assert f"1 of 3 detections are there twice (the first: {tmp_path / 'comp4_det_test_car.txt'}:3)" in twice


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[\n{,\n]", ":2: broken JSON"),
        (b"", ":1: broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"[" + b"1" * 5_000 + b"]", "broken JSON"),
        (b'{"annotations": []}', "expected a JSON list of COCO results, got an object"),
        (b"null", "got null"),
        (b"\xff\xd8\xff\xe0", "not a text file"),
    ],
)
def test_a_file_that_is_no_list_of_results(tmp_path: Path, dataset, content: bytes, words: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_detections(path, dataset)
    assert str(path) in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("b 0.5 1 2 3", "expected `image score x1 y1 x2 y2`"),
        ("b 0.5 1 2 3 x", "expected `image score x1 y1 x2 y2`"),
        ("b 0.5 1 2 3 nan", "expected `image score x1 y1 x2 y2`"),
        ("b inf 1 2 3 4", "expected `image score x1 y1 x2 y2`"),
        ("b １２ 1 2 3 4", "expected `image score x1 y1 x2 y2`"),
        ("b 1_0 1 2 3 4", "expected `image score x1 y1 x2 y2`"),
        ("b 0.5 5 2 3 4", "the box is inverted: its width is -2, its height 2"),
        ("b 0.5 5 2 2147483648 4", "a number is beyond 1e+09"),
        ("0.5 1 2 3 4", "expected `image score x1 y1 x2 y2`"),
        ("000002 0.5 1 2 3 4", "image '000002' is not among the 3 images of the data (such as '000001')"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, dataset, line: str, words: str) -> None:
    path = tmp_path / "comp4_det_test_car.txt"
    path.write_text(f"b 0.5 1 2 30 40\n{line}\n")
    with pytest.raises(UserError) as error:
        read_detections(tmp_path, dataset)
    assert str(error.value).startswith(f"{path}:2: ")
    assert words in str(error.value)


def test_folders_that_do_not_fit(tmp_path: Path, dataset) -> None:
    with pytest.raises(UserError, match="no detections in this folder"):
        read_detections(tmp_path, dataset)
    (tmp_path / "comp4_det_test_bicycle.txt").write_text("")
    with pytest.raises(
        UserError, match=r"comp4_det_test_bicycle.txt: the data has no class of this name; its classes are car"
    ):
        read_detections(tmp_path, dataset)
    (tmp_path / "comp4_det_test_bicycle.txt").unlink()
    (tmp_path / "comp4_det_test_car.txt").write_text("")
    (tmp_path / "comp3_det_test_car.txt").write_text("")
    with pytest.raises(
        UserError, match=r"two files for class 'car': comp3_det_test_car.txt and comp4_det_test_car.txt"
    ):
        read_detections(tmp_path, dataset)
    with pytest.raises(UserError, match="cannot be read"):
        read_detections(tmp_path / "absent.json", dataset)


def test_boxes_divided_by_the_image_size_are_refused(tmp_path: Path, dataset) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{**GOOD, "bbox": [0.1, 0.2, 0.5, 0.6]}, {**GOOD, "bbox": [-0.01, 0, 1.02, 1]}]))
    with pytest.raises(UserError, match="divided by the image size"):
        read_detections(path, dataset)
    path.write_text(json.dumps([{**GOOD, "bbox": [0.1, 0.2, 0.5, 0.6]}, GOOD]))  # one tiny box among real ones
    assert len(read_detections(path, dataset)[2]) == 2
    (tmp_path / "comp4_det_test_car.txt").write_text("b 0.5 0.1 0.2 0.6 0.8\n")
    with pytest.raises(UserError, match="divided by the image size"):
        read_detections(tmp_path, dataset)


def test_images_that_cannot_be_told_apart(tmp_path: Path, make_dataset, make_found) -> None:
    twins = make_dataset([[], []], names=["a", "a"])
    (tmp_path / "comp4_det_test_cat.txt").write_text("")
    with pytest.raises(UserError, match="two images called 'a'"):
        read_detections(tmp_path, twins)
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(UserError, match="two images with the id 'a'"):
        read_detections(tmp_path / "r.json", twins)


def test_a_broken_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, dataset, found, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_detections(tmp_path, dataset, found)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("singleshot.files.os.replace", full)
    with pytest.raises(UserError, match=r"detections.json: cannot be written \(No space left on device\)"):
        save_detections(tmp_path, dataset, found, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path: Path, dataset, found) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_detections(tmp_path / "file", dataset, found)
    with pytest.raises(UserError, match="3 images but detections for 1"):
        save_detections(tmp_path, dataset, found[:1])


HOSTILE = ("results-34992d", "results-5f5dcd", "comp4-4ea5b8", "comp4-5f5dcd")


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_were_once_accepted(
    shared: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message that names the file and the place; on the command line exit code 2."""
    from singleshot.cli import main

    file = shared / "hostile" / name
    if not file.is_file():
        pytest.skip(f"no {file}")
    images = [
        {"id": i, "file_name": f, "width": 99, "height": 99} for i, f in enumerate(("a.png", "b.png", "c.png"), 1)
    ]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    categories = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
    data = tmp_path / "instances_val.json"
    data.write_text(json.dumps({"images": images, "annotations": [box], "categories": categories}))
    given = file
    if name.startswith("comp4"):
        given = tmp_path / "found"
        given.mkdir()
        (given / "comp4_det_test_cat.txt").write_bytes(file.read_bytes())
    assert main(["evaluate", "--detections", str(given), str(data)]) == 2
    said = capsys.readouterr().err
    (message,) = (line for line in said.splitlines() if line.startswith("singleshot: "))
    assert "Traceback" not in said
    assert str(given) in message
    assert len(message) < 600


def test_ids_that_are_the_same_as_text_are_the_same(
    tmp_path: Path, make_dataset, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_dataset([[(0, 1, 1, 9, 9)], []], ("car", "bus"))
    records = (replace(data.records[0], id=42), replace(data.records[1], id="43"))
    data = replace(data, records=records, category_ids=("7", 8))
    path = tmp_path / "results.json"
    entry = {"bbox": [1, 2, 3, 6], "score": 0.5}
    ids = (("42", "7"), (42, 7), (43, "8"), (43, 8))
    path.write_text(json.dumps([{"image_id": image, "category_id": category, **entry} for image, category in ids]))
    first, second = read_detections(path, data)
    assert (first.labels.tolist(), second.labels.tolist()) == ([0, 0], [1, 1])
    assert "image_id is number here and text in the data, or the other way round, 3 times" in caplog.text
    assert "category_id is number here and text in the data, or the other way round, 2 times" in caplog.text
    for wrong in ("042", "4_2", " 42", 44):
        path.write_text(json.dumps([{"image_id": wrong, "category_id": 8, **entry}]))
        with pytest.raises(UserError, match="is not among the 2 images"):
            read_detections(path, data)


def test_two_classes_never_share_a_file_on_disks_that_ignore_case(tmp_path: Path, make_dataset, make_found) -> None:
    classes = ("car", "Car", "caf\u00e9", "cafe\u0301", "l" * 300, "L" * 300)
    data = make_dataset([[(0, 1, 1, 9, 9)]], classes)
    found = [make_found(np.array([(label, label / 8, 1, 1, 9, 9) for label in range(6)], np.float32))]
    names = [path.name for path in save_detections(tmp_path / "a", data, found)[1:]]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 6
    assert names[1] == "comp4_det_test_Car.txt"  # the first of the alphabet
    (tmp_path / "a" / "detections.json").unlink()
    assert_same(read_detections(tmp_path / "a", data), found)
    turned = replace(data, class_names=classes[::-1])  # the names of files do not depend on the order
    assert (8 * read_detections(tmp_path / "a", turned)[0].scores).tolist() == [5, 4, 3, 2, 1, 0]  # by label
    (tmp_path / "a" / names[1]).unlink()  # nor must each class of then be there
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / names[0]).rename(tmp_path / "b" / names[0])
    alone = make_dataset([[(0, 1, 1, 9, 9)]], ("car",))
    assert read_detections(tmp_path / "b", alone)[0].labels.tolist() == [0]
    (tmp_path / "b" / names[0]).rename(tmp_path / "b" / "det_car.txt")  # as another program writes it
    assert read_detections(tmp_path / "b", data)[0].labels.tolist() == [0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["comp4_det_test_car.txt", "results.json"])
def test_a_pipe_among_the_files_stops_nothing(tmp_path: Path, dataset, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: this is a named pipe, expected a file of detections"):
        read_detections(tmp_path, dataset)


AWKWARD = (
    "a\x00b",
    "half\ud800",
    "two\nlines",
    "a/b",
    "a%2Fb",
    "100%",
    'q"?*:<>|',
    "L" * 300,
    "L" * 299 + "M",
    "..",
    " x ",
)


def test_any_names_are_written_and_read_again(tmp_path: Path, make_dataset, make_found) -> None:
    """Nothing that a class or an image is called makes the writing fail after a long evaluation, or loses a file."""
    images = ("a\nb", "caf\udce9", " first", "last\t", "nul\x00", "a b", "%0A", "\u2028")
    dataset = make_dataset([[(0, 1, 2, 30, 40)]] * len(images), AWKWARD, names=images)
    found = [make_found([(k, 0.5, 1, 2, 30, 40 + i) for k in range(len(AWKWARD))]) for i in range(len(images))]
    files = save_detections(tmp_path / "out", dataset, found)
    assert len(files) == len(AWKWARD) + 1 == len(list((tmp_path / "out").iterdir()))
    assert all(len(file.name.encode()) < 255 for file in files)
    assert_same(read_detections(files[0], dataset), found)
    assert_same(read_detections(tmp_path / "out", dataset), found)


def test_files_that_exist_are_not_overwritten(tmp_path: Path, dataset, found) -> None:
    (tmp_path / "comp4_det_test_car.txt").write_text("mine")
    with pytest.raises(UserError, match=r"comp4_det_test_car\.txt exists already; choose .* --overwrite"):
        save_detections(tmp_path, dataset, found)
    assert [path.name for path in tmp_path.iterdir()] == ["comp4_det_test_car.txt"]
    save_detections(tmp_path, dataset, found, overwrite=True)
    with pytest.raises(UserError, match=r"detections\.json exists already \(and others\)"):
        save_detections(tmp_path, dataset, found)
    (tmp_path / "detections.json").unlink()
    (tmp_path / "detections.json").mkdir()
    with pytest.raises(UserError, match=r"detections\.json is a folder"):
        save_detections(tmp_path, dataset, found, overwrite=True)
