from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from singleshot.data import frames
from singleshot.errors import UserError
from singleshot.inference import results
from singleshot.inference.options import Options
from singleshot.inference.predictor import detect, iterate
from singleshot.inference.results import to_json

Make = Callable[..., Path]


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_order_names_and_sizes_follow_the_input(fake, make: Make) -> None:
    paths = [make("b.png", (20, 30)), make("a.jpg", (40, 10)), make("c/d.png", (15, 25))]
    found = detect(fake, paths, threshold=0)
    assert [prediction.path for prediction in found] == [str(path) for path in paths]
    assert [prediction.size for prediction in found] == [(20, 30), (40, 10), (15, 25)]
    assert [prediction.boxes[0].tolist() for prediction in found] == [[0, 0, 30, 20], [0, 0, 10, 40], [0, 0, 25, 15]]
    assert found[0].names == ["Vögel", "cat", "dog"]
    assert found[0].category_ids == (7, "b", 90)
    assert not found[0].boxes.is_inference()


def test_batches_and_progress(fake, make: Make) -> None:
    for i in range(7):
        make(f"{i}.png")
    seen: list[tuple[int, int]] = []
    found = detect(fake, make("0.png").parent, batch_size=3, progress=lambda done, total: seen.append((done, total)))
    assert len(found) == 7
    assert fake.batches == [3, 3, 1]
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]


def test_threshold_is_inclusive_and_classes_and_top_k_choose(fake, make: Make) -> None:
    image = make("a.png")
    assert detect(fake, image)[0].scores.tolist() == pytest.approx([0.9, 0.5])
    assert len(detect(fake, image, threshold=0.9)[0]) == 1  # 0.9 as float32 is below 0.9
    assert len(detect(fake, image, threshold=0.95)[0]) == 0
    assert detect(fake, image, classes=["cat", "dog"], threshold=0)[0].names == ["cat", "dog"]
    assert detect(fake, image, classes="cat")[0].names == ["cat"]
    assert detect(fake, image, classes=["cat", "dog"], threshold=0, top_k=1)[0].names == ["cat"]
    assert detect(fake, image, top_k=1)[0].names == ["Vögel"]


