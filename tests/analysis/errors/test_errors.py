"""Errors of detections by kind, class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hotcoco
import numpy as np
import pytest

from singleshot.analysis import error_analysis
from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.errors import UserError
from singleshot.evaluation.detections import ImageDetections, as_sides

KINDS = {"confused": "Cls", "misplaced": "Loc", "both": "Both", "duplicate": "Dupe", "background": "Bkg"}
A, B = 0, 1


def record(*objects: tuple[int, list[float]], difficult: Sequence[int] = (), crowd: Sequence[int] = ()) -> ImageRecord:
    boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
    at = np.arange(len(objects))
    return ImageRecord(
        path=Path("nowhere.jpg"),
        name="nowhere",
        id=1,
        size=(200, 200),
        boxes=boxes,
        labels=np.array([label for label, _ in objects], np.int64),
        difficult=np.isin(at, difficult),
        crowd=np.isin(at, crowd),
        truncated=np.zeros(len(objects), bool),
        areas=as_sides(boxes)[:, 2:].prod(1),
    )


def dataset(*records: ImageRecord, form: str = "coco") -> Dataset:
    numbered = tuple(replace(one, id=k + 1, name=str(k + 1)) for k, one in enumerate(records))
    return Dataset(Path("data"), form, "val", ("a", "b"), (1, 2), numbered)


def found(*rows: tuple[int, float, list[float]]) -> ImageDetections:
    return ImageDetections(
        np.array([box for _, _, box in rows], np.float64).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float64),
        np.array([label for label, _, _ in rows], np.int64),
    )


# Boxes of 40 x 40 pixels; with an offset of 20 to one side the IoU is 1/3, of 30 to two sides 1/31.
HERE, NEAR, FAR = [0.0, 0.0, 40.0, 40.0], [20.0, 0.0, 60.0, 40.0], [120.0, 120.0, 160.0, 160.0]


@pytest.mark.parametrize(
    ("detection", "kind", "fate"),
    [
        ((A, 0.9, HERE), "right", "found"),
        ((B, 0.9, HERE), "confused", "confused"),
        ((A, 0.9, NEAR), "misplaced", "misplaced"),
        ((B, 0.9, NEAR), "both", "missed"),
        ((A, 0.9, FAR), "background", "missed"),
        ((A, 0.9, [30.0, 30.0, 70.0, 70.0]), "background", "missed"),
    ],
)
def test_a_detection_has_one_kind_and_its_object_one_fate(
    detection: tuple[int, float, list[float]], kind: str, fate: str
) -> None:
    analysis = error_analysis(dataset(record((A, HERE))), [found(detection)])
    total = analysis.total
    assert {name for name, count in total.detections.items() if count} == {kind}
    assert {name for name in ("found", "confused", "misplaced", "missed") if getattr(total, name)} == {fate}
    assert pytest.approx(1 if kind == "right" else 0) == analysis.AP50
    label = detection[0]
    assert analysis.classes[label].detections[kind] == 1
    assert analysis.classes[A].objects == 1
    # Whatever went wrong with it, mending that makes all well; where two things are wrong, one of them does not.
    mended = {name: gain for name, gain in analysis.gains.items() if gain > 0}
    assert mended == pytest.approx({"confused": {"confused": 1.0}, "misplaced": {"misplaced": 1.0}}.get(kind, mended))
    assert ("missed" in mended) == (fate == "missed")


def test_a_second_detection_is_a_duplicate_whichever_comes_first() -> None:
    better, worse = (A, 0.9, HERE), (A, 0.5, [2.0, 0.0, 42.0, 40.0])
    for rows in ([better, worse], [worse, better]):
        analysis = error_analysis(dataset(record((A, HERE))), [found(*rows)], min_score=0)
        assert analysis.total.detections["duplicate"] == 1
        assert analysis.total.detections["right"] == analysis.total.found == 1


def test_an_object_goes_to_the_best_free_detection() -> None:
    """The second detection overlaps the first object most, which is taken; it is right for the second object."""
    truth = record((A, HERE), (A, [10.0, 0.0, 50.0, 40.0]))
    rows = found((A, 0.9, HERE), (A, 0.8, [4.0, 0.0, 44.0, 40.0]))
    assert error_analysis(dataset(truth), [rows], min_score=0).total.found == 2


@pytest.mark.parametrize(("form", "mask"), [("voc", "difficult"), ("coco", "crowd")])
def test_difficult_objects_and_crowds_excuse_detections_and_are_not_to_be_found(form: str, mask: str) -> None:
    truth = record((A, HERE), (A, FAR), **{mask: [1]})
    rows = found((A, 0.9, HERE), (A, 0.8, FAR), (B, 0.7, FAR))
    analysis = error_analysis(dataset(truth, form=form), [rows], min_score=0)
    assert analysis.total.objects == 1
    assert {kind: n for kind, n in analysis.total.detections.items() if n} == {"right": 1, "background": 1}


def test_tallies_begin_at_the_best_f1_and_gains_count_everything() -> None:
    truth = record((A, HERE), (A, FAR))
    wrong = [(A, 0.2, [60.0 + k, 0.0, 90.0 + k, 30.0]) for k in range(5)]
    rows = found((A, 0.9, HERE), (A, 0.6, FAR), *wrong)
    analysis = error_analysis(dataset(truth), [rows])
    assert analysis.min_score == 0.6
    assert analysis.precision == analysis.recall == 1
    assert sum(error_analysis(dataset(truth), [rows], min_score=0.1).total.detections.values()) == 7
    low = error_analysis(dataset(truth), [found((A, 0.9, [60.0, 0.0, 90.0, 30.0]), (A, 0.6, FAR))], min_score=1.0)
    assert low.gains["background"] > 0
    assert low.total.missed == 2
    assert np.isnan(low.precision)


def test_sizes_are_the_quarters_of_the_objects_and_wrong_detections_lie_in_them_too() -> None:
    sides = [10, 20, 30, 40, 50, 60, 70, 80]
    records = [record((A, [0.0, 0.0, side, side])) for side in sides]
    rows = [found((A, 0.9, [0.0, 0.0, side, side])) if side > 20 else found((A, 0.8, FAR)) for side in sides]
    sizes = error_analysis(dataset(*records), rows, min_score=0).sizes
    assert [one.objects for one in sizes] == [2, 2, 2, 2]
    assert [one.missed for one in sizes] == [2, 0, 0, 0]
    assert [one.detections["background"] for one in sizes] == [0, 2, 0, 0]  # 40 pixels
    assert sizes[0].name.startswith("up to 2")


def test_confusions_say_what_was_taken_for_what() -> None:
    records = [record((A, HERE)), record((A, HERE)), record((B, HERE))]
    rows = [found((B, 0.9, HERE)), found((B, 0.9, HERE)), found((A, 0.9, HERE))]
    assert error_analysis(dataset(*records), rows).confusions == (("a", "b", 2), ("b", "a", 1))


def test_only_the_hundred_best_of_a_class_in_an_image_count() -> None:
    wrong = [(A, 0.9, [60.0 + k, 0.0, 90.0 + k, 30.0]) for k in range(100)]
    analysis = error_analysis(dataset(record((A, HERE))), [found(*wrong, (A, 0.5, HERE))], min_score=0)
    assert analysis.total.detections["background"] == 100
    assert analysis.total.found == analysis.AP50 == 0


def test_a_class_of_which_all_objects_are_missed_is_perfect_without_them() -> None:
    analysis = error_analysis(dataset(record((A, HERE)), record((B, HERE))), [found((A, 0.9, HERE)), found()])
    assert (analysis.AP50, analysis.gains["missed"]) == pytest.approx((0.5, 0.5))


def test_nothing_found_and_nothing_there() -> None:
    analysis = error_analysis(dataset(record((A, HERE)), record()), [found(), found()])
    assert analysis.total.missed == 1
    assert analysis.min_score == 0
    assert analysis.to_json()["classes"][0]["objects"]["missed"] == 1
    with pytest.raises(UserError, match="has no objects to find"):
        error_analysis(dataset(record()), [found()])


def noisy(seed: int, images: int = 30) -> tuple[Dataset, list[ImageDetections]]:
    """Objects of two classes, and detections that err in every way."""
    random = np.random.default_rng(seed)
    records, detections = [], []
    for _ in range(images):
        corner = random.uniform(0, 120, (random.integers(1, 6), 2))
        truth = np.concatenate([corner, corner + random.uniform(20, 60, corner.shape)], 1)
        labels = random.integers(0, 2, len(truth))
        records.append(record(*((int(k), box.tolist()) for k, box in zip(labels, truth, strict=True))))
        chosen = random.integers(0, len(truth), random.integers(0, 12))
        boxes = truth[chosen] + random.normal(0, random.uniform(1, 12), (len(chosen), 4))
        boxes[random.random(len(chosen)) < 0.1] += 50
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        other = np.where(random.random(len(chosen)) < 0.2, 1 - labels[chosen], labels[chosen])
        detections.append(ImageDetections(boxes, random.random(len(chosen)), other))
    return dataset(*records), detections


@pytest.mark.parametrize("seed", range(8))
def test_kinds_and_gains_are_those_of_hotcoco(seed: int) -> None:
    data, detections = noisy(seed)
    theirs = tide(data, detections)
    ours = error_analysis(data, detections, min_score=0)
    assert {KINDS[name]: n for name, n in ours.total.detections.items() if name in KINDS} == {
        name: theirs["counts"][name] for name in KINDS.values()
    }
    assert ours.total.missed <= theirs["counts"]["Miss"]
    assert pytest.approx(theirs["ap_base"], abs=1e-12) == ours.AP50
    for name, short in {**KINDS, "missed": "Miss"}.items():
        assert ours.gains[name] == pytest.approx(theirs["delta_ap"][short], abs=1e-12), name


def tide(data: Dataset, detections: Sequence[ImageDetections]) -> dict[str, dict[str, float]]:
    objects = [
        {"image_id": one.id, "category_id": int(label) + 1, "bbox": side.tolist(), "area": float(side[2:].prod())}
        for one in data.records
        for label, side in zip(one.labels, as_sides(one.boxes), strict=True)
    ]
    ground = hotcoco.COCO(
        {
            "images": [{"id": one.id, "width": 200, "height": 200, "file_name": one.name} for one in data.records],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [{"id": k, "iscrowd": 0, **one} for k, one in enumerate(objects, 1)],
        }
    )
    rows = [
        {"image_id": one.id, "category_id": int(label) + 1, "bbox": side.tolist(), "score": float(score)}
        for one, seen in zip(data.records, detections, strict=True)
        for label, side, score in zip(seen.labels, seen.sides(), seen.scores, strict=True)
    ]
    evaluation = hotcoco.COCOeval(ground, ground.load_res(rows), "bbox")
    evaluation.evaluate()
    return evaluation.tide_errors()  # type: ignore[no-any-return]
