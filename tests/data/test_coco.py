"""COCO JSON: ids, missing fields, images, splits, damaged files."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singleshot.data.check import ERRORS
from singleshot.data.open import find_splits, open_dataset
from singleshot.errors import UserError

read_coco = partial(open_dataset, format="coco", need_truth=False, strict=False)


def content(**changes: Any) -> dict[str, Any]:
    """Two images, three objects, two classes; ids with gaps."""
    return {
        "images": [
            {"id": 42, "file_name": "a.jpg", "height": 40, "width": 50},
            {"id": 7, "file_name": "b.jpg", "height": 30, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 42, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 5.5, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0.1, 0.2, 10.7, 9], "area": 9, "iscrowd": 1},
            {"id": 3, "image_id": 42, "category_id": 3, "bbox": [5, 6, 7, 8]},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 3, "name": "ant"}],
        **changes,
    }


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")


def test_objects_go_to_their_images_with_ids_kept(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path / "instances_val2017.json", content()))
    assert (data.format, data.split, data.splits) == ("coco", "val2017", ("val2017",))
    assert data.class_names == ("zebra", "ant")
    assert data.category_ids == (90, 3)
    first, second = data.records
    assert (first.id, first.name, first.size) == (42, "a.jpg", (40, 50))
    assert first.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    assert first.labels.tolist() == [0, 1]
    assert first.areas.tolist() == [5.5, 56.0]  # as the file has it; w * h where it has none
    assert first.crowd.tolist() == [False, False]
    assert second.crowd.tolist() == [True]
    assert second.xywh is not None
    assert second.xywh.tolist() == [[0.1, 0.2, 10.7, 9]]
    assert not (first.difficult.any())
    assert not (first.truncated.any())
    assert not data.problems
    assert not data.notes


def test_ids_may_be_strings_and_floats(tmp_path: Path) -> None:
    value = content(
        images=[{"id": "x-1", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}],
        annotations=[
            {"image_id": "x-1", "category_id": "cat", "bbox": [1, 2, 3, 4]},
            {"image_id": 2, "category_id": "dog", "bbox": [1, 2, 3, 4]},
        ],
        categories=[{"id": "dog", "name": "Dog"}, {"id": "cat", "name": "Cat"}],
    )
    data = read_coco(write(tmp_path / "a.json", value))
    assert [record.id for record in data.records] == ["x-1", 2]
    assert data.category_ids == ("dog", "cat")
    assert [record.labels.tolist() for record in data.records] == [[1], [0]]
    assert data.records[0].size == (0, 0)


def test_categories_that_only_the_annotations_name(tmp_path: Path) -> None:
    value = content()
    del value["categories"]
    data = read_coco(write(tmp_path / "a.json", value))
    assert (data.class_names, data.category_ids) == (("3", "90"), (3, 90))
    assert data.records[0].labels.tolist() == [1, 0]


def test_two_categories_of_one_name_stay_two(tmp_path: Path) -> None:
    value = content(categories=[{"id": 90, "name": "ant"}, {"id": 3, "name": "ant"}])
    assert read_coco(write(tmp_path / "a.json", value)).class_names == ("ant (90)", "ant (3)")
    value["categories"].append({"id": 4, "name": "ant (90)"})  # nor do they become one with a third
    data = read_coco(write(tmp_path / "a.json", value))
    assert (data.class_names, data.category_ids) == (("ant (90) (90)", "ant (3)", "ant (90)"), (90, 3, 4))


def test_given_classes_are_the_labels(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path / "a.json", content()), class_names=("ant", "bee", "zebra"))
    assert data.class_names == ("ant", "bee", "zebra")
    assert data.records[0].labels.tolist() == [2, 0]
    assert data.category_ids[0] == 3
    assert data.category_ids[2] == 90
    assert len(set(data.category_ids)) == 3


def test_classes_outside_of_the_list_are_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", content())
    data = read_coco(path, class_names=("ant", "bee"))
    (problem,) = data.problems
    assert problem.kind == "unknown class"
    for word in ("'zebra'", "1 boxes", "ant, bee", "zebra, ant"):
        assert word in problem.message
    assert [record.labels.tolist() for record in data.records] == [[0], [0]]
    value = content()
    value["annotations"][0]["category_id"] = 5
    (problem,) = read_coco(write(path, value)).problems
    assert problem.kind == "unknown class"
    assert "category_id 5" in problem.message


def test_an_image_without_annotations_is_an_image_without_objects(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path / "a.json", content(annotations=[])))
    assert all(record.annotated and record.boxes.shape == (0, 4) for record in data.records)


def test_a_list_of_images_has_no_truth(tmp_path: Path) -> None:
    value = content()
    del value["annotations"]
    data = read_coco(write(tmp_path / "image_info_test2017.json", value))
    assert data.split == "test2017"
    assert not any(record.annotated for record in data.records)
    assert data.class_names == ("zebra", "ant")


def test_entries_that_cannot_be_read_are_problems_and_their_images_are_left_out(tmp_path: Path) -> None:
    value = content()
    value["images"] += [{"id": 42, "file_name": "a.jpg"}, {"id": None, "file_name": "d.jpg"}, {"id": 8}, "e.jpg"]
    value["annotations"] += [
        {"image_id": 42, "category_id": 3},
        {"image_id": 42, "category_id": 3, "bbox": [1, 2, 3]},
        {"image_id": 42, "category_id": 3, "bbox": [1, 2, 3, "wide"]},
        {"image_id": 42, "bbox": [1, 2, 3, 4]},
        {"category_id": 3, "bbox": [1, 2, 3, 4]},
        None,
    ]
    data = read_coco(write(tmp_path / "a.json", value))
    assert [record.name for record in data.records] == ["b.jpg"]  # without some of its objects, a.jpg would be wrong
    assert [len(record.labels) for record in data.records] == [1]
    assert data.left_out == ("broken annotation",)
    assert [problem.kind for problem in data.problems].count("duplicate image id") == 1
    assert [problem.kind for problem in data.problems].count("broken annotation") == 9
    assert all(problem.where.startswith(str(tmp_path / "a.json")) for problem in data.problems)
    assert any("images[2]" in problem.where and "a.jpg" in problem.message for problem in data.problems)
    assert any("annotations[4]" in problem.where for problem in data.problems)


def test_two_images_of_one_id_are_both_left_out(tmp_path: Path) -> None:
    """Their annotations name only the id: one image would learn the objects of the other."""
    value = content()
    value["images"] += [{"id": 42, "file_name": "c.jpg"}, {"id": 7, "file_name": "b.jpg"}]
    data = read_coco(write(tmp_path / "a.json", value))
    assert [(record.name, len(record.labels)) for record in data.records] == [("b.jpg", 1)]  # listed twice, one image
    assert data.left_out == ("duplicate image id",) * 2
    assert [str(problem).partition(": ")[2] for problem in data.problems] == [
        "images[2]: c.jpg: the id 42 is also the id of a.jpg",
        "images[3]: image 'b.jpg' is listed twice",
    ]


def broken(field: str, value: Any) -> dict[str, Any]:
    """A sound file but for one value of the first object, which belongs to a.jpg."""
    found = content()
    found["annotations"][0][field] = value
    return found


@pytest.mark.parametrize(
    ("field", "value", "column", "expected"),
    [
        ("iscrowd", "0", "crowd", False),
        ("iscrowd", "false", "crowd", False),
        ("iscrowd", 0.0, "crowd", False),
        ("iscrowd", False, "crowd", False),
        ("iscrowd", None, "crowd", False),
        ("iscrowd", "1", "crowd", True),
        ("iscrowd", True, "crowd", True),
        ("area", "7.5", "areas", 7.5),
        ("area", None, "areas", 12.0),
        ("area", 0, "areas", 0.0),
        ("bbox", ["1", "2.0", 3, " 4 "], "boxes", [1, 2, 4, 6]),
        ("category_id", "3", "labels", 1),
    ],
)
def test_what_is_clear_is_taken(tmp_path: Path, field: str, value: Any, column: str, expected: object) -> None:
    data = read_coco(write(tmp_path / "a.json", broken(field, value)))
    assert not data.problems
    assert getattr(data.records[0], column)[0].tolist() == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("iscrowd", value) for value in (2, -1, float("nan"), "maybe", "", [], 0.5)),
        *(("area", value) for value in (float("nan"), float("inf"), -1, "-1", "big", True, {}, 10**400)),
        *(("bbox", value) for value in ([1, 2, 3, "4_0"], [1, 2, 3, None], [1, 2, 3, True], "1 2 3 4", {}, None)),
        *(("category_id", value) for value in (None, 3.5, True, float("nan"), [], "a\0", 2**64)),
    ],
)
def test_what_is_not_clear_is_a_problem_and_its_image_is_left_out(tmp_path: Path, field: str, value: Any) -> None:
    path = write(tmp_path / "a.json", broken(field, value))
    data = read_coco(path)
    (problem,) = data.problems
    assert (problem.kind, problem.where) == ("broken annotation", f"{path}: annotations[0]")
    assert problem.message.startswith(f"image a.jpg: {field} is ")
    assert "expected" in problem.message
    assert [record.name for record in data.records] == ["b.jpg"]
    with pytest.raises(UserError, match=f"image a.jpg: {field} is "):
        open_dataset(path)


@pytest.mark.parametrize("value", ["a\0.jpg", "a\n.jpg", "\ud800.jpg", "\x1b[2J", "", 3, None])
def test_names_that_no_file_can_have(tmp_path: Path, value: Any) -> None:
    found = content()
    found["images"][0]["file_name"] = value
    data = read_coco(write(tmp_path / "a.json", found))
    assert data.problems[0].where.endswith("images[0]")
    assert "file_name is" in data.problems[0].message
    assert [record.name for record in data.records] == ["b.jpg"]
    (note,) = data.notes  # on the two objects of that image
    assert note.kind == "annotation without image"


@pytest.mark.parametrize("value", ["a\nb", "a\0", "\udfff", "", True, [], 1.5])
def test_names_that_no_class_can_have(tmp_path: Path, value: Any) -> None:
    """Objects of this class cannot be read either, so their image is left out."""
    found = content()
    found["categories"][0]["name"] = value
    data = read_coco(write(tmp_path / "a.json", found))
    assert [problem.kind for problem in data.problems] == ["broken category", "unknown class"]
    assert data.problems[0].where.endswith("categories[0]")
    assert [record.name for record in data.records] == ["b.jpg"]
    assert data.left_out == ("unknown class",)


def test_two_categories_of_one_id(tmp_path: Path) -> None:
    """The finding is about a category, which has no image that could be left out."""
    found = content()
    found["categories"].append({"id": 3, "name": "bee"})
    data = read_coco(write(tmp_path / "a.json", found))
    (problem,) = data.problems
    assert (problem.kind, problem.message) == ("broken category", "the id 3 is also the id of 'ant'")
    assert ERRORS[problem.kind].endswith("the first of several with one id counts")
    assert data.class_names == ("zebra", "ant")
    assert not data.left_out


def test_names_that_are_numbers(tmp_path: Path) -> None:
    assert read_coco(
        write(tmp_path / "a.json", content(categories=[{"id": 90, "name": 7}, {"id": 3, "name": "8"}]))
    ).class_names == ("7", "8")


def test_ids_that_are_the_same_as_text_are_the_same(tmp_path: Path) -> None:
    found = content()
    found["annotations"][0] |= {"image_id": "42", "category_id": "90"}
    found["annotations"][1] |= {"image_id": "7"}
    data = read_coco(write(tmp_path / "a.json", found))
    assert [record.labels.tolist() for record in data.records] == [[0, 1], [1]]
    assert [note.kind for note in data.notes] == ["id of another type"] * 2
    assert "2 times; the first is '42'" in data.notes[0].message
    found["images"].append({"id": "42", "file_name": "c.jpg"})  # the same type counts first
    data = read_coco(write(tmp_path / "a.json", found))
    assert [record.labels.tolist() for record in data.records] == [[1], [1], [0]]


def test_polygons_without_boxes(tmp_path: Path) -> None:
    found = content()
    del found["annotations"][0]["bbox"]
    found["annotations"][0]["segmentation"] = [[20, 30, 70.5, 30, 70, 60], ["10", 40, 15, 40, 15, 50]]
    data = read_coco(write(tmp_path / "a.json", found))
    assert data.records[0].boxes[0].tolist() == [10, 30, 70.5, 60]
    assert [note.kind for note in data.notes] == ["polygon without box"]
    assert not data.problems
    for no_polygon in ([], [[]], [[1, 2, 3]], [[1, 2, 3, 4]], {"counts": "x", "size": [1, 1]}, [[1, 2, 3, 4, 5, "x"]]):
        found["annotations"][0]["segmentation"] = no_polygon
        data = read_coco(write(tmp_path / "a.json", found))
        assert [record.name for record in data.records] == ["b.jpg"]
        assert "bbox is None" in data.problems[0].message


def test_a_key_that_occurs_twice(tmp_path: Path) -> None:
    """JSON keeps the last value only: here it would be half of the data."""
    text = json.dumps(content())
    path = tmp_path / "a.json"
    path.write_text(
        text.replace('"categories"', '"annotations": [], "categories"').replace('"area"', '"id": 9, "area"')
    )
    data = read_coco(path)
    assert [problem.kind for problem in data.problems] == ["key twice"] * 2
    assert any("'id' occurs more than once in 2 objects" in problem.message for problem in data.problems)
    assert any("'annotations' occurs" in problem.message for problem in data.problems)
    with pytest.raises(UserError, match="occurs more than once"):
        open_dataset(path)


def test_nan_and_negative_sides_are_left_to_the_check(tmp_path: Path) -> None:
    value = content(annotations=[{"image_id": 7, "category_id": 3, "bbox": [float("nan"), 5, -3, 10**400]}])
    path = write(tmp_path / "a.json", value)
    assert "NaN" in path.read_text()
    data = read_coco(path)
    assert not data.problems
    np.testing.assert_array_equal(data.records[1].xywh, [[np.nan, 5, -3, np.inf]])


def test_annotations_of_images_that_are_not_listed(tmp_path: Path) -> None:
    value = content()
    value["annotations"][1]["image_id"] = 99
    data = read_coco(write(tmp_path / "a.json", value))
    (note,) = data.notes
    assert note.kind == "annotation without image"
    assert "1 annotations" in note.message
    assert not data.problems
    value["images"] = [{"id": "042", "file_name": "a.jpg"}]
    with pytest.raises(UserError, match=r"'042'.* 42"):
        read_coco(write(tmp_path / "a.json", value))


def test_boxes_divided_by_the_image_size_are_refused(tmp_path: Path) -> None:
    value = content(annotations=[{"image_id": 7, "category_id": 3, "bbox": [0.25, 0.5, 0.75, 0.5]}])
    with pytest.raises(UserError, match="normalised"):
        read_coco(write(tmp_path / "a.json", value))
    value["annotations"].append({"image_id": 42, "category_id": 3, "bbox": [1, 1, 9, 9]})
    assert len(read_coco(write(tmp_path / "a.json", value)).records[0].labels) == 1
    one_pixel = content(annotations=[{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}])
    assert len(read_coco(write(tmp_path / "a.json", one_pixel)).records[1].labels) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n  {"id": 1,,}]}', r"a\.json:2: broken JSON at column 12"),
        ("", r"a\.json:1: broken JSON"),
        ('{"images": []', r"a\.json:1: broken JSON"),
        ("[" * 100_000, "broken JSON: .*nested too deeply"),
        ('{"images": [\n{"id": ' + "1" * 5_000 + "}]}", r"a\.json:2: broken JSON"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 1, 1], "score": 0.5}]', "results file.*--detections"),
        ("[]", "a list; expected a COCO dataset"),
        ("3", "int '3'"),
        ('{"annotations": [], "categories": []}', '"images" is missing.*annotations, categories'),
        ('{"images": {}}', '"images" is dict, not a list'),
        ('{"images": [], "annotations": [], "categories": []}', "is empty"),
    ],
)
def test_json_that_is_no_dataset(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_coco(path)
    assert "a.json" in str(caught.value)


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(UserError, match="UTF-8"):
        read_coco(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content()).encode())
    assert len(read_coco(path)) == 2


@pytest.mark.parametrize(
    ("annotation", "image"),
    [
        ("annotations/instances_val2017.json", "val2017/{}"),
        ("annotations/instances_val2017.json", "images/val2017/{}"),
        ("annotations/val.json", "images/{}"),
        ("annotations/val.json", "val/images/{}"),
        ("coco_json/val.json", "JPEGImages/{}"),
        ("val.json", "{}"),
        ("val.json", "images/{}"),
        ("valid/_annotations.coco.json", "valid/{}"),
        ("gts/coco/instances_default.json", "images/{}"),
    ],
)
def test_images_are_found_where_they_usually_are(tmp_path: Path, annotation: str, image: str) -> None:
    path = write(tmp_path / annotation, content())
    wanted = [tmp_path / image.format(name) for name in ("a.jpg", "b.jpg")]
    touch(*wanted)
    assert [record.path for record in read_coco(path).records] == wanted


OUT = [
    "../../out/a.jpg",
    "x/../../../out/a.jpg",
    "/etc/passwd",
    "//etc/passwd",
    "{}/out/a.jpg",
    "../..",
    "..\\..\\out\\a.jpg",
]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("given", ["data", "data/annotations/val.json"])
def test_an_image_outside_of_the_data_is_refused(tmp_path: Path, name: str, given: str) -> None:
    """The file may come from a stranger, and could name any file of this computer."""
    touch(tmp_path / "out/a.jpg", tmp_path / "data/images/b.jpg")
    name = name.format(tmp_path)
    images = [{"id": 42, "file_name": name}, {"id": 7, "file_name": "b.jpg"}]
    write(tmp_path / "data/annotations/val.json", content(images=images))
    data = read_coco(tmp_path / given)
    assert [record.name for record in data.records] == ["b.jpg"]
    (problem,) = data.problems
    assert problem.kind == "outside of the data"
    assert "--allow-outside" in problem.message
    assert problem.where.endswith("images[0]")
    assert data.left_out == ("outside of the data",)
    trusted = read_coco(tmp_path / given, allow_outside=True)
    assert len(trusted.records) == 2
    assert not trusted.problems
    if "out" in name:
        assert trusted.records[0].path.samefile(tmp_path / "out/a.jpg")


@pytest.mark.parametrize("name", ["../../gone/a.jpg", "{}/out/a.jpg", "/home/else/a.jpg"])
def test_an_image_that_is_used_for_a_name_that_leads_elsewhere_is_named(tmp_path: Path, name: str) -> None:
    root = tmp_path / "far/away/data"
    touch(tmp_path / "out/a.jpg", root / "images/a.jpg", root / "images/b.jpg")
    name = name.format(tmp_path)
    images = [{"id": 42, "file_name": name}, {"id": 7, "file_name": f"{root}/images/b.jpg"}]
    write(root / "val.json", content(images=images))
    data = read_coco(root)
    assert [record.path for record in data.records] == [root / "images/a.jpg", root / "images/b.jpg"]
    assert not data.problems
    (note,) = data.notes  # none about b.jpg, which is where its name leads
    assert note.kind == "image of another folder"
    assert note.where.endswith("val.json: images[0]")
    meant = os.path.normpath(root / "images" / name)
    assert note.message == f"the name {name} leads to {meant}; {root}/images/a.jpg is used"
    assert "1 image is not where the name in the annotations leads" in str(data.elsewhere())
    trusted = read_coco(root, allow_outside=True)
    if name == f"{tmp_path}/out/a.jpg":  # what is named comes before what only has the same last part
        assert trusted.records[0].path == tmp_path / "out/a.jpg"
        assert trusted.elsewhere() is None
    else:
        assert trusted.notes == data.notes


def test_very_many_folders_in_names_take_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not asked for each of them."""
    asked: list[object] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: asked.append(folder) or real(folder))
    touch(tmp_path / "images/d7/a.jpg")
    names = [*(f"d{k}/a.jpg" for k in range(500)), *(f"../../d{k}/a.jpg" for k in range(500))]
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    data = read_coco(write(tmp_path / "annotations/val.json", content(images=images, annotations=[])))
    assert data.records[7].path == tmp_path / "images/d7/a.jpg"
    assert len(data.left_out) == 500
    assert len(asked) < 50


