"""The table of formats, and a format that is one file and one line in it."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import singleshot
from singleshot.cli import main
from singleshot.data.formats import FORMATS, load
from singleshot.data.formats.format import Format
from singleshot.data.open import find_splits, open_dataset
from singleshot.errors import UserError
from singleshot.evaluation.detections import ImageDetections, read_detections, save_detections
from singleshot.evaluation.metrics import evaluate

Capture = pytest.CaptureFixture[str]
SOURCES = Path(singleshot.__file__).parent


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that registers tests/toy_format.py."""
    monkeypatch.setitem(FORMATS, "toy", "toy_format")


@pytest.fixture
def data(tmp_path: Path, toy: None) -> Path:
    """Splits train (4 images) and val (2): one red and one green square in each image."""
    root = tmp_path / "data"
    root.mkdir()
    random = np.random.default_rng(0)
    for split, names in {"train": ("a", "b", "c.d", "e"), "val": ("f", "g")}.items():
        lines = []
        for name in names:
            pixels = random.integers(0, 60, (72, 96, 3), np.uint8)
            for kind, left, colour in (("red", 8, (200, 40, 40)), ("green", 52, (40, 200, 40))):
                pixels[20:52, left : left + 32] = colour
                lines.append(f"{name}.png {kind} {left} 20 {left + 32} 52\n")
            Image.fromarray(pixels).save(root / f"{name}.png")
        (root / f"{split}.toy").write_text("".join(lines))
    return root


