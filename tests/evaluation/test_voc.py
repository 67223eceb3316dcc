"""VOC's average precision: by hand, against a slow reading of the devkit's rules, and published figures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from singleshot.evaluation import voc
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.voc import area_ap, eleven_point_ap, voc_metrics


def slow_voc(dataset, detections, label: int, min_overlap: float = 0.5) -> tuple[float, float]:
    """The devkit's VOCevaldet, one detection at a time: 11-point and area AP of one class."""
    truth = [
        [
            [box, bool(difficult), False]
            for box, difficult, k in zip(r.boxes, r.difficult | r.crowd, r.labels, strict=True)
            if k == label
        ]
        for r in dataset.records
    ]
    total = sum(not difficult for objects in truth for _, difficult, _ in objects)
    rows = [
        (score, image, box)
        for image, found in enumerate(detections)
        for score, box, k in zip(found.scores, found.boxes, found.labels, strict=True)
        if k == label
    ]
    rows.sort(key=lambda row: -row[0])  # Python's sort is stable
    right, wrong = [], []
    for _, image, (x1, y1, x2, y2) in rows:
        best, chosen = -np.inf, None
        for candidate in truth[image]:
            a1, b1, a2, b2 = candidate[0]
            w, h = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
            if w > 0 and h > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - w * h
                if w * h / union > best:
                    best, chosen = w * h / union, candidate
        tp = fp = 0
        if best >= min_overlap:
            if not chosen[1]:
                tp, fp = int(not chosen[2]), int(chosen[2])
                chosen[2] = True
        else:
            fp = 1
        right.append(tp)
        wrong.append(fp)
    tps, fps = np.cumsum(right), np.cumsum(wrong)
    recall = tps / total
    precision = tps / np.maximum(tps + fps, 1)
    ap07 = 0.0
    for t in np.linspace(0, 1, 11):
        ap07 += max(precision[recall >= t], default=0) / 11
    mrec, mpre = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    ap10 = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return ap07, ap10


def random_case(make_dataset, seed: int, *, images: int = 30, classes: int = 3):
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for _ in range(images):
        count = rng.integers(0, 6)
        corner = rng.integers(1, 60, (count, 2))
        boxes = np.concatenate([corner, corner + rng.integers(5, 60, (count, 2))], 1)
        labels = rng.integers(0, classes, count)
        truth.append([(k, *box, rng.random() < 0.2) for k, box in zip(labels, boxes, strict=True)])
        sources = rng.integers(0, count, rng.integers(0, 12)) if count else np.zeros(0, int)
        near = boxes[sources] + rng.integers(-8, 9, (len(sources), 4))
        kept = np.where(rng.random(len(sources)) < 0.9, labels[sources], rng.integers(0, classes, len(sources)))
        scores = np.round(rng.random(len(sources)), 1)  # many equal scores
        detections.append(ImageDetections(near.astype(np.float64), scores, kept))
    return make_dataset(truth, [f"class {k}" for k in range(classes)]), detections


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("min_overlap", [0.5, 0.75])
def test_equals_the_devkits_loop(make_dataset, seed: int, min_overlap: float) -> None:
    dataset, detections = random_case(make_dataset, seed)
    found = voc_metrics(dataset, detections, min_overlap=min_overlap)
    for label, of_class in enumerate(found.classes):
        assert (of_class.voc07, of_class.voc10) == pytest.approx(slow_voc(dataset, detections, label, min_overlap))
    assert found.voc07 == pytest.approx(np.mean([c.voc07 for c in found.classes]))
    assert found.voc10 == pytest.approx(np.mean([c.voc10 for c in found.classes]))


def test_chunks_change_nothing(make_dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, detections = random_case(make_dataset, 5)
    whole = voc_metrics(dataset, detections)
    for pairs in (1, 7, 50):
        monkeypatch.setattr(voc, "_PAIRS_AT_ONCE", pairs)
        for a, b in zip(voc_metrics(dataset, detections).classes, whole.classes, strict=True):
            assert (a.voc07, a.voc10) == (b.voc07, b.voc10)
            np.testing.assert_array_equal(a.recall, b.recall)


def test_average_precision_by_hand() -> None:
    # Right, wrong, right of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2.
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1, 1 / 2, 2 / 3])
    assert area_ap(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # Recalls 0, 0.1, 0.2 see precision 1; 0.3, 0.4, 0.5 see 2/3; beyond 0.5 there is none.
    assert eleven_point_ap(recall, precision) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)