@pytest.mark.parametrize(
    "name", ["../images/sub/a.jpg", "images/x/../sub/a.jpg", "{}/data/images/sub/a.jpg", "link/a.jpg"]
)
@pytest.mark.parametrize("given", ["data", "data/annotations/val.json"])
def test_an_image_inside_of_the_data_is_found_however_it_is_named(tmp_path: Path, name: str, given: str) -> None:
    """Also through a link that lies in the data: its owner has put it there."""
    touch(tmp_path / "data/images/sub/a.jpg", tmp_path / "out/a.jpg")
    (tmp_path / "data/images/link").symlink_to(tmp_path / "out")
    images = [{"id": 42, "file_name": name.format(tmp_path)}]
    write(tmp_path / "data/annotations/val.json", content(images=images, annotations=[]))
    data = read_coco(tmp_path / given)
    assert not data.problems
    place = "out" if "link" in name else "data/images/sub"
    assert data.records[0].path.samefile(tmp_path / place / "a.jpg")


@pytest.mark.parametrize("name", ["deep/er/a.jpg", "deep\\er\\a.jpg", "/elsewhere/deep/a.jpg", r"C:\deep\a.jpg"])
def test_file_names_with_folders(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "annotations/val.json", content(images=[{"id": 42, "file_name": name}]))
    touch(tmp_path / "images/a.jpg", tmp_path / "images/deep/er/b.jpg")
    assert read_coco(path).records[0].path == tmp_path / "images" / "a.jpg"
    touch(tmp_path / "images/deep/er/a.jpg")
    (record,) = read_coco(path).records
    inner = name.startswith("deep")
    assert record.path == tmp_path / "images" / ("deep/er/a.jpg" if inner else "a.jpg")
    assert record.name == name


