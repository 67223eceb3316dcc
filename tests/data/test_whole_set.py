"""What the check finds over a whole dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from singleshot.data.check import check, examine
from singleshot.data.dataset import Dataset
from singleshot.data.deep import DeepRange
from singleshot.data.open import open_dataset
from singleshot.errors import UserError

Make = Callable[..., Dataset]
SIDE = 100


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a COCO file of one image per argument, each a list of (bbox, area), with these pixels."""

    def build(*images: list[tuple[list[float], float | None]], pixels: list[np.ndarray] | None = None) -> Dataset:
        content: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        content["categories"] = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
        for i, objects in enumerate(images):
            content["images"].append({"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE})
            picture = pixels[i] if pixels else np.full((SIDE, SIDE, 3), 99, np.uint8)
            Image.fromarray(picture).save(tmp_path / f"{i}.png")
            for box, area in objects:
                entry = {"id": len(content["annotations"]) + 1, "image_id": i, "category_id": 1, "bbox": box}
                content["annotations"].append(entry if area is None else entry | {"area": area})
        (tmp_path / "val.json").write_text(json.dumps(content))
        return open_dataset(tmp_path / "val.json", strict=False)

    return build


def boxes(number: int, *, corners: bool, area: str) -> list[tuple[list[float], float | None]]:
    """Boxes in an image of 100 x 100, written as corners or right, each with an area: of the box, of its mask, none."""
    found = []
    for x1, y1, x2, y2 in np.random.default_rng(0).uniform([5, 5, 50, 50], [50, 50, 99, 99], (number, 4)).round(2):
        box = [x1, y1, x2, y2] if corners else [x1, y1, x2 - x1, y2 - y1]
        true = (x2 - x1) * (y2 - y1)
        found.append((list(map(float, box)), {"box": float(true), "mask": float(true) * 0.7, "none": None}[area]))
    return found


def messages(dataset: Dataset, kind: str, deep_range: DeepRange | None = None) -> list[str]:
    _, report = examine(dataset, deep_range=deep_range)
    return [finding.message for finding in [*report.errors, *report.warnings] if finding.kind == kind]


def test_corners_read_as_sizes_are_proved_by_the_area(make: Make) -> None:
    data = make(boxes(10, corners=True, area="box"), boxes(10, corners=True, area="box"))
    (said,) = messages(data, "corners as sizes")
    assert "20 of 20 boxes" in said
    assert "[x1, y1, x2 - x1, y2 - y1]" in said
    with pytest.raises(UserError, match="corners as sizes"):
        check(data)
    assert len(check(data, skip_bad=True)[0]) == 2


@pytest.mark.parametrize("area", ["mask", "none"])
def test_corners_without_proof_are_seen_by_where_they_reach(make: Make, area: str) -> None:
    data = make(boxes(20, corners=True, area=area))
    assert messages(data, "corners as sizes") == []
    (said,) = messages(data, "boxes like corners")
    assert "all lie inside when they are read as corners" in said


@pytest.mark.parametrize("area", ["box", "mask", "none"])
def test_right_boxes_are_not_like_corners(make: Make, area: str) -> None:
    whole = [([3.0, 2.0, 99.0, 99.0], 99.0 * 99)] * 10  # nearly the whole image, drawn carelessly beyond its border
    data = make(boxes(20, corners=False, area=area), whole, [([0.0, 0.0, 50.0, 50.0], 2500.0)] * 5)
    assert messages(data, "corners as sizes") == messages(data, "boxes like corners") == []
    assert messages(make(whole), "boxes like corners") == []


def test_boxes_under_a_pixel_are_counted(make: Make) -> None:
    data = make([([30, 30, 0.001, 0.001], None), ([100.0, 20, 0.5, 60], None), ([10, 10, 1, 1], None)], [])
    (said,) = messages(data, "box under a pixel")
    assert said.startswith("2 of 3 boxes are under a pixel wide or high (the first is in 0.png: 0.001")


def test_more_objects_than_the_metric_counts(make: Make) -> None:
    def grid(number: int) -> list[tuple[list[float], None]]:
        return [([float(4 * (k % 20)), float(4 * (k // 20)), 3.0, 3.0], None) for k in range(number)]

    data = make(grid(100), grid(101), grid(150))
    (said,) = messages(data, "many objects")
    assert said.startswith("2 images have more than 100 objects of one class (most: 2.png, 150)")
    assert messages(make(grid(100)), "many objects") == []


def test_twelve_bits_in_files_of_sixteen_are_black(make: Make) -> None:
    ramp = np.linspace(600, 699, SIDE).astype(np.uint16)[None].repeat(SIDE, 0)
    data = make([], [], pixels=[ramp, ramp])
    for _ in range(2):  # the second time from the memory of the check
        (said,) = messages(data, "deep images")
        assert "2 grey images of more than 8 bits hold values from 600 to 699" in said
        assert "by the range [0, 65535]: they are nearly black (2 to 3 of 255)" in said
        assert "[0, 1023] for 10 bits, or [600, 699]" in said
        assert messages(data, "deep images", DeepRange(0, 1023)) == []
        (said,) = messages(data, "deep images", DeepRange(0, 650))
        assert "all beyond it is cut" in said


def test_deep_images_that_use_their_range_are_fine(make: Make) -> None:
    ramp = np.linspace(0, 60000, SIDE).astype(np.uint16)[None].repeat(SIDE, 0)
    assert messages(make([], pixels=[ramp]), "deep images") == []
    flat = np.full((SIDE, SIDE), 60000, np.uint16)
    (said,) = messages(make([], pixels=[flat]), "deep images")
    assert "nearly of one grey" in said


def test_images_that_are_read_by_different_ranges(make: Make) -> None:
    low = np.linspace(0, 65535, SIDE).astype(np.int32)[None].repeat(SIDE, 0)
    data = make([], [], pixels=[low.astype(np.uint16), low.astype(np.uint16)])
    for record, values in zip(data.records, (low, low * 9), strict=True):
        Image.fromarray(values).save(record.path, "TIFF")
    (said,) = messages(data, "deep images")
    assert "read by different ranges, [0, 65535] and [0, 2.14748e+09]" in said


def test_dark_colours_of_16_bits(make: Make, tmp_path: Path) -> None:
    import cv2

    data = make([])
    cv2.imwrite(str(tmp_path / "0.png"), np.full((SIDE, SIDE, 3), 4095, np.uint16))
    (said,) = messages(data, "deep images")
    assert "colour images of 16 bits are nearly black (at most 15 of 255)" in said
    cv2.imwrite(str(tmp_path / "0.png"), np.full((SIDE, SIDE, 3), 40950, np.uint16))
    assert messages(data, "deep images") == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1e308, float("inf"), float("-inf"), float("nan")])
def test_boxes_beyond_all_measure_are_a_finding_without_warnings_of_numpy(make: Make, number: float) -> None:
    for place in range(4):
        box = [10.0, 10.0, 20.0, 20.0]
        box[place] = number
        _, report = examine(make([(box, None)], boxes(5, corners=False, area="box")))
        assert "invalid box" in report.counts()


def test_categories_of_one_name(make: Make, tmp_path: Path) -> None:
    make(boxes(3, corners=False, area="none"), boxes(2, corners=False, area="none"))
    content = json.loads((tmp_path / "val.json").read_text())
    content["categories"] = [{"id": key, "name": "plate"} for key in (0, 1)] + [{"id": 5, "name": "cup (5)"}]
    (tmp_path / "val.json").write_text(json.dumps(content))
    data = open_dataset(tmp_path / "val.json", strict=False)
    assert messages(data, "similar class names") == [
        "2 categories have the name 'plate', with the ids 0 (0 boxes), 1 (5 boxes); "
        "they are the classes plate (0), plate (1)"
    ]
    content["categories"][2] = {"id": 5, "name": "Plate"}
    (tmp_path / "val.json").write_text(json.dumps(content))
    (said,) = messages(open_dataset(tmp_path / "val.json", strict=False), "similar class names")
    assert "'plate (0)' (0 boxes) and 'plate (1)' (5 boxes) and 'Plate' (0 boxes) may be one class" in said
