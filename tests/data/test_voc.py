"""Pascal VOC folders: layouts, splits, fields, damaged files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from singleshot.data.dataset import Dataset, Problem
from singleshot.data.formats.voc import find_parts
from singleshot.data.formats.vocxml import Annotation, parse
from singleshot.data.open import find_splits, open_dataset
from singleshot.errors import UserError

read_voc = partial(open_dataset, format="voc", need_truth=False, strict=False)

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def thing(name: str, box: tuple[object, ...], more: str = "") -> str:
    return f"<object><name>{name}</name>{more}{BOX.format(*box)}</object>"


def write_xml(path: Path, *objects: str, filename: str = "", size: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(f"<annotation>{name}{size}{''.join(objects)}</annotation>")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")


def write_splits(root: Path, **splits: str) -> None:
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for name, text in splits.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "VOC"
    size = "<size><width>50</width><height>40</height><depth>3</depth></size>"
    write_xml(root / "Annotations/a.xml", thing("dog", (1, 2, 3, 4)), thing("cat", (5, 6, 7, 8)), size=size)
    write_xml(root / "Annotations/b.xml", size=size)
    write_xml(root / "Annotations/c.xml", thing("ant", (9, 9, 10, 10)), size=size)
    touch(*(root / "JPEGImages" / f"{stem}.jpg" for stem in "abc"))
    write_splits(root, train="a\nb\n", val="c\n", cat_train="a  1\nb -1\n", dog_val="c 0\n")
    return root


def boxes(dataset: Dataset) -> list[list[list[float]]]:
    return [record.boxes.tolist() for record in dataset.records]


def test_a_split_in_the_order_of_its_list(folder: Path) -> None:
    data = read_voc(folder, split="train")
    assert (data.format, data.split, data.splits) == ("voc", "train", ("train", "val"))
    assert [record.name for record in data.records] == ["a", "b"]
    assert [record.id for record in data.records] == ["a", "b"]
    assert boxes(data) == [[[1, 2, 3, 4], [5, 6, 7, 8]], []]
    first, second = data.records
    assert first.path == folder / "JPEGImages" / "a.jpg"
    assert first.annotation == folder / "Annotations" / "a.xml"
    assert first.size == (40, 50)
    assert first.areas.tolist() == [4, 4]
    assert second.boxes.shape == (0, 4)
    assert second.boxes.dtype == np.float64
    assert second.labels.dtype == np.int64
    assert second.difficult.dtype == np.bool_
    assert second.annotated


def test_classes_are_those_of_the_folder_in_every_split(folder: Path) -> None:
    for split in ("train", "val"):
        data = read_voc(folder, split=split)
        assert data.class_names == ("ant", "cat", "dog")
        assert data.category_ids == (1, 2, 3)
    assert read_voc(folder, split="train").records[0].labels.tolist() == [2, 1]


def test_given_classes_are_the_labels(folder: Path) -> None:
    data = read_voc(folder, split="train", class_names=("dog", "cow", "cat"))
    assert data.class_names == ("dog", "cow", "cat")
    assert data.records[0].labels.tolist() == [0, 2]
    assert not data.problems


def test_a_class_outside_of_the_given_is_a_problem_that_names_both_lists(folder: Path) -> None:
    data = read_voc(folder, split="train", class_names=("dog", "cow"))
    (problem,) = data.problems
    assert problem.kind == "unknown class"
    for word in ("'cat'", "1 boxes", "dog, cow", "ant, cat, dog"):
        assert word in problem.message
    assert boxes(data) == [[[1, 2, 3, 4]], []]


def test_fields_and_their_defaults(tmp_path: Path) -> None:
    part = f"<part><name>head</name>{BOX.format(0, 0, 1, 1)}</part>"
    write_xml(
        tmp_path / "Annotations/a.xml",
        thing("person", (1.5, 2.25, 3, "4e1"), f"<difficult>1</difficult><truncated>1</truncated>{part}"),
        thing("person", (5, 6, 7, 8), "<truncated>Unspecified</truncated>"),
        thing(" person ", (5, 6, 7, 8), "<difficult>0</difficult><truncated></truncated>"),
    )
    data = read_voc(tmp_path)
    (record,) = data.records
    assert record.boxes.tolist() == [[1.5, 2.25, 3, 40], [5, 6, 7, 8], [5, 6, 7, 8]]  # the object's own, no 1 taken off
    assert record.difficult.tolist() == [True, False, False]
    assert record.truncated.tolist() == [True, False, False]
    assert not record.crowd.any()
    assert record.size == (0, 0)
    assert data.class_names == ("person",)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("<size><width>0</width><height>0</height></size>", (0, 0)),
        ("<size><width>20.0</width><height>10.0</height></size>", (10, 20)),
        ("<size><width>wide</width></size>", (0, 0)),
    ],
)
def test_sizes(tmp_path: Path, size: str, expected: tuple[int, int]) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", (1, 1, 2, 2)), size=size)
    assert read_voc(tmp_path).records[0].size == expected


@pytest.mark.parametrize("flag", ["difficult", "truncated"])
def test_flags_that_are_clear(tmp_path: Path, flag: str) -> None:
    said = {"1": True, " True ": True, "yes": True, "1.0": True, "0": False, "no": False, "FALSE": False, "": False}
    things = [thing("x", (1, 2, 3, 4), f"<{flag}>{text}</{flag}>") for text in said]
    write_xml(tmp_path / "Annotations/a.xml", *things)
    (record,) = read_voc(tmp_path).records
    assert getattr(record, flag).tolist() == list(said.values())


@pytest.mark.parametrize("flag", ["difficult", "truncated"])
def test_flags_that_are_not_clear(tmp_path: Path, flag: str) -> None:
    """The image is left out: the object could be one or the other."""
    texts = ["2", "maybe", "5\u00a0", "nan", "-1", "0 1", "\uff11"]
    for place, text in enumerate(texts):
        write_xml(tmp_path / f"Annotations/{place}.xml", thing("x", (1, 2, 3, 4), f"<{flag}>{text}</{flag}>"))
    write_xml(tmp_path / "Annotations/sound.xml", thing("x", (1, 2, 3, 4)))
    data = read_voc(tmp_path)
    assert [problem.where for problem in data.problems] == [
        str(tmp_path / f"Annotations/{place}.xml") for place in range(len(texts))
    ]
    for problem in data.problems:
        assert problem.kind == "broken annotation"
        assert problem.message.startswith(f"object 1 (x): {flag} is ")
    assert [record.name for record in data.records] == ["sound"]
    assert data.left_out == ("broken annotation",) * len(texts)


@pytest.mark.parametrize("side", ["1_0", "0x10", "1,5", "", "\uff11", "true"])
def test_numbers_that_are_not_clear(tmp_path: Path, side: str) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", (side, 2, 3, 4)))
    (problem,) = read_voc(tmp_path).problems
    assert "object 1 (x): xmin is " in problem.message


def test_a_class_name_of_two_lines(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("a\nb", (1, 2, 3, 4)))
    (problem,) = read_voc(tmp_path).problems
    assert "control character (U+000A)" in problem.message


@pytest.mark.parametrize(
    ("declared", "encoding", "name", "said"),
    [
        ("GBK", "gbk", "安全帽", None),
        ("utf8", "utf-8", "Tür", None),
        ("Shift_JIS", "shift_jis", "帽子", None),
        ("latin-1", "latin-1", "Tür", None),
        (None, "utf-8", "Tür", None),
        (None, "gbk", "安全帽", "is no utf-8 text, and the file declares no other"),
        (None, "latin-1", "Tür", "the byte 0xFC is no utf-8 text"),
        ("GBK", "latin-1", "Tü", "is no gbk text, and the file declares this encoding"),
        ("punycode", "utf-8", "Tur", "cannot be read; save the file as UTF-8"),
        ("klingon", "utf-8", "Tur", "'klingon' is unknown"),
    ],
)
def test_encodings(tmp_path: Path, declared: str | None, encoding: str, name: str, said: str | None) -> None:
    first = f"<?xml version='1.0' encoding='{declared}'?>\n" if declared else "\n"
    path = tmp_path / "a.xml"
    path.write_bytes(f"{first}<annotation>{thing(name, (1, 2, 3, 4))}</annotation>".encode(encoding))
    found = parse(str(path), 0, 0)
    if said is None:
        assert isinstance(found, Annotation)
        assert found.names == (name,)
    else:
        assert isinstance(found, Problem)
        assert said in found.message
        if "byte 0x" in said:
            assert found.where == f"{path}:2"


def test_rotated_boxes_are_named(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", "<object><name>ship</name><robndbox><cx>60</cx></robndbox></object>")
    (problem,) = read_voc(tmp_path).problems
    assert "rotated box" in problem.message


def test_a_small_file_takes_little(tmp_path: Path) -> None:
    """However deep it is, and however long its texts are."""
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>")
    assert parse(str(path), 0, 0) == Annotation(str(path), "", (0, 0), (), (), (), ())
    long = "1" * 2_000_000
    path.write_text(f"<annotation>{thing('x', (long, 2, 3, long))}</annotation>")
    found = parse(str(path), 1, 0)
    assert isinstance(found, Annotation)
    assert found.boxes[0][0] == float("inf")
    path.write_text(f"<annotation>{thing('x', (f'x{long}', 2, 3, 4))}</annotation>")
    wrong = parse(str(path), 2, 0)
    assert isinstance(wrong, Problem)
    assert len(wrong.message) < 200


def test_names_cannot_lead_out_of_the_data(tmp_path: Path) -> None:
    """Of the names in lists and XML files only the last part counts."""
    write_xml(tmp_path / "out/a.xml", thing("x", (1, 2, 3, 4)))
    (tmp_path / "out/a.jpg").write_bytes(b"")
    write_xml(tmp_path / "data/Annotations/b.xml", "<filename>../../out/a.jpg</filename><path>/etc/passwd</path>")
    write_xml(tmp_path / "data/Annotations/c.xml")
    (tmp_path / "data/ImageSets/Main").mkdir(parents=True)
    names = ["../../out/a.jpg", "../../out/d", f"{tmp_path}/out/e", "..", "b", "/etc/passwd", "c"]
    (tmp_path / "data/ImageSets/Main/train.txt").write_text("\n".join(names))
    data = read_voc(tmp_path / "data")
    assert len(data.records) == len(names)
    assert not any(".." in record.path.parts for record in data.records)
    assert all(record.path.is_relative_to(tmp_path / "data") for record in data.records)
    assert not any(record.path.exists() for record in data.records)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", (1, 2, 3, 4)))
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\0c\nd\x1b[2J\n")
    data = read_voc(tmp_path, split="train")
    assert [record.name for record in data.records] == ["a"]
    assert ["U+0000" in problem.message for problem in data.problems] == [True, False]


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", (1, 2, 3, 4)))
    for folder in (tmp_path, tmp_path / "Annotations"):
        (folder / "round").symlink_to("..")
    (tmp_path / "Annotations" / "JPEGImages").symlink_to("JPEGImages")
    (tmp_path / "loop.xml").symlink_to("loop.xml")
    assert [record.name for record in read_voc(tmp_path).records] == ["a"]
    assert [record.name for record in open_dataset(tmp_path).records] == ["a"]  # all formats are asked
    (tmp_path / "Annotations" / "loop.xml").symlink_to("loop.xml")
    data = open_dataset(tmp_path, strict=False)
    assert [record.name for record in data.records] == ["a"]
    assert [problem.where for problem in data.problems] == [str(tmp_path / "Annotations" / "loop.xml")]
    (tmp_path / "JPEGImages").symlink_to("JPEGImages")
    with pytest.raises(UserError, match="JPEGImages: this is a link that leads back to itself, expected a folder"):
        open_dataset(tmp_path, strict=False)
    with pytest.raises(UserError, match="no such file"):
        read_voc(tmp_path / "loop.xml")


def test_nan_infinite_and_inverted_boxes_are_left_to_the_check(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", ("nan", 1, "inf", 2)), thing("x", (9, 9, 1, 1)))
    data = read_voc(tmp_path)
    assert not data.problems
    np.testing.assert_array_equal(data.records[0].boxes, [[np.nan, 1, np.inf, 2], [9, 9, 1, 1]])


def test_without_lists_all_images_are_one_split(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/b.xml", thing("x", (1, 1, 2, 2)))
    write_xml(tmp_path / "Annotations/other.xml", thing("x", (1, 1, 2, 2)), filename="named.png")
    touch(tmp_path / "JPEGImages/b.jpg", tmp_path / "JPEGImages/alone.jpg", tmp_path / "JPEGImages/named.png")
    data = read_voc(tmp_path)
    assert data.splits == ("all",)
    assert [record.name for record in data.records] == ["alone", "b", "other"]
    assert [record.annotated for record in data.records] == [False, True, True]
    assert data.records[2].path.name == "named.png"


def test_the_stem_counts_before_the_filename(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", filename="b.jpg")
    write_xml(tmp_path / "Annotations/b.xml", filename=r"C:\pictures\b.PNG")
    touch(*(tmp_path / "JPEGImages" / name for name in ("a.jpg", "b.jpg", "b.PNG")))
    assert [record.path.name for record in read_voc(tmp_path).records] == ["a.jpg", "b.PNG"]


def test_an_image_that_is_not_there_is_left_to_the_check(folder: Path) -> None:
    (folder / "JPEGImages" / "c.jpg").unlink()
    data = read_voc(folder, split="val")
    assert data.records[0].path == folder / "JPEGImages" / "c.jpg"
    assert not data.problems


def test_xml_beside_the_images(tmp_path: Path) -> None:
    write_xml(tmp_path / "Annotations/a.xml", thing("x", (1, 1, 2, 2)))
    write_xml(tmp_path / "JPEGImages/b.xml", thing("y", (1, 1, 2, 2)))
    touch(tmp_path / "JPEGImages/a.jpg", tmp_path / "JPEGImages/b.jpg")
    assert len(read_voc(tmp_path)) == 2
    flat = tmp_path / "flat"
    write_xml(flat / "a.xml", thing("x", (1, 1, 2, 2)))
    touch(flat / "a.png")
    assert read_voc(flat).records[0].path == flat / "a.png"


def test_folders_of_splits_share_their_classes(tmp_path: Path) -> None:
    for name, kind in (("train", "x"), ("valid", "y")):
        write_xml(tmp_path / name / "a.xml", thing(kind, (1, 1, 2, 2)))
        touch(tmp_path / name / "a.jpg")
    assert find_splits(tmp_path) == ("train", "valid")
    data = read_voc(tmp_path, split="val")
    assert (data.split, data.class_names) == ("valid", ("x", "y"))


@pytest.fixture
def years(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit"
    for year, kind in (("VOC2007", "dog"), ("VOC2012", "cat")):
        write_xml(root / year / "Annotations/000001.xml", thing(kind, (1, 1, 2, 2)))
        touch(root / year / "JPEGImages/000001.jpg")
        write_splits(root / year, trainval="000001\n", **{f"{kind}_trainval": "000001 1\n"})
    return root


def test_years(years: Path) -> None:
    assert find_splits(years) == ("VOC2007:trainval", "VOC2012:trainval")
    assert find_splits(years.parent) == find_splits(years)  # the folder that the archives are unpacked in
    data = read_voc(years, split="VOC2007:trainval")
    assert (data.class_names, data.records[0].id) == (("dog",), "000001")


def test_years_are_joined_with_ids_of_their_own(years: Path) -> None:
    data = read_voc(years, split="VOC2007:trainval+VOC2012:trainval")
    assert data.split == "VOC2007:trainval+VOC2012:trainval"
    assert data.class_names == ("cat", "dog")
    assert [record.id for record in data.records] == ["VOC2007/000001", "VOC2012/000001"]
    assert [record.name for record in data.records] == ["000001", "000001"]
    assert [record.path.parts[-3] for record in data.records] == ["VOC2007", "VOC2012"]
    assert [record.labels.tolist() for record in data.records] == [[1], [0]]


def test_splits_of_one_folder_are_joined(folder: Path) -> None:
    assert [record.id for record in read_voc(folder, split="val+train").records] == ["c", "a", "b"]
    with pytest.raises(UserError, match="twice"):
        read_voc(folder, split="val+val")


def test_an_image_listed_twice_is_a_problem(folder: Path) -> None:
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    data = read_voc(folder, split="train")
    assert [record.id for record in data.records] == ["a", "b"]
    assert [(problem.kind, "'a'" in problem.message) for problem in data.problems] == [("duplicate image id", True)]


def test_lists_with_endings_folders_and_names_with_spaces(tmp_path: Path) -> None:
    for stem in ("a", "b.c", "my dog 1"):
        write_xml(tmp_path / f"Annotations/{stem}.xml", thing("x", (1, 1, 2, 2)))
        touch(tmp_path / f"JPEGImages/{stem}.jpg")
    write_splits(tmp_path, train="\ufeffJPEGImages/a.jpg 1\n\n  b.c \r\nmy dog 1\n")
    data = read_voc(tmp_path, split="train")
    assert [record.name for record in data.records] == ["a", "b.c", "my dog 1"]
    assert all(record.annotated for record in data.records)


def test_wrong_and_empty_splits_and_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'test'.*train, val"):
        read_voc(folder, split="test")
    with pytest.raises(UserError, match=r"has several splits: train, val\. Choose one with --split"):
        read_voc(folder)
    assert read_voc(folder, prefer=("test", "val", "train")).split == "val"
    (folder / "ImageSets/Main/empty.txt").write_text("\n")
    with pytest.raises(UserError, match="'empty' is empty"):
        read_voc(folder, split="empty")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"no VOC data in this folder; expected a Pascal VOC folder"):
        read_voc(tmp_path / "nothing")


def test_a_test_server_has_images_and_no_xml(tmp_path: Path) -> None:
    touch(tmp_path / "JPEGImages/a.jpg")
    write_splits(tmp_path, test="a\n")
    data = read_voc(tmp_path)
    assert [record.annotated for record in data.records] == [False]
    assert data.records[0].boxes.shape == (0, 4)


def test_bad_files_are_problems_with_file_and_line_and_the_rest_is_read(tmp_path: Path) -> None:
    target = tmp_path / "secret.txt"
    target.write_text("secret")
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(9))
    files = {
        "broken": "<annotation>\n<object>\n<name>dog</nam></object></annotation>",
        "empty": "",
        "bomb": f"<!DOCTYPE a [{laughs}]><annotation><filename>&l8;</filename></annotation>",
        "external": f'<!DOCTYPE a [<!ENTITY x SYSTEM "{target}">]><annotation><filename>&x;</filename></annotation>',
        "foreign": "<annotations><image/></annotations>",
        "no_box": "<annotation><object><name>dog</name></object></annotation>",
        "no_name": f"<annotation><object>{BOX.format(1, 2, 3, 4)}</object></annotation>",
        "words": f"<annotation>{thing('dog', ('left', 2, 3, 4))}</annotation>",
        "encoding": "<?xml version='1.0' encoding='klingon'?><annotation/>",
    }
    write_xml(tmp_path / "Annotations/sound.xml", thing("dog", (1, 1, 2, 2)))
    for name, text in files.items():
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    data = read_voc(tmp_path)
    assert [record.name for record in data.records] == ["sound"]
    assert {problem.kind for problem in data.problems} == {"broken annotation"}
    said = {Path(problem.where.partition(".xml")[0]).name: str(problem) for problem in data.problems}
    assert said.keys() == files.keys()
    assert "broken.xml:3" in said["broken"]
    assert "line 3" in said["broken"]
    assert "entities" in said["bomb"]
    assert "entities" in said["external"]
    assert "<annotations>" in said["foreign"]
    assert "object 1 (dog) has no bndbox" in said["no_box"]
    assert "no name" in said["no_name"]
    assert "xmin is 'left'" in said["words"]


def test_a_bomb_in_utf_16_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'
    path.write_bytes(text.encode("utf-16"))
    assert "entities" in str(parse(str(path), 0, 0))
    path.write_bytes(text.replace('<!DOCTYPE a [<!ENTITY x "y">]>', "").replace("&x;", "").encode("utf-16"))
    assert isinstance(parse(str(path), 1, 0), Annotation)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    assert len(read_voc(folder, split="val").records[0].labels) == 1
    write_xml(folder / "Annotations/c.xml", thing("ant", (1, 1, 2, 2)), thing("bee", (1, 1, 2, 2)))
    assert len(read_voc(folder, split="val").records[0].labels) == 2


def test_what_is_no_voc_folder(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.jpg")
    (tmp_path / "annotations.xml").write_text("<?xml version='1.0'?><!-- CVAT --><annotations/>")
    assert find_parts(tmp_path) == []


def test_real_folders(shared: Path) -> None:
    counts = {
        ("bccd", "train"): (205, 2805),
        ("bccd", "val"): (87, 1138),
        ("chess", "train"): (202, 2108),
        ("chess", "val"): (58, 386),
        ("neu_det", "trainval"): (1620, 3760),
        ("voc_zero_size", "all"): (12, 15),
    }
    for (name, split), expected in counts.items():
        data = read_voc(shared / name, split=split)
        assert (len(data), sum(len(record.labels) for record in data.records)) == expected
        assert all(record.annotated and record.path.is_file() for record in data.records)
        assert not data.problems
    assert len(read_voc(shared / "chess", split="val").class_names) == 12


def test_one_truth_in_two_layouts(shared: Path) -> None:
    folder = shared / "metrics" / "padilla_review" / "data" / "database" / "gts"
    one, other = read_voc(folder / "imagenet_format"), read_voc(folder / "pascalvoc_format")
    assert one.class_names == other.class_names
    found = {record.name: record for record in other.records}
    assert len(one) == len(other) == 100
    assert sum(len(record.labels) for record in one.records) == sum(len(found[r.name].labels) for r in one.records)
