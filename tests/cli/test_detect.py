"""`singleshot detect`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from singleshot.cli import main
from singleshot.inference import predictor

Capture = pytest.CaptureFixture[str]


def test_json(tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    names = [str(tiny_voc / "JPEGImages" / f"{name}.jpg") for name in "eb"]
    assert main(["detect", str(tiny_model), *names, "--threshold", "0", "--top-k", "3", "--json"]) == 0
    out, _ = capsys.readouterr()
    document = json.loads(out)
    assert [entry["image"] for entry in document] == names
    for entry in document:
        assert (entry["width"], entry["height"]) == (96, 72)
        assert len(entry["detections"]) <= 3
        for found in entry["detections"]:
            assert list(found) == ["box", "score", "label", "name", "category_id"]
            assert found["name"] == ("cell", "other")[found["label"]]


def test_pictures(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["detect", str(tiny_model), str(tiny_voc / "JPEGImages"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {*(f"{n}.jpg" for n in "abcdef"), "detections.json", ".detections"}
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 7
    assert str(out) in said[-1]
    words = ["detect", str(tiny_model), str(tiny_voc / "JPEGImages" / "b.jpg"), "--out", str(out)]
    assert main(words) == 2
    assert "detections.json exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == {"b.jpg", "detections.json", ".detections"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(tiny_voc / "JPEGImages" / "a.jpg", image)
    out = tmp_path / "out"
    assert main(["detect", str(tiny_model), str(image), "--threshold", "0", "--out", str(out)]) == 0
    assert (out / image.name).is_file()
    entries = json.loads((out / "detections.json").read_text(encoding="utf-8"))
    assert {entry["image_id"] for entry in entries} == {image.stem}


def test_a_name_cannot_add_a_line(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    image = tmp_path / "x.jpg\nb.jpg: 3 cell"
    shutil.copy(tiny_voc / "JPEGImages" / "a.jpg", image.with_name(f"{image.name}.jpg"))
    assert main(["detect", str(tiny_model), str(tmp_path), "--threshold", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("x.jpg\\nb.jpg: 3 cell.jpg: nothing")


def test_one_class(tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    image = str(tiny_voc / "JPEGImages" / "a.jpg")
    assert main(["detect", str(tiny_model), image, "--threshold", "0", "--json", "--classes", "other"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert {found["name"] for found in entry["detections"]} <= {"other"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.jpg"], "nowhere.jpg"),
        (["none/*.png"], "none/*.png"),
        (["IMAGE", "--classes", "dog"], "dog"),
        (["IMAGE", "--out", "IMAGE/sub"], "a.jpg"),
    ],
)
def test_bad_input(words: list[str], said: str, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    image = str(tiny_voc / "JPEGImages" / "a.jpg")
    assert main(["detect", str(tiny_model), *(word.replace("IMAGE", image) for word in words), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_the_image_in_the_place_of_the_model(tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    assert main(["detect", str(tiny_voc / "JPEGImages" / "a.jpg"), str(tiny_model)]) == 2
    assert capsys.readouterr().err.endswith("a.jpg is an image, but MODEL comes first, such as RUN/best.safetensors\n")


def test_broken_image(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(tiny_voc / "JPEGImages" / "a.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("no image")
    assert main(["detect", str(tiny_model), str(tmp_path), "--json"]) == 2
    assert "b.jpg" in capsys.readouterr().err
    assert main(["detect", str(tiny_model), str(tmp_path), "--json", "--skip-bad"]) == 0
    assert [entry["image"] for entry in json.loads(capsys.readouterr().out)] == [str(tmp_path / "a.jpg")]


def test_the_partial_results_are_said(
    tiny_model: Path, tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    for name in ("a.jpg", "c.jpg"):
        shutil.copy(tiny_voc / "JPEGImages" / "a.jpg", tmp_path / name)
    command = ["detect", str(tiny_model), *(str(tmp_path / name) for name in ("a.jpg", "c.jpg", "b.jpg"))]
    (tmp_path / "b.jpg").write_text("no image")
    assert main([*command, "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    where = f"what was found so far is in {out / 'detections.partial.json'}"
    assert [lines[-2], lines[-1]] == [
        "--skip-bad (in Python skip_bad=True) leaves out images that cannot be read",
        f"{where} (2 images)",
    ]
    draw, drawn = predictor.draw, []

    def interrupted(*given: Any) -> Any:
        drawn.append(given)
        if len(drawn) > 1:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(predictor, "draw", interrupted)
    assert main([*command, "--out", str(out), "--overwrite", "--skip-bad"]) == 130
    assert capsys.readouterr().err.endswith(f"\ninterrupted; {where} (1 image)\n")


def test_own_builder(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A builder is found in the folder where the command is given."""
    import sys

    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "models.py").write_text(
        "import singleshot\nfrom singleshot.detectors import remembers_arguments\n\n"
        "@remembers_arguments\ndef my_detector(*, num_classes, class_names=None, category_ids=None):\n"
        "    return singleshot.ssd(num_classes=num_classes, class_names=class_names, category_ids=category_ids,\n"
        "                          backbone='mobilenetv2', image_size=64)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    from singleshot import save
    from singleshot.cli.model import allow_local_imports
    from singleshot.detectors import find_builder

    allow_local_imports()
    save(find_builder("my_lab.models:my_detector")(num_classes=2), "mine.safetensors")
    image = str(tiny_voc / "JPEGImages" / "a.jpg")
    assert main(["detect", "mine.safetensors", image]) == 2
    assert "my_detector" in capsys.readouterr().err
    assert main(["detect", "mine.safetensors", image, "--builder", "my_lab.models:my_detector"]) == 0