def test_the_folder_of_the_split_counts_first(tmp_path: Path) -> None:
    path = write(tmp_path / "annotations/instances_val2017.json", content())
    touch(tmp_path / "train2017/a.jpg", tmp_path / "val2017/a.jpg", tmp_path / "images/a.jpg")
    assert read_coco(path).records[0].path == tmp_path / "val2017" / "a.jpg"


def test_images_that_are_not_there_are_left_to_the_check(tmp_path: Path) -> None:
    data = read_coco(write(tmp_path / "annotations/val.json", content()))
    assert not data.problems
    assert not data.records[0].path.exists()
    assert data.records[0].path.name == "a.jpg"


def test_an_image_named_by_its_address_alone(tmp_path: Path) -> None:
    image = {"id": 42, "coco_url": "http://images.example.org/val2017/a.jpg"}
    touch(tmp_path / "val2017" / "a.jpg")
    record = read_coco(write(tmp_path / "annotations/lvis_val.json", content(images=[image]))).records[0]
    assert (record.name, record.path) == ("val2017/a.jpg", tmp_path / "val2017" / "a.jpg")


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for name in ("instances_train2017", "instances_val2017", "person_keypoints_val2017", "captions_val2017"):
        write(tmp_path / "annotations" / f"{name}.json", content())
    write(tmp_path / "annotations/image_info_test2017.json", content())
    write(tmp_path / "annotations/instances_results.json", [{"image_id": 1, "score": 1}])
    write(tmp_path / "package.json", {"name": "something else"})
    (tmp_path / "labelme").mkdir()
    write(tmp_path / "labelme/a.json", {"version": "5", "shapes": []})
    assert sorted(find_splits(tmp_path)) == ["test2017", "train2017", "val2017"]
    assert read_coco(tmp_path, split="val").split == "val2017"
    assert read_coco(tmp_path, split="val").records[0].annotation == tmp_path / "annotations/instances_val2017.json"
    assert read_coco(tmp_path, prefer=("minival", "test")).split == "test2017"
    with pytest.raises(UserError, match=r"no split 'dev'.*train2017"):
        read_coco(tmp_path, split="dev")


