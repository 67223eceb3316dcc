"""`singleshot analyse errors`, `analyse loss` and `analyse iou`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from singleshot.cli import main
from singleshot.cli.analyse import _remember

Capture = pytest.CaptureFixture[str]


def test_errors_of_a_model_and_of_its_detections_in_files(
    tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["analyse", "errors", str(tiny_model), str(tiny_voc), "--device", "cpu", "--out", str(tmp_path / "new")]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 2
    assert [tally["name"] for tally in document["classes"]] == ["cell", "other"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["errors.json", "errors.png"]
    assert json.loads((tmp_path / "new" / "errors.json").read_text()) == document
    saved = ["--save-detections", str(tmp_path / "found")]
    assert main(["evaluate", str(tiny_model), str(tiny_voc), "--device", "cpu", *saved]) == 0
    capsys.readouterr()
    assert main(["analyse", "errors", "--detections", str(tmp_path / "found"), str(tiny_voc), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
    assert main(["analyse", "errors", str(tiny_model), str(tiny_voc), "--device", "cpu", "--min-score", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("AP50 ")
    assert "At scores of 0.000 or more" in said
    assert all(word in said for word in ("missed", "misplaced", "background", "up to "))


def test_loss(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["analyse", "loss", str(tiny_model), str(tiny_voc), "--device", "cpu", "--out", str(tmp_path / "new")]
    assert main([*words, "--gammas", "0,1.5", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert list(document) == ["link", "images", "positives", "negatives"]
    assert list(document["negatives"]["share_of_hardest"]) == ["0", "1.5"]
    assert "split 'val'" in err
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["loss.json", "loss.png"]
    assert json.loads((tmp_path / "new" / "loss.json").read_text()) == document
    assert main(words[:4]) == 0
    said = capsys.readouterr().out
    assert "softmax outputs" in said
    assert said.count("positive") == said.count("negative") == 4


def test_iou(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["analyse", "iou", str(tiny_model), str(tiny_voc), "--split", "train", "--device", "cpu"]
    assert main([*words, "--json", "--oracle", "--alpha", "none", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [way["name"] for way in document["scores"]] == ["class score", "true IoU"]
    assert document["objects"] == 8
    assert document["scores"][1]["alpha"] is None
    assert "4 images of split 'train'" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iou.json", "iou.png"]
    assert main([*words, "--min-score", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "Spearman" in said
    assert "reachable" in said
    assert "true IoU" not in said


@pytest.mark.parametrize("what", ["errors", "loss", "iou"])
def test_page(what: str, tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "new" / "page.html"
    words = ["analyse", what, str(tiny_model), str(tiny_voc), "--device", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert main([*words, "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"{said}\nThe page is {page}\n"
    text = page.read_text(encoding="utf-8")
    assert f"{tiny_model} on {tiny_voc}, 2 images of split" in text
    assert "<table>" in text
    assert 'src="data:image/svg+xml;base64,' in text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    assert main([*words, "--html", str(page)]) == 2
    assert "page.html exists already" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == text
    assert main(["analyse", what, "MODEL", str(tiny_voc), "--html", str(page.parent)]) == 2
    assert "give the name of a file that ends in .html" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["errors.json", "errors.png", "errors_examples.png"])
def test_files_that_exist_are_not_overwritten(
    name: str, tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "comp4_det_test_cell.txt").write_text("e 0.9 8 8 40 40\n")
    (tmp_path / name).write_text("mine")
    (tmp_path / "other.png").write_text("mine")
    words = ["analyse", "errors", "--detections", str(tmp_path / "found"), str(tiny_voc), "--out", str(tmp_path)]
    assert main(words) == 2
    assert f"{name} exists already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "errors.json").stat().st_size > 100
    assert (tmp_path / "other.png").read_text() == "mine"


def test_pictures_of_an_earlier_run_are_removed_and_no_others(tmp_path: Path) -> None:
    for name in ("errors_cat.png", "errors_dog.png", "errors_notes.png", "errors.png", "other.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "errors_folder.png").mkdir()
    _remember(tmp_path, "errors", ["errors.png", "errors_cat.png", "errors_dog.png"])
    assert len(list(tmp_path.iterdir())) == 7  # the first run removes nothing
    _remember(tmp_path, "errors", ["errors.png", "errors_dog.png"])
    assert not (tmp_path / "errors_cat.png").exists()
    foreign = ["errors_../x.png", "other.png", "errors_notes.txt", 3, None, "errors_\\x.png"]
    (tmp_path / ".errors").write_text(json.dumps(foreign))
    _remember(tmp_path, "errors", ["errors.png"])
    kept = ["errors.png", "errors_dog.png", "errors_folder.png", "errors_notes.png", "other.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    for damaged in (b"\xff", b"[" * 100_000, b"7"):
        (tmp_path / ".errors").write_bytes(damaged)
        _remember(tmp_path, "errors", ["errors.png"])
        assert not (tmp_path / ".errors").exists()


def test_where_nothing_can_be_written_is_asked_first(
    tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("singleshot.cli.model.load_model", None)
    (tmp_path / "file").write_text("mine")
    assert main(["analyse", "errors", str(tiny_model), str(tiny_voc), "--out", str(tmp_path / "file")]) == 2
    assert "file: cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss", "missing.safetensors", "DATA"], "missing.safetensors: no such file"),
        (["iou", "MODEL", "nowhere"], "nowhere: no such file or folder"),
        (["iou", "MODEL", "DATA", "--split", "night"], "no split 'night'"),
        (["loss", "MODEL", "DATA", "--gammas", "0,x"], "expected different numbers, 0 or more"),
        (["loss", "MODEL", "DATA", "--gammas", "-1"], "--gammas"),
        (["iou", "MODEL", "DATA", "--alpha", "2"], "expected a number from 0 to 1, or none, got '2'"),
        (["iou", "MODEL", "DATA", "--min-score", "x"], "expected a number from 0 to 1"),
        (["iou", "MODEL", "DATA", "--orakle"], "--oracle"),
        (["speed", "MODEL", "DATA"], "'analyse' is followed by one of errors, run, loss, iou"),
        (["errors", "MODEL", "DATA", "--min-score", "2"], "expected a number from 0 to 1"),
        (["errors", "MODEL", "DATA", "--drop-difficult"], "--drop-difficult"),
        (["errors", "--detections", "nowhere", "DATA"], "nowhere"),
        (["errors", "--detections", "nowhere", "DATA", "--builder", "m:f"], "--builder is for a model"),
    ],
)
def test_bad_input(words: list[str], said: str, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    real = {"MODEL": str(tiny_model), "DATA": str(tiny_voc)}
    assert main(["analyse", *(real.get(word, word) for word in words), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_no_objects(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    image = next((tiny_voc / "JPEGImages").iterdir())
    (tmp_path / image.name).write_bytes(image.read_bytes())
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "other"}]
    images = [{"id": 1, "file_name": image.name, "height": 72, "width": 96}]
    file = tmp_path / "empty.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    for what in ("iou", "errors"):
        assert main(["analyse", what, str(tiny_model), str(file)]) == 2
        assert "has no object" in capsys.readouterr().err
