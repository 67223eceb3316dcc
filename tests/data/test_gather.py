"""What readers fill: arrays, classes, ids, problems."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from singleshot.data import folders
from singleshot.data.dataset import Dataset
from singleshot.data.gather import Gather
from singleshot.data.normalised import refuse_normalised
from singleshot.errors import UserError


def begun(class_names: tuple[str, ...] | None = None, split: str = "all") -> Gather:
    gather = Gather(class_names)
    gather.begin(split, Path("place"))
    return gather


def made(gather: Gather) -> Dataset:
    return gather.dataset(Path("root"), "toy", ("all",))


def added(gather: Gather, name: str, id: int | str | None = None, folder: str = "", group: str = "") -> int:
    number = gather.add_image(Path(folder, name), name, id=id, group=group)
    assert number is not None
    return number


def test_objects_go_to_their_images_in_the_order_of_the_file() -> None:
    gather = begun()
    first, second, third = (added(gather, name) for name in ("a.jpg", "b.jpg", "c.jpg"))
    gather.add_object(third, "cat", (1, 2, 3, 4), difficult=True)
    gather.add_object(first, "dog", (5, 6, 9, 12), truncated=True)
    gather.add_object(third, "ant", (7, 8, 9, 9), crowd=True, area=0.5)
    data = made(gather)
    one, two, three = data.records
    assert three.boxes.tolist() == [[1, 2, 3, 4], [7, 8, 9, 9]]
    assert [data.class_names[label] for label in three.labels] == ["cat", "ant"]
    assert (three.difficult.tolist(), three.crowd.tolist(), three.truncated.tolist()) == (
        [True, False],
        [False, True],
        [False, False],
    )
    assert three.areas.tolist() == [4, 0.5]
    assert (one.areas.tolist(), one.truncated.tolist()) == ([24], [True])
    for name, dtype, shape in (
        ("boxes", np.float64, (0, 4)),
        ("labels", np.int64, (0,)),
        ("difficult", np.bool_, (0,)),
        ("crowd", np.bool_, (0,)),
        ("truncated", np.bool_, (0,)),
        ("areas", np.float64, (0,)),
    ):
        array = getattr(two, name)
        assert (array.dtype, array.shape) == (dtype, shape), name
    assert two.xywh is None
    assert second == 1


def test_sides_and_corners() -> None:
    gather = begun()
    image = added(gather, "a.jpg")
    gather.add_object(image, "cat", (0.1, 0.2, 10.7, 9.3), sides=True)
    gather.add_object(image, "cat", (1, 2, 4, 8))
    (record,) = made(gather).records
    assert record.boxes.tolist() == [[0.1, 0.2, 0.1 + 10.7, 0.2 + 9.3], [1, 2, 4, 8]]
    assert record.xywh is not None
    assert record.xywh.tolist() == [[0.1, 0.2, 10.7, 9.3], [1, 2, 3, 6]]
    assert record.areas.tolist() == [10.7 * 9.3, 18]


def test_nothing_at_all() -> None:
    data = made(begun())
    assert (data.records, data.class_names, data.category_ids, data.problems) == ((), (), (), ())


def test_classes_without_ids_come_by_the_alphabet_and_with_ids_as_they_are_said() -> None:
    gather = begun()
    image = added(gather, "a.jpg")
    for name in ("dog", "cat", "ant"):
        gather.add_object(image, name, (1, 1, 2, 2))
    data = made(gather)
    assert (data.class_names, data.category_ids) == (("ant", "cat", "dog"), (1, 2, 3))
    assert data.records[0].labels.tolist() == [2, 1, 0]
    gather = begun()
    for key, name in ((7, "dog"), (3, "cat"), ("x", "bee")):
        gather.add_class(name, key)
    gather.add_class("dog", 8)  # the first id counts
    gather.add_class("fox", 3)  # taken
    gather.add_object(added(gather, "a.jpg"), "ant", (1, 1, 2, 2))
    data = made(gather)
    assert data.class_names == ("dog", "cat", "bee", "ant", "fox")
    assert data.category_ids == (7, 3, "x", 8 + 3, 8 + 4)
    assert data.records[0].labels.tolist() == [3]


def test_objects_of_other_classes_than_the_given_are_one_problem_each_class() -> None:
    gather = begun(("cat", "dog"))
    for file, names in {"one": ("cow", "cat"), "two": ("cow", "ant", "cow")}.items():
        image = gather.add_image(Path(f"{file}.jpg"), file, annotation=Path(f"{file}.txt"))
        assert image is not None
        for name in names:
            gather.add_object(image, name, (1, 1, 2, 2))
    data = made(gather)
    assert (data.class_names, data.category_ids) == (("cat", "dog"), (1, 2))
    assert [str(problem) for problem in data.problems] == [
        "two.txt: class 'ant' (1 boxes) is not in the class list: expected cat, dog; the data has ant, cat, cow",
        "one.txt: class 'cow' (3 boxes in 2 files) is not in the class list: expected cat, dog; "
        "the data has ant, cat, cow",
    ]
    assert [record.labels.tolist() for record in data.records] == [[0], []]


def test_an_id_that_occurs_twice_in_a_split() -> None:
    gather = begun()
    added(gather, "a.jpg", 1)
    assert gather.add_image(Path("b.jpg"), "b.jpg", id=1, where="line 2") is None
    assert gather.add_image(Path("a.jpg"), "a.jpg", id=1) is None
    added(gather, "b.jpg", "1")  # a text is another id
    added(gather, "c.jpg", 2)
    assert gather.add_image(Path("c.jpg"), "c.jpg", id=2) is None
    data = made(gather)
    assert [str(problem) for problem in data.problems] == [
        "line 2: b.jpg: the id 1 is also the id of a.jpg",
        "place: image 'a.jpg' is listed twice",
        "place: image 'c.jpg' is listed twice",
    ]
    assert [record.id for record in data.records] == ["1", 2]  # nobody knows whose the objects of the id 1 are
    assert data.left_out == ("duplicate image id",) * 2
    assert data.own_ids


def test_ids_where_splits_are_joined() -> None:
    gather = begun(split="train")
    added(gather, "a.jpg", 1, "train")
    gather.begin("val", Path("other"))
    added(gather, "a.jpg", 2, "val")
    assert [record.id for record in made(gather).records] == [1, 2]
    added(gather, "b.jpg", 1, "val")
    assert gather.add_image(Path("c.jpg"), "c.jpg", id=1) is None  # twice in this split
    data = made(gather)
    assert [record.id for record in data.records] == ["train/1", "val/2"]  # both of val have gone, and no other
    assert data.left_out == ("duplicate image id",) * 2
    assert (data.split, data.own_ids, len(data.problems)) == ("train+val", False, 1)
    gather = begun()
    added(gather, "a.jpg", folder="2007", group="VOC2007")
    added(gather, "a.jpg", folder="2012", group="VOC2012")
    data = made(gather)
    assert [record.id for record in data.records] == ["VOC2007/a.jpg", "VOC2012/a.jpg"]
    assert not data.own_ids


def test_a_problem_that_two_splits_have_is_said_once() -> None:
    gather = begun(split="train")
    gather.problem("broken annotation", "a.xml", "broken")
    gather.begin("trainval", Path("place"))
    gather.problem("broken annotation", "a.xml", "broken")
    gather.note("annotation without image", "b.xml", "no image")
    data = made(gather)
    assert len(data.problems) == len(data.notes) == 1


@pytest.mark.parametrize(
    ("boxes", "refused"),
    [
        ([[0.2, 0.3, 0.9, 1.0]], True),
        ([[0.2, 0.3, 1.0000005, 1.0], [0, 0, 1, 1]], True),  # rounding
        ([[-0.05, 0.3, 1.2, 1.0]], True),  # a detector's
        ([[0, 0, 1, 1]], False),  # one pixel
        ([[0.2, 0.3, 0.9, 1.6]], False),
        ([[0.2, 0.3, 0.9, 1.0], [3, 3, 9, 9]], False),  # a tiny one among real ones
        ([[np.nan, 0.3, 0.9, 1.0]], False),  # the check speaks of it
        (np.zeros((0, 4)), False),
    ],
)
def test_boxes_divided_by_the_image_size(boxes: list[list[float]], refused: bool) -> None:
    array = np.array(boxes, np.float64)
    gather = begun()
    image = added(gather, "a.jpg")
    for box in array.tolist():
        gather.add_object(image, "cat", box)
    if not refused:
        refuse_normalised("file", array)
        assert len(made(gather)) == 1
        return
    with pytest.raises(
        UserError, match=rf"^file: all {len(array)} boxes .* normalised .*multiply x by the image's width"
    ):
        refuse_normalised("file", array)
    with pytest.raises(UserError, match="^place: all"):
        made(gather)


def test_a_folder_is_listed_once_for_all_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").touch()
    listed: list[Path] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(Path(folder)), scan(folder))[1])
    with folders.each_listed_once():
        for _ in range(3):
            assert list(folders.files(tmp_path)) == ["a.txt"]
            with folders.each_listed_once():
                assert folders.folders(tmp_path) == {"inner": tmp_path / "inner"}
        assert listed == [tmp_path]
    (tmp_path / "b.txt").touch()
    assert list(folders.files(tmp_path)) == ["a.txt", "b.txt"]  # outside nothing is remembered