def test_an_unsorted_detector_is_sorted(make: Make) -> None:
    class Plain:
        class_names = ("a",)
        category_ids = (1,)

        def __call__(self, images):
            boxes = torch.arange(12.0).reshape(3, 4)
            return [{"boxes": boxes, "scores": torch.tensor([0.4, 0.9, 0.6]), "labels": torch.zeros(3).long()}]

    found = detect(Plain(), make("a.png"), top_k=2)[0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert found.boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_every_part_of_the_detector_gets_its_mode_back(fake, make: Make) -> None:
    detect(fake, make("a.png"))
    assert fake.training
    assert not fake.frozen.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"classes": ["Cat"]}, r"no class 'Cat' \(did you mean 'cat'\?\); its classes are: cat, dog, Vögel"),
        ({"classes": ["zebra"]}, "no class 'zebra'; its classes"),
        ({"classes": []}, "the list of classes is empty; name at least one"),
    ],
)
def test_bad_choices_are_refused_at_the_call(fake, make: Make, options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        iterate(fake, make("a.png"), **options)
    assert fake.batches == []


@pytest.mark.parametrize("workers", [0, 3])
def test_memory_holds_a_few_images_only(fake, make: Make, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    for i in range(40):
        make(f"{i:02}.png")
    reads, lock = [0], threading.Lock()
    real = frames.read_reduced

    def counted(path, seen, **choices):
        with lock:
            reads[0] += 1
        return real(path, seen, **choices)

    monkeypatch.setattr(frames, "read_reduced", counted)
    found = iterate(fake, make("00.png").parent, batch_size=2, workers=workers)
    first = [next(found).path for _ in range(3)]
    assert [Path(path).name for path in first] == ["00.png", "01.png", "02.png"]
    assert reads[0] <= 4 + 4 + 1
    rest = [Path(prediction.path).name for prediction in found]
    assert rest == [f"{i:02}.png" for i in range(3, 40)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_with_its_name_or_is_skipped_with_a_note(
    fake, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    make("in/a.png")
    (tmp_path / "in" / "b.jpg").write_text("this is a text file")
    (tmp_path / "in" / "c.png").write_bytes(b"")
    make("in/d.png")
    with pytest.raises(UserError, match=r"b\.jpg") as error:
        detect(fake, tmp_path / "in", out=tmp_path / "out", workers=workers)
    assert error.value.__notes__ == [
        "--skip-bad (in Python skip_bad=True) leaves out images that cannot be read",
        f"what was found so far is in {tmp_path / 'out' / 'detections.partial.json'} (1 image)",
    ]
    with pytest.raises(UserError, match=r"b\.jpg") as error:  # alone: there is nothing to go on with
        detect(fake, tmp_path / "in" / "b.jpg", workers=workers)
    assert not hasattr(error.value, "__notes__")
    # Nothing is lost: what came before is there, and says that it is not all.
    assert (tmp_path / "out" / "a.png").exists()
    partial = json.loads((tmp_path / "out" / "detections.partial.json").read_text())
    assert {entry["image_id"] for entry in partial} == {"a"}
    assert not (tmp_path / "out" / "detections.json").exists()

    with caplog.at_level(logging.WARNING):
        again = {"out": tmp_path / "out", "overwrite": True}
        found = detect(fake, tmp_path / "in", **again, skip_bad=True, workers=workers)
    assert [Path(prediction.path).name for prediction in found] == ["a.png", "d.png"]
    assert "b.jpg" in caplog.text
    assert "c.png" in caplog.text
    assert not (tmp_path / "out" / "detections.partial.json").exists()
    assert {entry["image_id"] for entry in json.loads((tmp_path / "out" / "detections.json").read_text())} == {"a", "d"}


def test_pictures_and_coco_results(fake, make: Make, tmp_path: Path) -> None:
    make("in/a.png", (48, 64))
    make("in/sub/a.jpg", (40, 60))
    make("in/b.bmp")
    detect(fake, tmp_path / "in", out=tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == [".detections", "a.png", "b.bmp.png", "detections.json", "sub/a.jpg"]
    assert Image.open(tmp_path / "out" / "a.png").format == "PNG"
    assert Image.open(tmp_path / "out" / "sub" / "a.jpg").format == "JPEG"
    drawn = read(tmp_path / "out" / "a.png")
    assert drawn.shape == (48, 64, 3)
    assert (drawn != read(tmp_path / "in" / "a.png")).any()
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert entries[:2] == [
        {"image_id": "a", "category_id": 90, "bbox": [0, 0, 64, 48], "score": pytest.approx(0.9)},
        {"image_id": "a", "category_id": 7, "bbox": [1, 2, 4.5, 6], "score": pytest.approx(0.5)},
    ]
    assert [entry["image_id"] for entry in entries] == ["a", "a", "b", "b", "sub/a", "sub/a"]
    # Again: the folder's own results may be replaced, and they are the same.
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    detect(fake, tmp_path / "in", out=tmp_path / "out", overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_is_refused_or_takes_the_place_of_the_first(fake, make: Make, tmp_path: Path) -> None:
    for name in ("in/a.png", "in/sub/b.png", "in/sub/c.jpg"):
        make(name)
    out = tmp_path / "out"
    detect(fake, tmp_path / "in", out=out)
    before = contents(out)
    with pytest.raises(UserError, match=r"detections\.json exists already.*--overwrite.*overwrite=True"):
        detect(fake, make("in/d.png"), out=out)  # another name: even so, results and pictures would disagree
    assert contents(out) == before
    notes = {"notes.txt": b"mine", "sub/e.png": b"mine too"}
    for name, content in notes.items():
        (out / name).write_bytes(content)
    detect(fake, make("in/d.png"), out=out, overwrite=True)
    assert contents(out).keys() == {".detections", "detections.json", "d.png", *notes}
    assert contents(out).items() >= notes.items()
    assert {entry["image_id"] for entry in json.loads((out / "detections.json").read_text())} == {"d"}
    (out / "sub" / "e.png").unlink()
    detect(fake, tmp_path / "in" / "sub", out=out, overwrite=True)
    assert contents(out).keys() == {".detections", "detections.json", "b.png", "c.jpg", "notes.txt"}


@pytest.mark.parametrize("name", ["detections.json", "detections.partial.json", ".detections"])
def test_results_of_others_are_not_overwritten(fake, make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("[]")
    with pytest.raises(UserError, match="exists already"):
        detect(fake, make("a.png"), out=tmp_path / "out")
    assert contents(tmp_path / "out") == {name: b"[]"}
    assert fake.batches == []


def test_a_list_of_pictures_removes_nothing_elsewhere(fake, make: Make, tmp_path: Path) -> None:
    """Whatever the list says, only pictures inside the folder go, and none that is read."""
    outside = make("outside.png")
    (tmp_path / "out").mkdir()
    listed = ["../outside.png", str(outside), "notes.txt", "a\0.png", 5, "gone.png"]
    lines = [*map(json.dumps, listed), "[" * 100_000, '"cut']
    (tmp_path / "out" / ".detections").write_text("\n".join(lines))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    detect(fake, make("a.png"), out=tmp_path / "out", overwrite=True)
    assert outside.exists()
    assert contents(tmp_path / "out").keys() == {".detections", "a.png", "detections.json", "notes.txt"}
    drawn = tmp_path / "out" / "a.png"
    before = drawn.read_bytes()
    (tmp_path / "out" / "b").mkdir()
    shutil.copy(drawn, tmp_path / "out" / "b" / "c.png")
    with pytest.raises(UserError, match="would overwrite one of the source images"):
        detect(fake, [drawn, tmp_path / "out" / "b" / "c.png"], out=tmp_path / "out", overwrite=True)
    assert drawn.read_bytes() == before


def test_a_killed_run_is_taken_away_whole(fake, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        make(f"in/{i}.png")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(results.ResultFolder, "__exit__", lambda *_: None)  # the process is gone: nothing is closed
    with monkeypatch.context() as patch:
        patch.setattr(results.ResultsText, "add", killed)
        with pytest.raises(Killed):
            detect(fake, tmp_path / "in", out=tmp_path / "out")
    monkeypatch.undo()
    assert {".detections", "0.png", "detections.partial.json"} == contents(tmp_path / "out").keys()
    detect(fake, tmp_path / "in" / "2.png", out=tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out").keys() == {".detections", "2.png", "detections.json"}


def test_pictures_have_names_that_a_disk_takes(fake, make: Make, tmp_path: Path) -> None:
    names = [f"{letter * 250}.bmp" for letter in "xy"] + [f"{'z' * 251}.png", f"{'x' * 249}y.bmp"]
    for name in names:
        make(f"in/{name}")
    detect(fake, tmp_path / "in", out=tmp_path / "out", top_k=1)
    written = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert len(written) == 4
    assert all(len(name) <= 255 for name in written)
    ids = [entry["image_id"] for entry in json.loads((tmp_path / "out" / "detections.json").read_text())]
    assert sorted(ids) == sorted(name[:-4] for name in names)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "b/../../a.png", ".."])
def test_no_picture_leaves_the_folder(name: str) -> None:
    (picture,) = results._picture_names([name])
    assert ".." not in Path(picture).parts
    assert not Path(picture).is_absolute()
    assert picture.endswith(".png")


def test_a_folder_in_the_place_of_a_file(fake, make: Make, tmp_path: Path) -> None:
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder, but a file is to be written"):
        detect(fake, make("a.png"), out=tmp_path / "out", overwrite=True)
    make("in/sub/b.png")
    (tmp_path / "out" / "sub").write_text("")
    with pytest.raises(UserError, match="is a file, but pictures need a folder there"):
        detect(fake, tmp_path / "in", out=tmp_path / "out", overwrite=True)
    assert fake.batches == []


def test_equal_names_from_different_folders_do_not_overwrite_each_other(fake, make: Make, tmp_path: Path) -> None:
    one, two = make("x/a.png", (24, 32)), make("y/a.png", (30, 40))
    found = detect(fake, [one, two, one], out=tmp_path / "out")
    assert len(found) == 3
    assert read(tmp_path / "out" / "x" / "a.png").shape == (24, 32, 3)
    assert read(tmp_path / "out" / "y" / "a.png").shape == (30, 40, 3)
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["image_id"] for entry in entries] == ["x/a", "x/a", "y/a", "y/a"]  # a repeat is written once


def test_equal_stems_keep_their_endings(fake, make: Make, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.bmp", "a.bmp.png"):
        make(f"in/{name}")
    detect(fake, tmp_path / "in", out=tmp_path / "out", top_k=1)
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["image_id"] for entry in entries] == ["a.bmp", "a.bmp.png", "a.jpg", "a.png"]
    assert len(list((tmp_path / "out").glob("a*"))) == 4


def test_an_out_folder_inside_of_the_input_is_not_read(fake, make: Make, tmp_path: Path) -> None:
    make("a.png")
    for again in (False, True):
        found = detect(fake, tmp_path, out=tmp_path / "found", overwrite=again)
        assert [Path(prediction.path).name for prediction in found] == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_under_the_names_of_results(fake, make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    names = {"detections.json", "detections.partial.json", ".detections", "a.png"}
    for name in names:
        os.mkfifo(tmp_path / "out" / name)
    with pytest.raises(UserError, match="exists already"):
        detect(fake, make("a.png"), out=tmp_path / "out")
    detect(fake, tmp_path / "a.png", out=tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out").keys() == names - {"detections.partial.json"}


def test_inputs_are_never_overwritten(fake, make: Make, tmp_path: Path) -> None:
    image = make("in/a.png")
    before = image.read_bytes()
    with pytest.raises(UserError, match="would overwrite one of the source images"):
        detect(fake, tmp_path / "in", out=tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UserError, match="would overwrite one of the source images"):
        detect(fake, image, out=tmp_path / "link")
    assert image.read_bytes() == before
    assert fake.batches == []


def test_pictures_of_others_are_not_overwritten(fake, make: Make, tmp_path: Path) -> None:
    make("in/a.png")
    other = make("holiday/a.png", red=200)
    before = other.read_bytes()
    with pytest.raises(UserError, match="choose another output folder"):
        detect(fake, tmp_path / "in", out=tmp_path / "holiday")
    assert other.read_bytes() == before
    detect(fake, make("in/b.png"), out=tmp_path / "holiday")  # no name in common: nothing is lost
    assert other.read_bytes() == before


def test_out_that_cannot_be_a_folder(fake, make: Make, tmp_path: Path) -> None:
    image = make("a.png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        detect(fake, image, out=tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        detect(fake, image, out=tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_no_permission(fake, make: Make, tmp_path: Path) -> None:
    image = make("a.png")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        detect(fake, image, out=tmp_path / "locked")


def test_a_full_disk_is_told(fake, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_atomically", full)
    with pytest.raises(UserError, match=r"a\.png cannot be written: No space left on device; free some space"):
        detect(fake, make("a.png"), out=tmp_path / "out")


def test_breaking_off_keeps_what_was_found(fake, make: Make, tmp_path: Path) -> None:
    for i in range(6):
        make(f"in/{i}.png")
    found = iterate(fake, tmp_path / "in", out=tmp_path / "out", batch_size=2)
    next(found), next(found), next(found)
    found.close()
    partial = json.loads((tmp_path / "out" / "detections.partial.json").read_text())
    assert [entry["image_id"] for entry in partial[::2]] == ["0", "1", "2"]
    assert fake.training


def test_nothing_found_is_an_empty_list(fake, make: Make, tmp_path: Path) -> None:
    found = detect(fake, make("a.png"), out=tmp_path / "out", threshold=1)
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []
    assert to_json(found)[0]["detections"] == []
    assert (read(tmp_path / "out" / "a.png") == read(tmp_path / "a.png")).all()


def test_to_json_is_the_documents_form(fake, make: Make) -> None:
    image = make("a.png", (24, 32))
    document = to_json(detect(fake, image, top_k=1))
    assert document == [
        {
            "image": str(image),
            "width": 32,
            "height": 24,
            "detections": [
                {
                    "box": [0, 0, 32, 24],
                    "score": pytest.approx(0.9),
                    "label": 2,
                    "name": "Vögel",
                    "category_id": 90,
                }
            ],
        }
    ]
    json.dumps(document)


def test_exif_orientation_is_that_of_the_picture(fake, shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "images" / "awkward_exif").glob("Landscape_*.jpg"))
    found = detect(fake, files, out=tmp_path / "out")
    assert len({prediction.size for prediction in found}) == 1
    assert {Image.open(tmp_path / "out" / file.name).size for file in files} == {found[0].size[::-1]}


def test_real_and_awkward_images(fake, shared: Path, tmp_path: Path) -> None:
    found = detect(fake, shared / "images" / "awkward", out=tmp_path / "out", skip_bad=True, workers=2)
    names = {Path(str(prediction.path)).name for prediction in found}
    assert {"pil_sample_cmyk.jpg", "tiff_16bit_RGB_target.png", "p_trns_single.png", "hopper.gif"} <= names
    assert not {"broken_data_stream.png", "truncated_image.png"} & names
    assert len(list((tmp_path / "out").glob("*.*g*"))) >= len(found)


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("singleshot-read")]


def test_leaving_early_leaves_no_thread(fake, make: Make) -> None:
    for i in range(30):
        make(f"{i:02}.png")
    found = iterate(fake, make("00.png").parent, batch_size=2, workers=2)
    next(found)
    assert readers()
    found.close()
    assert readers() == []


def test_an_error_of_the_detector_leaves_no_thread_and_a_valid_file(
    fake, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(6):
        make(f"in/{i}.png", red=i)
    find = fake.find

    def breaks(height: int, width: int):
        if len(fake.batches) == 2:
            raise ZeroDivisionError
        return find(height, width)

    monkeypatch.setattr(fake, "find", breaks)
    with pytest.raises(ZeroDivisionError):
        detect(fake, tmp_path / "in", out=tmp_path / "out", batch_size=2, workers=2)
    assert readers() == []
    assert fake.training
    partial = json.loads((tmp_path / "out" / "detections.partial.json").read_text())
    assert [entry["image_id"] for entry in partial[::2]] == ["0", "1"]


def test_progress_counts_images_that_are_skipped(fake, make: Make, tmp_path: Path) -> None:
    for name in ("a.png", "c.png", "d.png"):
        make(f"in/{name}")
    for name in ("b.png", "e.png", "f.png"):
        (tmp_path / "in" / name).write_text("no image")
    seen: list[tuple[int, int]] = []
    detect(fake, tmp_path / "in", batch_size=3, skip_bad=True, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(0, 6), (4, 6), (6, 6)]


def test_options_may_come_together(fake, make: Make) -> None:
    image = make("a.png")
    options = Options(threshold=0, classes=["cat", "dog"])
    assert detect(fake, image, options=options)[0].names == ["cat", "dog"]
    assert detect(fake, image, options=options, top_k=1)[0].names == ["cat"]  # a keyword counts before it
    with pytest.raises(TypeError, match="treshold"):
        detect(fake, image, treshold=0.5)


def test_a_detector_that_gives_too_few_results_is_told(make: Make) -> None:
    class Lazy:
        class_names = ("a",)
        category_ids = (1,)

        def __call__(self, images):
            return []

    with pytest.raises(UserError, match="gave 0 results for 1 images"):
        detect(Lazy(), make("a.png"))