def test_a_broken_file_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    for name in ("annotations/val.json", "instances_val.json", "x/_annotations.coco.json"):
        path = tmp_path / Path(name).stem / name
        path.parent.mkdir(parents=True)
        path.write_text("{broken")
        with pytest.raises(UserError, match="broken JSON"):
            read_coco(tmp_path / Path(name).stem)


def test_roboflow_folders(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / split / "_annotations.coco.json", content())
    assert find_splits(tmp_path) == ("test", "train", "valid")
    assert read_coco(tmp_path, split="val").split == "valid"


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "instances_default.json", content())
    assert find_splits(tmp_path) == ("a/instances_default", "b/instances_default")


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """train2014 with the images 42 and 7; valminusminival2014 with 8, in val2014, and another list of categories."""
    write(tmp_path / "annotations/instances_train2014.json", content())
    value = content(
        images=[{"id": 8, "file_name": "c.jpg"}],
        annotations=[
            {"image_id": 8, "category_id": 3, "bbox": [1, 1, 5, 5]},
            {"image_id": 8, "category_id": 90, "bbox": [2, 2, 5, 5]},
        ],
        categories=[{"id": 3, "name": "ant"}, {"id": 90, "name": "bee"}, {"id": 4, "name": "zebra"}],
    )
    write(tmp_path / "annotations/instances_valminusminival2014.json", value)
    touch(*(tmp_path / name for name in ("train2014/a.jpg", "train2014/b.jpg", "val2014/c.jpg")))
    return tmp_path


