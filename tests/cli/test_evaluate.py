"""`singleshot evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from singleshot.cli import main

Capture = pytest.CaptureFixture[str]


def test_model(tiny_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["evaluate", str(tiny_model), str(tiny_voc), "--device", "cpu"]
    assert main([*words, "--json", "--save-detections", str(tmp_path / "found")]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert list(document) == ["coco", "voc07", "voc10", "per_class"]
    assert document["per_class"]["cell"]["boxes"] == 2
    assert "split 'val'" in err
    # What was written measures the same.
    files = sorted(path.name for path in (tmp_path / "found").rglob("*") if path.is_file())
    assert files == ["comp4_det_test_cell.txt", "comp4_det_test_other.txt", "detections.json"]
    (results,) = (tmp_path / "found").rglob("detections.json")
    assert main(["evaluate", "--detections", str(results), str(tiny_voc), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["coco"] == pytest.approx(document["coco"], abs=1e-6)
    # A second time it is refused before anything is computed.
    assert main([*words, "--save-detections", str(tmp_path / "found")]) == 2
    assert "detections.json exists already (and others); choose another name" in capsys.readouterr().err
    assert main([*words, "--save-detections", str(tmp_path / "found"), "--overwrite"]) == 0


def test_perfect_detections(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, box in {"cell": "8 8 40 40", "other": "52 30 84 62"}.items():
        lines = "".join(f"{image} 0.9 {box}\n" for image in "ef")
        (tmp_path / f"comp4_det_test_{name}.txt").write_text(lines)
    assert main(["evaluate", f"--detections={tmp_path}", str(tiny_voc)]) == 0
    out, err = capsys.readouterr()
    assert "100.0" in out
    assert "split 'val'" in err
    assert main(["evaluate", str(tiny_voc), "--detections", str(tmp_path), "--json", "--split", "val"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["voc07"] == document["voc10"] == {"mAP": 1.0}
    assert document["coco"]["APl"] == -1


def test_no_image_is_needed_for_files(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    import shutil

    data = shutil.copytree(tiny_voc, tmp_path / "data", ignore=shutil.ignore_patterns("*.jpg"))
    found = tmp_path / "found"
    found.mkdir()
    (found / "comp4_det_test_cell.txt").write_text("e 0.9 8 8 40 40\n")
    assert main(["evaluate", "--detections", str(found), str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["per_class"]["cell"]["voc10"] == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.safetensors", "DATA"], "missing.safetensors: no such file"),
        (["MODEL", "nowhere"], "nowhere: no such file or folder"),
        (["MODEL", "DATA", "--split", "night"], "no split 'night'"),
        (
            ["MODEL", "DATA", "--device", "abacus"],
            "device 'abacus' is not known; expected cpu, cuda, cuda:N (the first is cuda:0) or mps",
        ),
        (["MODEL", "DATA", "--device", "cuda:99"], "device 'cuda:99': this machine"),
        (["MODEL", "DATA", "--builder", "no_such_module:x"], "builder 'no_such_module:x' cannot be imported"),
        (["--detections", "nowhere", "DATA"], "nowhere"),
        (["--detections", "x", "DATA", "--builder", "a:b"], "--builder is for a model"),
        (["--detections", "x", "DATA", "--sweep", "nms=0.5"], "--sweep repeats a model's post-processing"),
        (["MODEL", "DATA", "--sweep", "nms=0.5", "--save-detections", "x"], "leave one of them out"),
        (["MODEL", "DATA", "--sweep", "nms"], "--sweep: expected NAME=VALUE,VALUE"),
        (
            ["MODEL", "DATA", "--sweep", "colour=1,2"],
            "--sweep colour: expected one of iou_alpha, centreness_alpha, threshold, nms",
        ),
        (["MODEL", "DATA", "--sweep", "nms=0.5,2"], "nms must be a number from 0 to 1, got 2"),
        (["MODEL", "DATA", "--sweep", "candidates_of_image=0"], "must be a whole number, 1 or more, got 0"),
        (["MODEL", "DATA", "--sweep", "nms=product"], "got 'product' (product is for iou_alpha"),
        (
            ["MODEL", "DATA", "--sweep", "nms=none"],
            "got 'none' (product is for iou_alpha and other outputs, none for soft_nms, vote and candidates_of_image)",
        ),
        (["MODEL", "DATA", "--sweep", "iou_alpha=1,0"], "model.safetensors: iou_alpha needs a predicted IoU"),
    ],
)
def test_bad_input(words: list[str], said: str, tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    real = {"MODEL": str(tiny_model), "DATA": str(tiny_voc)}
    assert main(["evaluate", *(real.get(word, word) for word in words), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def iou_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector that predicts an IoU too."""
    import torch

    import singleshot

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("iou") / "model.safetensors"
    names = ("cell", "other")
    detector = singleshot.ssd(num_classes=2, class_names=names, backbone="mobilenetv2", image_size=64, iou_head=True)
    singleshot.save(detector, path)
    return path