def test_average_precision_at_its_limits() -> None:
    none = np.zeros(0)
    assert area_ap(none, none) == eleven_point_ap(none, none) == 0
    assert area_ap(np.ones(1), np.ones(1)) == 1
    assert eleven_point_ap(np.ones(1), np.ones(1)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("right", "of", "points"), [(1, 10, 2), (3, 10, 3), (5, 10, 6), (6, 10, 6), (7, 10, 7), (3, 5, 6), (10, 10, 11)]
)
def test_recalls_on_a_point_count_as_in_the_published_evaluators(right: int, of: int, points: int) -> None:
    # 0.3, 0.6 and 0.7 lie below their points 3 * 0.1, 6 * 0.1 and 7 * 0.1; the other tenths are on theirs.
    recall = np.arange(1, right + 1) / of
    assert eleven_point_ap(recall, np.ones(right)) == pytest.approx(points / 11)


def test_pixels_are_counted_inclusively_and_half_is_enough(make_dataset, make_found) -> None:
    # 1..10 by 1..10 and 1..10 by 1..5: 50 of 100 pixels, overlap 1/2 exactly. Without the + 1 it would be 4/9.
    dataset = make_dataset([[(0, 1, 1, 10, 10)]])
    assert voc_metrics(dataset, [make_found([(0, 0.9, 1, 1, 10, 5)])]).voc10 == 1
    assert voc_metrics(dataset, [make_found([(0, 0.9, 1, 1, 10, 4)])]).voc10 == 0


def test_difficult_objects_are_neither_right_nor_wrong(make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 50, 50), (0, 101, 101, 150, 150, 1)]])
    found = [make_found([(0, 0.9, 101, 101, 150, 150), (0, 0.8, 101, 101, 150, 150), (0, 0.7, 1, 1, 50, 50)])]
    of_class = voc_metrics(dataset, found).classes[0]
    assert of_class.boxes == 1
    assert of_class.voc10 == 1
    np.testing.assert_array_equal(of_class.scores, [0.7])
    np.testing.assert_array_equal(of_class.recall, [1])
    np.testing.assert_array_equal(of_class.precision, [1])


def test_a_second_detection_of_an_object_is_wrong_even_beside_a_free_one(make_dataset, make_found) -> None:
    # Both detections overlap the first object most; the second object stays unfound, as in the devkit.
    dataset = make_dataset([[(0, 1, 1, 100, 100), (0, 21, 1, 120, 100)]])
    found = [make_found([(0, 0.9, 1, 1, 100, 100), (0, 0.8, 6, 1, 105, 100)])]
    of_class = voc_metrics(dataset, found).classes[0]
    np.testing.assert_array_equal(of_class.recall, [0.5, 0.5])
    np.testing.assert_array_equal(of_class.precision, [1, 0.5])
    assert of_class.voc10 == 0.5


def test_of_equal_overlaps_the_first_object_counts(make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 100, 100, 1), (0, 1, 1, 100, 100)]])
    assert voc_metrics(dataset, [make_found([(0, 0.9, 1, 1, 100, 100)])]).voc10 == 0  # the difficult one is first
    dataset = make_dataset([[(0, 1, 1, 100, 100), (0, 1, 1, 100, 100, 1)]])
    assert voc_metrics(dataset, [make_found([(0, 0.9, 1, 1, 100, 100)])]).voc10 == 1


def test_equal_scores_keep_the_order_of_the_file(make_dataset) -> None:
    dataset = make_dataset([[(0, 1, 1, 50, 50)], []])
    box, score, label = np.array([[1.0, 1, 50, 50]]), np.array([0.5]), np.zeros(1, np.int64)
    for lines, expected in (((1, 2), 1.0), ((2, 1), 0.5)):
        found = [ImageDetections(box, score, label, order=np.array([line])) for line in lines]
        assert voc_metrics(dataset, found).voc10 == expected
    assert voc_metrics(dataset, [ImageDetections(box, score, label)] * 2).voc10 == 1  # the order of the images