def test_files_are_joined(two_files: Path) -> None:
    data = read_coco(two_files, split="train2014+valminusminival2014")
    assert (data.split, data.splits) == ("train2014+valminusminival2014", ("train2014", "valminusminival2014"))
    assert [record.id for record in data.records] == [42, 7, 8]
    assert [record.path.relative_to(two_files).as_posix() for record in data.records] == [
        "train2014/a.jpg",
        "train2014/b.jpg",
        "val2014/c.jpg",
    ]
    assert [record.annotation.name for record in data.records if record.annotation is not None] == [
        "instances_train2014.json",
        "instances_train2014.json",
        "instances_valminusminival2014.json",
    ]
    # One list: the first file's in its order, then what is new. A name is one class, and an id is that of one class.
    assert data.class_names == ("zebra", "ant", "bee")
    assert data.category_ids[:2] == (90, 3)
    assert len(set(data.category_ids)) == 3
    assert [record.labels.tolist() for record in data.records] == [[0, 1], [1], [1, 2]]
    assert data.own_ids
    assert not data.problems
    words = read_coco(two_files, split="train+valminusminival")  # a word finds its split here, too
    assert words.split == "train2014+valminusminival2014"
    for wrong, message in (("train2014+train", "'train2014' twice"), ("train2014+dev", "no split 'dev'")):
        with pytest.raises(UserError, match=message):
            read_coco(two_files, split=wrong)
    with pytest.raises(UserError, match="'cow'|'bee'"):
        open_dataset(two_files, split="train2014+valminusminival2014", class_names=("ant", "zebra"))


