"""`--tta` of `singleshot evaluate` and `singleshot detect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def views(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("views: [{scale: 1}, {side: 96, short_side_below: 50}, {size: [64, 40], turn: true}]")
    return path


def test_evaluate(tiny_model: Path, tiny_voc: Path, views: Path, tmp_path: Path, capsys: Capture) -> None:
    import singleshot as ss
    from singleshot.evaluation.detect_dataset import detect_dataset
    from singleshot.multiscale import published as tta
    from singleshot.multiscale.detector import MultiScaleDetector

    words = ["evaluate", str(tiny_model), str(tiny_voc), "--device", "cpu", "--json", "--tta"]
    assert main([*words, str(views), "--save-detections", str(tmp_path / "found")]) == 0
    out, err = capsys.readouterr()
    assert "multi-scale testing 'mine': 3 views, each mirrored too; passes for each image: 6" in err
    assert (tmp_path / "found" / "detections.json").is_file()
    dataset = ss.open_dataset(tiny_voc, split="val")
    expected = ss.evaluate(dataset, detect_dataset(MultiScaleDetector(ss.load(tiny_model), tta.load(views)), dataset))
    document = json.loads(out)
    assert document["coco"] == expected.to_json()["coco"]
    # One view and no mirror: plain testing.
    views.write_text("views: [{scale: 1}]\nmirror: false")
    assert main([*words, str(views)]) == 0
    out, err = capsys.readouterr()
    assert "1 view; passes for each image: 1" in err
    assert main(words[:-1]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out) != document


def test_detect(tiny_model: Path, tiny_voc: Path, views: Path, capsys: Capture) -> None:
    image = str(tiny_voc / "JPEGImages" / "a.jpg")
    words = ["detect", str(tiny_model), image, "--device", "cpu", "--json", "--threshold", "0"]
    assert main([*words, "--tta", str(views)]) == 0
    many = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    assert many != json.loads(capsys.readouterr().out)
    assert many[0]["detections"]


@pytest.mark.parametrize("verb", ["evaluate", "detect"])
def test_the_bar_counts_images_times_views(
    verb: str, tiny_model: Path, tiny_voc: Path, views: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections.abc import Callable, Iterator
    from contextlib import contextmanager

    seen: list[tuple[int, int]] = []

    @contextmanager
    def shown(what: str) -> Iterator[Callable[[int, int], None]]:
        assert what == "images x views"
        yield lambda done, total: seen.append((done, total))

    monkeypatch.setattr("singleshot.cli.progress.shown", shown)
    data = tiny_voc / "JPEGImages" if verb == "detect" else tiny_voc
    bad = tiny_voc / "JPEGImages" / "0.jpg"  # the first of the folder
    bad.write_bytes(b"no image")
    more = ["--skip-bad"] if verb == "detect" else []
    try:
        words = [str(tiny_model), str(data), "--tta", str(views), "--device", "cpu", "--batch-size", "1"]
        assert main([verb, *words, *more]) == 0
    finally:
        bad.unlink()
    assert seen[0][0] == 0
    total = 6 * (len(list((tiny_voc / "JPEGImages").iterdir())) + 1 if verb == "detect" else 2)
    assert {count for _, count in seen} == {total}
    done = [number for number, _ in seen]
    assert done == sorted(done)
    assert done[-1] == total
    assert {*range(total - 12, total + 1)} <= set(done)  # every view of every image


def test_detections_that_cannot_be_saved_are_refused_first(
    tiny_model: Path, tiny_voc: Path, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def run(*arguments: object, **more: object) -> None:
        raise AssertionError("nothing may be run")

    monkeypatch.setattr("singleshot.evaluation.detect_dataset.detect_dataset", run)
    (tmp_path / "file").write_text("")
    words = ["evaluate", str(tiny_model), str(tiny_voc), "--tta", str(views), "--device", "cpu"]
    assert main([*words, "--save-detections", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'}: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MODEL", "DATA", "--tta", "refinedet320_vok"], "did you mean refinedet320_voc"),
        (["MODEL", "DATA", "--tta", ""], "unknown multi-scale testing ''"),
        (["MODEL", "DATA", "--tta", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["MODEL", "DATA", "--tta", "VIEWS"], "mine.yaml: unknown key 'views[0].colour'"),
        (["MODEL", "DATA", "--tta", "refinedet320_voc", "--sweep", "nms=0.5"], "leave one of them out"),
        (["--detections", "x", "DATA", "--tta", "refinedet320_voc"], "--tta shows images to a model"),
    ],
)
def test_bad_input(words: list[str], said: str, tiny_model: Path, tiny_voc: Path, views: Path, capsys: Capture) -> None:
    views.write_text("views: [{colour: red}]")
    real = {"MODEL": str(tiny_model), "DATA": str(tiny_voc), "VIEWS": str(views)}
    assert main(["evaluate", *(real.get(word, word) for word in words), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_view_that_a_model_cannot_be_shown(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    import singleshot as ss

    model = tmp_path / "ssd300.safetensors"
    ss.save(ss.ssd(num_classes=2, class_names=("cell", "other")), model)
    assert main(["evaluate", str(model), str(tiny_voc), "--tta", "refinedet320_voc", "--device", "cpu"]) == 2
    _, err = capsys.readouterr()
    assert "refinedet320_voc, view 2 (size 320x192, turned with the image): the network cannot take" in err