def test_the_mean_is_over_classes_with_objects(make_dataset, make_found) -> None:
    rows = [(0, 1, 1, 50, 50), (1, 60, 60, 90, 90), (2, 100, 1, 150, 50, 1)]
    dataset = make_dataset([rows], ["found", "missed", "difficult only", "absent"])
    found = [make_found([(0, 0.9, 1, 1, 50, 50), (2, 0.9, 100, 1, 150, 50), (3, 0.9, 1, 1, 50, 50)])]
    metrics = voc_metrics(dataset, found)
    assert [c.voc10 for c in metrics.classes] == [1.0, 0.0, None, None]
    assert [c.boxes for c in metrics.classes] == [1, 1, 0, 0]
    assert metrics.voc10 == 0.5
    assert metrics.voc07 == pytest.approx(0.5)


def test_nothing_to_find_and_nothing_found(make_dataset, make_found) -> None:
    nothing = voc_metrics(make_dataset([[], []]), [make_found(), make_found()])
    assert nothing.voc07 is None
    assert nothing.voc10 is None
    assert voc_metrics(make_dataset([]), []).voc10 is None
    assert voc_metrics(make_dataset([[(0, 1, 1, 9, 9)]]), [make_found()]).voc10 == 0


def test_detections_of_no_area_are_wrong(make_dataset, make_found) -> None:
    dataset = make_dataset([[(0, 1, 1, 50, 50)]])
    inverted = make_found([(0, 0.9, 50, 50, 1, 1), (0, 0.8, 20, 20, 19, 19), (0, 0.7, 1, 1, 50, 50)])
    np.testing.assert_allclose(voc_metrics(dataset, [inverted]).classes[0].precision, [0, 0, 1 / 3])


def test_5000_images_take_seconds(make_dataset) -> None:
    rng = np.random.default_rng(0)
    images, classes, each = 2500, 20, 100
    truth = [
        [(k, x, y, x + 40, y + 40) for k, x, y in rng.integers(0, (classes, 300, 300), (4, 3))] for _ in range(images)
    ]
    dataset = make_dataset(truth, [str(k) for k in range(classes)])
    corners = rng.integers(0, 300, (images, each, 2)).astype(float)
    boxes, scores = np.concatenate([corners, corners + 40], 2), rng.random((images, each))
    labels = rng.integers(0, classes, (images, each))
    detections = [ImageDetections(*parts) for parts in zip(boxes, scores, labels, strict=True)]
    start = time.process_time()
    voc_metrics(dataset, detections)
    assert time.process_time() - start < 10  # about 0.4 s for 250,000 detections


# ---- published figures


@pytest.mark.parametrize("name", ["bird", "sofa"])
def test_published_ap_on_voc2007(shared: Path, make_dataset, name: str) -> None:
    folder = shared / "metrics" / "voc07_two_classes"
    truth = json.loads((folder / f"{name}_gt.json").read_text())["gt"]
    rows = [line.split() for line in (folder / f"{name}_detections.txt").read_text().splitlines()]
    names = sorted(set(truth) | {row[0] for row in rows})
    dataset = make_dataset(
        [[(0, *box, difficult) for difficult, _, *box in truth.get(image, [])] for image in names], [name], names=names
    )
    of_image = {image: i for i, image in enumerate(names)}
    images = np.array([of_image[row[0]] for row in rows])
    numbers = np.array([[float(word) for word in row[1:]] for row in rows])
    detections = [
        ImageDetections(numbers[mine, 1:], numbers[mine, 0], np.zeros(len(mine), np.int64), order=mine)
        for mine in (np.flatnonzero(images == i) for i in range(len(names)))
    ]
    expected = json.loads((folder / "expected.json").read_text())[name]
    of_class = voc_metrics(dataset, detections).classes[0]
    assert len(rows) == expected["detections"]
    assert of_class.voc07 == pytest.approx(expected["ap_11_point"], abs=1e-6)
    assert of_class.recall[-1] == pytest.approx(expected["final_recall"], abs=1e-12)