def test_an_image_in_both_files_is_a_problem(two_files: Path) -> None:
    path = two_files / "annotations/instances_valminusminival2014.json"
    value = json.loads(path.read_text())
    value["images"].append({"id": 7, "file_name": "b.jpg"})
    value["annotations"].append({"image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5]})
    write(path, value)
    data = read_coco(two_files, split="train2014+valminusminival2014")
    assert [record.id for record in data.records] == [42, 7, 8]
    assert len(data.records[1].labels) == 1  # what the first file says
    (problem,) = data.problems
    assert problem.kind == "duplicate image id"
    assert problem.where == f"{path}: images[1]"
    assert "'b.jpg' is listed twice" in problem.message
    assert not data.notes


def test_files_that_number_their_own_images_get_ids_of_their_own(two_files: Path) -> None:
    """As most tools export them: every file counts from 1."""
    path = two_files / "annotations/instances_valminusminival2014.json"
    value = json.loads(path.read_text().replace('"image_id": 8', '"image_id": 42'))
    value["images"][0]["id"] = 42
    write(path, value)
    data = read_coco(two_files, split="train2014+valminusminival2014")
    assert [record.id for record in data.records] == ["train2014/42", "train2014/7", "valminusminival2014/42"]
    assert [record.labels.tolist() for record in data.records] == [[0, 1], [1], [1, 2]]
    assert not data.problems
    assert not data.own_ids  # these ids are in no file: the order of the splits counts
    assert read_coco(two_files, split="valminusminival2014").records[0].id == 42


def test_one_of_two_files_divided_by_the_image_size(two_files: Path) -> None:
    path = two_files / "annotations/instances_valminusminival2014.json"
    value = json.loads(path.read_text())
    for entry in value["annotations"]:
        entry["bbox"] = [0.1, 0.2, 0.3, 0.4]
    write(path, value)
    with pytest.raises(UserError, match=r"instances_valminusminival2014.json: all 2 boxes .* normalised"):
        read_coco(two_files, split="train2014+valminusminival2014")


def test_images_in_the_folders_of_other_splits(two_files: Path) -> None:
    """Only for a split that has no folder of its own, and a name that is in one of them alone."""
    path = two_files / "annotations" / "instances_valminusminival2014.json"
    assert read_coco(path).records[0].path == two_files / "val2014" / "c.jpg"
    touch(two_files / "train2014" / "c.jpg")
    assert not read_coco(path).records[0].path.exists()
    (two_files / "train2014" / "c.jpg").unlink()
    touch(two_files / "preview" / "c.jpg")
    assert read_coco(path).records[0].path == two_files / "val2014" / "c.jpg"
    (two_files / "valminusminival2014").mkdir()
    assert read_coco(path).records[0].path == two_files / "valminusminival2014" / "c.jpg"


def test_coco128(shared: Path) -> None:
    data = read_coco(shared / "coco128", split="train")
    assert len(data) == 128
    assert len(data.class_names) == 80
    assert sum(len(record.labels) for record in data.records) == 939
    assert sum(int(record.crowd.sum()) for record in data.records) == 10
    assert sum(len(record.labels) == 0 for record in data.records) == 2
    assert all(record.path.is_file() for record in data.records)
    assert data.category_ids[:1] + data.category_ids[-1:] == (1, 90)


def test_chess_in_pixels_and_divided(shared: Path) -> None:
    data = read_coco(shared / "chess", split="val")
    assert (len(data), sum(len(record.labels) for record in data.records)) == (58, 386)
    assert all(isinstance(record.id, str) and record.path.is_file() for record in data.records)
    for split in ("train2", "val2"):
        with pytest.raises(UserError, match="normalised"):
            read_coco(shared / "chess" / "coco_json" / f"instances_{split}.json")


def test_one_truth_in_two_files(shared: Path) -> None:
    folder = shared / "metrics" / "padilla_review" / "data" / "database" / "gts"
    one = read_coco(folder / "coco_format_v1")
    other = read_coco(folder / "coco_format_v2" / "instances_v2.json")
    assert len(one) == len(other) == 100
    assert all(record.path.is_file() for record in (*one.records, *other.records))
    found = {record.name: record for record in other.records}
    assert sum(len(record.labels) for record in one.records) == sum(len(found[r.name].labels) for r in one.records)


def test_results_and_videos_are_no_datasets(shared: Path) -> None:
    with pytest.raises(UserError, match="results file"):
        read_coco(shared / "metrics" / "coco_fake100" / "instances_val2014_fakebbox100_results.json")
    with pytest.raises(UserError, match='"images" is missing'):
        read_coco(shared / "metrics" / "padilla_review" / "tests" / "tube" / "example_anno.json")