def test_a_sweep_is_as_many_evaluations(iou_model: Path, tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    from dataclasses import replace

    import singleshot
    from singleshot.evaluation.detect_dataset import detect_dataset
    from singleshot.outputs.iou import IoUHead
    from singleshot.postprocess import ClassScores

    words = ["evaluate", str(iou_model), str(tiny_voc), "--device", "cpu", "--json"]
    assert main([*words, "--sweep", "iou_alpha=product,1,0.5,...,0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sweep"] == "iou_alpha"
    results = document["results"]
    assert [one["iou_alpha"] for one in results] == ["product", 1, 0.5, 0]
    detector = singleshot.load(iou_model)
    dataset = singleshot.open_dataset(tiny_voc, split="val")
    for alpha, one in zip([None, 1.0, 0.5, 0.0], results, strict=True):
        scores = ClassScores(detector.postprocess.scores.classification, (IoUHead(alpha).output(),))  # type: ignore[attr-defined]
        detector.postprocess = replace(detector.postprocess, scores=scores)  # type: ignore[type-var]
        expected = singleshot.evaluate(dataset, detect_dataset(detector, dataset)).to_json()
        assert {name: one["coco"][name] for name in expected["coco"]} == expected["coco"]
        assert one["voc10"] == expected["voc10"]
        assert {"AP60", "AP70", "AP80", "AP90"} < one["coco"].keys()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("soft_nms", "soft", 0.3), ("vote", "vote", 0.05), ("candidates_of_image", "candidates_of_image", 40)],
)
def test_with_and_without(
    name: str, field: str, value: float, tiny_model: Path, tiny_voc: Path, capsys: Capture
) -> None:
    from dataclasses import replace

    import singleshot
    from singleshot.cli.sweep import postprocesses, sweep_of

    words = ["evaluate", str(tiny_model), str(tiny_voc), "--device", "cpu", "--json", "--sweep", f"{name}=none,{value}"]
    assert main(words) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [one[name] for one in results] == ["none", value]
    detector = singleshot.load(tiny_model)
    made = postprocesses(sweep_of(f"{name}=none,{value}"), detector, "model.safetensors")
    without, with_it = ({field: number} for number in (None, value))
    assert made == {"none": replace(detector.postprocess, **without), value: replace(detector.postprocess, **with_it)}


def test_the_table_of_a_sweep(tiny_model: Path, tiny_voc: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(tiny_model), str(tiny_voc), "--device", "cpu", "--sweep", "candidates=10,400"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["candidates", "AP", "AP50", "AP60"]
    assert [line.split()[0] for line in lines[2:4]] == ["10", "400"]


def test_other_classes(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    import singleshot

    model = tmp_path / "other.safetensors"
    detector = singleshot.ssd(num_classes=1, class_names=("dog",), backbone="mobilenetv2", image_size=64)
    singleshot.save(detector, model)
    assert main(["evaluate", str(model), str(tiny_voc)]) == 2
    err = capsys.readouterr().err
    assert "dog" in err
    assert "cell" in err


def test_pickle_is_refused(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    import torch

    torch.save({"weights": torch.zeros(1)}, tmp_path / "model.pth")
    assert main(["evaluate", str(tmp_path / "model.pth"), str(tiny_voc)]) == 2
    assert "pickle" in capsys.readouterr().err


def test_more_objects_than_the_metric_counts(shared: Path, capsys: Capture) -> None:
    """150 objects of one class, all found: AP is 66.3, as pycocotools says, and it is said why."""
    data = shared / "awkward_sets" / "13_more_than_100_objects"
    if not data.is_dir():
        pytest.skip(f"no {data}")
    assert main(["evaluate", "--detections", str(data / "dets.json"), str(data), "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["coco"]["AP"], document["voc10"]["mAP"]) == (pytest.approx(0.663, abs=5e-4), 1.0)
    assert "note: 1 image has more than 100 objects of one class (most: a.png, 150); 50 of 150 objects" in err


def test_more_objects_than_the_detector_keeps(tiny_voc: Path, tmp_path: Path, capsys: Capture) -> None:
    import singleshot

    names = ("cell", "other")
    detector = singleshot.ssd(num_classes=2, class_names=names, backbone="mobilenetv2", image_size=64, detections=1)
    singleshot.save(detector, tmp_path / "one.safetensors")
    assert main(["evaluate", str(tmp_path / "one.safetensors"), str(tiny_voc)]) == 0
    said = capsys.readouterr().err
    assert "note: 2 images have more than 1 objects (most: e, 2); 2 of 4 objects are beyond this limit" in said