def padilla(folder: Path, make_dataset, truth: str, found: str):
    """Text files `class x y w h` and `class score x y w h`, one per image."""
    files = sorted((folder / truth).glob("*.txt"))

    def read(path: Path) -> np.ndarray:
        rows = [[float(word) for word in line.split()[1:]] for line in path.read_text().splitlines() if line.strip()]
        return np.array(rows)

    images, detections = [], []
    for path in files:
        x, y, w, h = read(path).T
        images.append([(0, *box) for box in np.stack([x, y, x + w, y + h], 1)])
        scores, x, y, w, h = read(folder / found / path.name).T
        detections.append(ImageDetections(np.stack([x, y, x + w, y + h], 1), scores, np.zeros(len(x), np.int64)))
    return make_dataset(images), detections


def test_published_ap_of_the_practical_example(shared: Path, make_dataset) -> None:
    folder = shared / "metrics" / "padilla_odm" / "samples" / "sample_2"
    found = voc_metrics(*padilla(folder, make_dataset, "groundtruths", "detections"), min_overlap=0.3)
    assert found.voc10 == pytest.approx(0.2456, abs=1e-4)
    assert found.voc07 == pytest.approx(0.2684, abs=1e-4)


@pytest.mark.parametrize("overlap", ["0.1", "0.3", "0.5", "0.75"])
def test_published_ap_of_the_review(shared: Path, make_dataset, overlap: str) -> None:
    folder = shared / "metrics" / "padilla_review"
    known = json.loads((folder / "expected.json").read_text())["test_case_1 (tests/test_eval_pascal.py)"]
    dataset, detections = padilla(folder / "tests" / "test_case_1", make_dataset, "gts", "dets")
    found = voc_metrics(dataset, detections, min_overlap=float(overlap))
    assert found.voc07 == pytest.approx(known["11-point AP"][overlap], abs=1e-9)
    assert found.voc10 == pytest.approx(known["every-point AP"][overlap], abs=1e-9)


def test_published_ap_of_the_toy_example(shared: Path, make_dataset) -> None:
    folder = shared / "metrics" / "padilla_review" / "toyexample"
    truth = json.loads((folder / "gts_coco_format" / "toy_example_coco.JSON").read_text())
    names = {image["id"]: Path(image["file_name"]).stem for image in truth["images"]}
    images, detections = [], []
    for image, name in names.items():
        sides = [a["bbox"] for a in truth["annotations"] if a["image_id"] == image]
        images.append([(0, x, y, x + w, y + h) for x, y, w, h in sides])
        lines = (folder / "dets_classname_abs_xyx2y2" / f"{name}.txt").read_text().split("\n")
        rows = np.array([[float(word) for word in line.split()[1:]] for line in lines if line.strip()]).reshape(-1, 5)
        detections.append(ImageDetections(rows[:, 1:], rows[:, 0], np.zeros(len(rows), np.int64)))
    known = json.loads((folder.parent / "expected.json").read_text())["toyexample (README)"]
    dataset = make_dataset(images, names=list(names.values()))
    for key, overlap in (("t=0.5", 0.5), ("t=0.75", 0.75)):
        found = voc_metrics(dataset, detections, min_overlap=overlap)
        assert found.voc07 == pytest.approx(known[key]["11-point"], abs=1e-4)
        assert found.voc10 == pytest.approx(known[key]["all-point"], abs=1e-4)


def test_in_a_crowd_a_detection_is_compared_with_near_objects_only(
    make_dataset, make_found, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [(float(x), float(y), x + 8.0, y + 8.0) for x in range(0, 400, 10) for y in range(0, 400, 10)]
    compared = []
    overlap = voc._inclusive_iou
    monkeypatch.setattr(voc, "_inclusive_iou", lambda a, b: compared.append(len(a)) or overlap(a, b))
    dataset = make_dataset([[(0, *box) for box in objects]])
    found = voc_metrics(dataset, [make_found([(0, 0.5, *box) for box in objects])])
    assert found.classes[0].voc10 == 1.0
    assert sum(compared) <= 4 * 40 * len(objects)