def test_the_table_is_listed(toy: None, capsys: Capture) -> None:
    assert main(["data", "formats", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(listed) == ["voc", "coco", "toy"]
    for name, facts in listed.items():
        one = load(name)
        assert set(facts) == {"name", "reads", "writes", "looks_like", "holds"}
        assert facts["reads"] is (one.read is not None) is True
        assert facts["writes"] is (one.write is not None)
    assert listed["toy"]["looks_like"] == "a folder with SPLIT.toy files"
    assert listed["toy"]["writes"] is False
    assert "difficult" in listed["voc"]["holds"]
    assert main(["data", "formats"]) == 0
    assert "toy  (read)\n  looks like  a folder with SPLIT.toy files\n  holds       boxes" in capsys.readouterr().out


def test_the_page_lists_the_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [(name, load(name).looks_like, ", ".join(load(name).holds)) for name in FORMATS]


def test_a_toy_dataset_is_opened(data: Path) -> None:
    assert find_splits(data) == ("train", "val")
    train = open_dataset(data, split="train")
    assert (train.format, train.split, train.splits) == ("toy", "train", ("train", "val"))
    assert (train.class_names, train.category_ids, train.own_ids) == (("green", "red"), (1, 2), False)
    assert [record.id for record in train.records] == ["a.png", "b.png", "c.d.png", "e.png"]
    assert train.records[2].labels.tolist() == [1, 0]
    assert train.records[2].boxes.tolist() == [[8, 20, 40, 52], [52, 20, 84, 52]]
    assert train.records[2].areas.tolist() == [32 * 32, 32 * 32]
    both = open_dataset(data, split="val+train")
    assert [record.name[0] for record in both.records] == ["f", "g", "a", "b", "c", "e"]
    (other,) = open_dataset(data, split="val", class_names=("red",), strict=False).problems
    assert "class 'green' (2 boxes) is not in the class list: expected red; the data has green, red" in str(other)


def test_check_and_show(data: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(data)]) == 0
    assert "(toy, split train): 4 images, 8 boxes; 0 errors" in capsys.readouterr().out
    sheet = data.parent / "sheet.png"
    assert main(["data", "show", str(data), "--out", str(sheet), "--format", "toy"]) == 0
    assert sheet.is_file()
    with (data / "train.toy").open("a") as file:
        file.write("a.png red 1 2 3\n")
    assert main(["data", "check", str(data), "--split", "train"]) == 2
    assert f"{data / 'train.toy'}:9: expected `image class x1 y1 x2 y2`" in capsys.readouterr().out


def test_train_and_evaluate(data: Path, tmp_path: Path, capsys: Capture) -> None:
    small = ["--arguments.backbone", "mobilenetv2", "--arguments.image_size", "64", "--schedule.steps", "1"]
    more = ["--batch-size", "2", "--data.workers", "0", "--compute.precision", "fp32"]
    run = tmp_path / "run"
    assert main(["train", str(data), "--format", "toy", "--out", str(run), *small, *more]) == 0
    capsys.readouterr()
    found = tmp_path / "found"
    words = ["evaluate", str(run / "last.safetensors"), str(data), "--json", "--save-detections", str(found)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "2 images of split 'val' (toy)" in err
    numbers = json.loads(out)
    assert set(numbers["per_class"]) == {"green", "red"}
    assert numbers["per_class"]["red"]["boxes"] == 2
    assert main(["evaluate", "--detections", str(found), str(data), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["voc10"] == pytest.approx(numbers["voc10"])


def test_images_are_named_in_files_of_detections(data: Path, tmp_path: Path) -> None:
    """By name, since they have no ids; in VOC's files by the name without its ending, of which `c.d` keeps a dot."""
    dataset = open_dataset(data, split="train")
    perfect = [ImageDetections(record.boxes, np.array([0.9, 0.8]), record.labels) for record in dataset.records]
    files = save_detections(tmp_path / "found", dataset, perfect)
    assert {entry["image_id"] for entry in json.loads(files[0].read_text())} == {"a.png", "b.png", "c.d.png", "e.png"}
    assert [line.split()[0] for line in files[1].read_text().splitlines()] == ["a", "b", "c.d", "e"]
    files[0].unlink()
    assert evaluate(dataset, read_detections(tmp_path / "found", dataset)).coco.numbers["AP"] == 1.0


def test_a_format_without_lists_is_not_divided(data: Path, capsys: Capture) -> None:
    (data / "val.toy").unlink()
    (data / "train.toy").rename(data / "all.toy")
    before = sorted(data.iterdir())
    assert main(["data", "split", str(data)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"singleshot: {data}: Toy has no lists of images, so this dataset cannot be divided")
    assert "formats that can be divided are: voc, coco" in message
    assert sorted(data.iterdir()) == before


def test_two_formats_that_claim_a_folder(data: Path, tiny_voc: Path) -> None:
    shutil.copytree(tiny_voc, data, dirs_exist_ok=True)
    both = r"two formats: VOC.*Annotations\) and Toy.*train.toy\).*--format voc or --format toy"
    with pytest.raises(UserError, match=both):
        open_dataset(data)
    assert open_dataset(data, split="train", format="toy").format == "toy"
    assert open_dataset(data, split="train", format="voc").format == "voc"
    with pytest.raises(UserError, match="no Toy data in this folder; expected a folder with SPLIT.toy files"):
        open_dataset(tiny_voc, format="toy")


def test_a_format_that_is_only_written(
    tiny_voc: Path, toy: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    written = Format("Toy", "nothing", (), find=lambda path: [], write=lambda dataset, out: None)
    monkeypatch.setattr("toy_format.FORMAT", written)
    assert open_dataset(tiny_voc, split="val").format == "voc"  # it is not asked
    with pytest.raises(UserError, match="'toy' can be written but not read"):
        open_dataset(tiny_voc, format="toy")
    assert main(["data", "formats", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)[-1]
    assert listed == {"name": "toy", "reads": False, "writes": True, "looks_like": "nothing", "holds": []}


def test_recipes_take_the_names_of_the_table(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", str(data), "--data.format", "yolo", "--out", str(tmp_path / "run")]) == 2
    assert "data.format is yolo; expected null or voc, coco, toy" in capsys.readouterr().err
    for verb in ("train", "evaluate", "data check", "data show", "data split", "analyse errors", "analyse iou"):
        assert main([*verb.split(), "--help"]) == 0
        assert "{voc,coco,toy}" in capsys.readouterr().out.replace("\n", "").replace(" ", "")


def test_nothing_asks_which_format_it_is() -> None:
    """A format touches its own file and the table: no other code compares `dataset.format` with anything."""
    # The format of an image file is another matter, a recipe looks its own one up in the table, and a benchmark asks
    # only whether one was given.
    allowed = {("data", "image.format"), ("training", "self.format"), ("benchmarking", "found.format")}
    asked = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare | ast.Match):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject]
                names = (
                    ast.unparse(side) for side in sides if isinstance(side, ast.Attribute) and side.attr == "format"
                )
                asked |= {(path.relative_to(SOURCES).parts[0], name) for name in names}
    assert asked == allowed, "let the dataset or the format carry the fact that is asked for"
