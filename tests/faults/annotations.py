"""Mutated annotation files: COCO's JSON, Pascal VOC's XML, lists of images. Read, checked and evaluated."""

from __future__ import annotations

import json
import random
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from faults.answers import answer
from faults.kinds import Case, Kind
from faults.trees import TEXTS, damage_text, damage_tree, to_json
from PIL import Image

from singleshot.data.check import examine
from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.data.open import open_dataset
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import evaluate

WIDTH, HEIGHT, IMAGES = 60, 40, 4
JSON_WORDS = (
    "NaN", "null", "1e999", "[", "]", "{", "}", ",", ":", '"', "\\", '"bbox":', '"iscrowd": "0",', "//", "/*", "'",
    "\x00", '"\\ud800"', "\ufeff", "-", "9" * 5_000, "[" * 1_000, '{"a":' * 1_000, "true", "\\u0000", "\n", "\t",
    '"id": 1,',
)  # fmt: skip
XML_WORDS = (
    "<", ">", "&", "]]>", "<![CDATA[", "<!--", "-->", "&#0;", "&#x1b;", "&lol;", "<object>", "</object>", "<name>",
    '<!DOCTYPE a [<!ENTITY b "c">]>', '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', "<?xml version='1.0'?>",
    '<?xml version="1.0" encoding="gbk"?>', '<?xml version="1.0" encoding="utf8"?>', '<?xml encoding="rot13"?>',
    "<?x y?>", "<a>" * 1_000, "<bndbox>", "<xmin>1</xmin>", 'xmlns="http://x"', "\x00", "\ufeff", "nan", "-1", "1e999",
)  # fmt: skip
LIST_WORDS = ("a", " 1", " -1", " 0", "../a", "/etc/passwd", "\x00", "#", " ", "\t", "é", "\n", "a b c", "x" * 10_000)

Objects = list[tuple[str, list[int], bool]]


def _objects(number: int) -> Objects:
    return [("cell", [3 + number, 4, 20, 18], False), ("other", [30, 10 + number, 25, 12], number == 1)]


def coco() -> dict[str, Any]:
    """A good COCO file of `IMAGES` images with two objects each."""
    images = [{"id": k, "file_name": f"{k}.png", "width": WIDTH, "height": HEIGHT} for k in range(1, IMAGES + 1)]
    categories = [{"id": 1, "name": "cell", "supercategory": "none"}, {"id": 2, "name": "other"}]
    annotations: list[dict[str, Any]] = []
    for image in range(1, IMAGES + 1):
        for name, (x, y, w, h), crowd in _objects(image):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": {"cell": 1, "other": 2}[name],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(crowd),
                    "segmentation": [[x, y, x + w, y, x + w, y + h]],
                }
            )
    return {"info": {"year": 2000}, "images": images, "annotations": annotations, "categories": categories}


def voc(number: int) -> ElementTree.Element:
    """A good annotation of one image."""
    root = ElementTree.Element("annotation")
    for tag, text in (("folder", "x"), ("filename", f"{number}.png"), ("segmented", "0")):
        ElementTree.SubElement(root, tag).text = text
    size = ElementTree.SubElement(root, "size")
    for tag, side in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(side)
    for name, (x, y, w, h), difficult in _objects(number):
        found = ElementTree.SubElement(root, "object")
        fields = (("name", name), ("pose", "Left"), ("truncated", "0"), ("difficult", str(int(difficult))))
        for tag, text in fields:
            ElementTree.SubElement(found, tag).text = text
        box = ElementTree.SubElement(found, "bndbox")
        for tag, side in (("xmin", x), ("ymin", y), ("xmax", x + w), ("ymax", y + h)):
            ElementTree.SubElement(box, tag).text = str(side)
    return root


def _damage_xml(chance: random.Random, root: ElementTree.Element) -> tuple[str, str]:
    nodes = list(root.iter())
    parent = chance.choice([node for node in nodes if len(node)])
    child = chance.choice(list(parent))
    what = chance.choice(("text", "text", "text", "leave out", "twice", "tag", "move", "many", "attribute", "deep"))
    told = ""
    if what == "text":
        child.text = told = chance.choice(TEXTS)
    elif what == "leave out":
        parent.remove(child)
    elif what == "twice":
        parent.append(child)
    elif what == "tag":
        child.tag = told = chance.choice((child.tag.upper(), "robndbox", "polygon", "part", "bndbox", "object", "name"))
    elif what == "move":
        chance.choice([node for node in nodes if node is not child and child not in list(node)]).append(
            ElementTree.fromstring(ElementTree.tostring(child))
        )
    elif what == "many":
        for _ in range(chance.choice((3, 300))):
            parent.append(child)
    elif what == "attribute":
        child.set("type", chance.choice(TEXTS))
    else:
        parent.append(_nested(chance.choice((20, 400))))
    text = ElementTree.tostring(root, encoding="unicode")
    return f"{what} of {child.tag} {told!r:.60}", text


def _nested(levels: int) -> ElementTree.Element:
    top = node = ElementTree.Element("object")
    for _ in range(levels):
        node = ElementTree.SubElement(node, "object")
    return top


