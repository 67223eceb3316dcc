"""Small datasets and detections for the tests of the evaluators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singleshot.data.dataset import Dataset, ImageRecord
from singleshot.evaluation.detections import ImageDetections, as_corners

MakeDataset = Callable[..., Dataset]
MakeFound = Callable[..., ImageDetections]


def _record(name: str, rows: Sequence[Sequence[float]], path: Path) -> ImageRecord:
    """Rows are (label, x1, y1, x2, y2) or, with a sixth number, difficult."""
    table = np.array([[*row, 0][:6] for row in rows], np.float64).reshape(-1, 6)
    none = np.zeros(len(table), bool)
    return ImageRecord(
        path=path,
        name=name,
        id=name,
        size=(0, 0),
        boxes=table[:, 1:5],
        labels=table[:, 0].astype(np.int64),
        difficult=table[:, 5] > 0,
        crowd=none,
        truncated=none,
        areas=(table[:, 3] - table[:, 1]) * (table[:, 4] - table[:, 2]),
    )


@pytest.fixture
def make_dataset() -> MakeDataset:
    """make_dataset([rows of image 0, rows of image 1, ...], class_names) -> a VOC dataset without image files."""

    def make(
        images: Sequence[Sequence[Sequence[float]]],
        class_names: Sequence[str] = ("cat",),
        *,
        names: Sequence[str] | None = None,
    ) -> Dataset:
        names = names or [f"{i:06d}" for i in range(len(images))]
        return Dataset(
            root=Path("made"),
            format="voc",
            split="val",
            class_names=tuple(class_names),
            category_ids=tuple(range(1, len(class_names) + 1)),
            records=tuple(_record(name, rows, Path(f"{name}.jpg")) for name, rows in zip(names, images, strict=True)),
        )

    return make


@pytest.fixture
def make_found() -> MakeFound:
    """make_found([(label, score, x1, y1, x2, y2), ...]) -> the detections of one image."""

    def make(rows: Sequence[Sequence[float]] = ()) -> ImageDetections:
        table = np.array(rows, np.float64).reshape(-1, 6)
        return ImageDetections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))

    return make


@pytest.fixture
def coco_dataset() -> Callable[[dict[str, Any]], Dataset]:
    """The dataset of a COCO file's content, in the order of the file."""

    def make(content: dict[str, Any]) -> Dataset:
        category_ids = tuple(category["id"] for category in content["categories"])
        label_of = {category: label for label, category in enumerate(category_ids)}
        of_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        records = []
        for image in content["images"]:
            rows = of_image[image["id"]]
            xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
            none = np.zeros(len(rows), bool)
            records.append(
                ImageRecord(
                    path=Path(image.get("file_name", f"{image['id']}.jpg")),
                    name=image.get("file_name", f"{image['id']}.jpg"),
                    id=image["id"],
                    size=(0, 0),
                    boxes=as_corners(xywh),
                    labels=np.array([label_of[row["category_id"]] for row in rows], np.int64),
                    difficult=none,
                    crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], bool),
                    truncated=none,
                    areas=np.array([row["area"] for row in rows], np.float64),
                    xywh=xywh,
                )
            )
        return Dataset(
            root=Path("made"),
            format="coco",
            split="val",
            class_names=tuple(str(category["name"]) for category in content["categories"]),
            category_ids=category_ids,
            records=tuple(records),
            own_ids=True,
        )

    return make


@pytest.fixture
def coco_found() -> Callable[[Dataset, Sequence[dict[str, Any]]], list[ImageDetections]]:
    """COCO results, already parsed, as detections of a dataset."""

    def make(dataset: Dataset, results: Sequence[dict[str, Any]]) -> list[ImageDetections]:
        label_of = {category: label for label, category in enumerate(dataset.category_ids)}
        of_image: dict[Any, list[dict[str, Any]]] = {record.id: [] for record in dataset.records}
        for result in results:
            of_image[result["image_id"]].append(result)
        found = []
        for record in dataset.records:
            rows = of_image[record.id]
            xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
            found.append(
                ImageDetections(
                    as_corners(xywh),
                    np.array([row["score"] for row in rows], np.float64),
                    np.array([label_of[row["category_id"]] for row in rows], np.int64),
                    xywh=xywh,
                )
            )
        return found

    return make