def make(rng: np.random.Generator, number: int) -> Case:
    """Nearly half COCO, nearly half VOC, some lists of names."""
    chance = random.Random(int(rng.integers(2**62)))
    which = chance.choice(("coco",) * 9 + ("voc",) * 9 + ("list",) * 2)
    place: Any = None
    if which == "list":
        name = "voc/ImageSets/Main/train.txt"
        what, content = damage_text(chance, "".join(f"{k}\n" for k in range(1, IMAGES + 1)), LIST_WORDS)
    elif which == "coco":
        name = "coco/annotations/instances_train.json"
        what, tree, place = damage_tree(chance, coco())
        text = to_json(tree)
        if chance.random() < 0.4:
            (what, content), place = damage_text(chance, json.dumps(coco()), JSON_WORDS), None
        else:
            content = text.encode("utf-8", "surrogatepass")
    else:
        image = chance.randint(1, IMAGES)
        name, place = f"voc/Annotations/{image}.xml", image
        what, text = _damage_xml(chance, voc(image))
        content = text.encode("utf-8", "surrogatepass")
        if chance.random() < 0.4:
            what, content = damage_text(chance, ElementTree.tostring(voc(image), encoding="unicode"), XML_WORDS)
    return Case(f"{which}: {what}", content, name=Path(name).name, plan=(which, name, place))


def prepare(folder: Path) -> dict[str, Any]:
    """Good datasets, and what is read from them."""
    for kind, images in (("voc", "JPEGImages"), ("coco", "train")):
        (folder / kind / images).mkdir(parents=True)
        for number in range(1, IMAGES + 1):
            Image.new("RGB", (WIDTH, HEIGHT), (number * 20, 9, 9)).save(folder / kind / images / f"{number}.png")
    (folder / "voc" / "Annotations").mkdir()
    for number in range(1, IMAGES + 1):
        text = ElementTree.tostring(voc(number), encoding="unicode")
        (folder / "voc" / "Annotations" / f"{number}.xml").write_text(text)
    (folder / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "voc" / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{k}\n" for k in range(1, IMAGES + 1)))
    (folder / "coco" / "annotations").mkdir()
    (folder / "coco" / "annotations" / "instances_train.json").write_text(json.dumps(coco()))
    good = {name: _by_name(open_dataset(folder / name)) for name in ("voc", "coco")}
    assert all(len(records) == IMAGES for records in good.values())
    return {"folder": folder, "good": good}


def _by_name(dataset: Dataset) -> dict[str, ImageRecord]:
    return {Path(record.name).stem: record for record in dataset.records}


def check(case: Case, shared: Any, folder: Path) -> None:
    """Read the file as one of its dataset, and look at what was accepted."""
    which, name, place = case.plan
    root = folder / "data"
    shutil.copytree(shared["folder"] / Path(name).parts[0], root)
    target = root.joinpath(*Path(name).parts[1:])
    target.write_bytes(case.content)
    strict = answer(lambda: open_dataset(root), names=str(root))
    dataset = answer(lambda: open_dataset(root, strict=False), names=str(root))
    if dataset is None:
        assert strict is None, "strict=False refuses what is taken otherwise"
        return
    if strict is not None:
        assert not dataset.problems, "problems that strict=True does not see"
        _sound(strict, root)
    _sound(dataset, root, finite=False)  # the check finds such boxes
    _others_as_before(dataset, shared["good"][Path(name).parts[0]], which, place)
    report = answer(lambda: examine(dataset, cache=False, workers=1), names=str(root))
    if report is not None:
        _sound(report[0], root)
        answer(lambda: report[1].text())
        json.dumps(report[1].to_json())
    if strict is not None:
        found = [_perfect(record) for record in strict.records]
        metrics = answer(lambda: evaluate(strict, found))
        if metrics is not None:
            json.dumps(metrics.to_json(), allow_nan=False)


def _sound(dataset: Dataset, root: Path, *, finite: bool = True) -> None:
    """Whether all that was accepted can be true."""
    assert len(set(dataset.class_names)) == len(dataset.class_names)
    for record in dataset.records:
        number = len(record.labels)
        assert record.boxes.shape == (number, 4)
        assert len(record.areas) == len(record.crowd) == len(record.difficult) == number
        assert ((record.labels >= 0) & (record.labels < len(dataset.class_names))).all()
        if finite:
            assert np.isfinite(record.boxes).all(), record.boxes
            assert np.isfinite(record.areas).all(), record.areas
            assert (record.areas >= 0).all() or (record.boxes[:, 2:] < record.boxes[:, :2]).any(), record.areas
        assert root in (record.path, *record.path.parents), record.path
        assert ".." not in record.path.parts, record.path
    for text in (*dataset.class_names, *(record.name for record in dataset.records)):
        assert text, "an empty name"
        text.encode()


def _others_as_before(dataset: Dataset, good: dict[str, ImageRecord], which: str, place: Any) -> None:
    """Whether the objects of images that have nothing to do with the damage are as before."""
    if which == "voc":
        spared = {name for name in good if name != str(place)}
    elif which == "coco" and place and place[0] == "annotations" and len(place) > 2 and place[2] != "image_id":
        spared = {name for name in good if name != str(place[1] // 2 + 1)}
    else:
        return
    found = _by_name(dataset)
    for name in spared & found.keys():
        assert np.array_equal(found[name].boxes, good[name].boxes), f"the boxes of {name} are others now"
        assert np.array_equal(found[name].crowd, good[name].crowd)
    if which == "voc":
        assert spared <= found.keys(), f"{spared - found.keys()} is lost with {place}"


def _perfect(record: ImageRecord) -> ImageDetections:
    scores = np.linspace(0.9, 0.1, len(record.labels))
    return ImageDetections(boxes=record.boxes, scores=scores, labels=record.labels)


KIND = Kind(
    "annotations (COCO, VOC, lists) with one thing changed are read, checked and evaluated, or refused with a message",
    make,
    check,
    cases=10_000,
    fast=60,
    prepare=prepare,
    seconds=20,
    memory=300,
)
