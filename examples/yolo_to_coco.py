"""Write COCO files for a folder with YOLO labels, so that every command can use it.

    python examples/yolo_to_coco.py my_data
    singleshot data check my_data

`my_data` has images in `images/train` and `images/val` (or in `train/images`, or anywhere). Each image has a text file
with lines `class x y width height` in fractions of the image. It is beside the image, or in `labels` in place of
`images`. Polygons become the boxes around them. An image without a text file has no objects. The class names come from
`data.yaml` (or another YAML file there), `classes.txt` or `obj.names`. The output is
`annotations/instances_SPLIT.json`; no other file is changed, and no file is overwritten.

Without a folder, it converts a few generated pictures to show that everything works.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import singleshot as ss
from singleshot.data.images import IMAGE_SUFFIXES
from singleshot.data.open import find_splits, open_dataset
from singleshot.data.shapes import write_shapes

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def main(arguments: list[str] | None = None) -> None:
    """Read all labels, then write a file for each split."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", type=Path, help="the folder with images and labels")
    root = parser.parse_args(arguments).data or few_shapes(Path("shapes_yolo"))
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ss.UserError(f"{root}: no images in this folder; give the folder that holds images and labels")
    contents: dict[str, dict[str, Any]] = defaultdict(lambda: {"images": [], "annotations": []})
    for number, path in enumerate(images, 1):
        with Image.open(path) as image:
            width, height = image.size
        content = contents[split_of(path.relative_to(root))]
        name = path.relative_to(root).as_posix()
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for label, x1, y1, x2, y2 in read_labels(label_file(path)):
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": int(label) + 1}
            content["annotations"].append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    names = class_names(
        root, 1 + max((a["category_id"] - 1 for c in contents.values() for a in c["annotations"]), default=0)
    )
    (root / "annotations").mkdir(exist_ok=True)
    for split, content in contents.items():
        file = root / "annotations" / f"instances_{split}.json"
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        with file.open("x", encoding="utf-8") as stream:  # "x": never overwrite a file
            json.dump(content, stream)
        print(f"{file}: {len(content['images'])} images, {len(content['annotations'])} boxes, {len(names)} classes")


def split_of(path: Path) -> str:
    """The split that a folder of the path is named after; `all` if there is none."""
    return next((SPLITS[part.lower()] for part in path.parts[:-1] if part.lower() in SPLITS), "all")


def label_file(image: Path) -> Path:
    """The label file: beside the image, or in `labels` in place of the last `images` in its path."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            parts[place] = "labels"
            break
    return Path(*parts) if Path(*parts).exists() else image.with_suffix(".txt")


def read_labels(file: Path) -> list[tuple[float, float, float, float, float]]:
    """Class and corners of each object, in fractions of the image; empty if there is no file."""
    found = []
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), 1):
        if not line.strip():
            continue
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            values = []
        if len(values) == 4:
            x, y, width, height = values
            found.append((label, x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        elif len(values) >= 6 and len(values) % 2 == 0:
            corners = np.reshape(values, (-1, 2))
            found.append((label, *(float(side) for side in (*corners.min(0), *corners.max(0)))))
        else:
            raise ss.UserError(
                f"{file}:{number}: expected `class x y width height`, or the corners of a polygon, got {line!r}"
            )
    return found


def class_names(root: Path, count: int) -> list[str]:
    """The class names from the files of the folder; without such files, the numbers of the classes."""
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        names = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("names")
        if names:
            return (
                [str(name) for _, name in sorted(names.items())] if isinstance(names, dict) else list(map(str, names))
            )
    for file in (root / "classes.txt", root / "obj.names"):
        if file.exists():
            return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [str(number) for number in range(count)]


def few_shapes(root: Path) -> Path:
    """Generated pictures with YOLO labels."""
    voc = write_shapes(root.with_name("shapes_to_convert"), train=4, val=2) / "voc"
    names: tuple[str, ...] = ()
    for split in find_splits(voc):
        dataset = open_dataset(voc, split=split)
        names = dataset.class_names
        for record in dataset.records:
            folder = root / "images" / split
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(record.path, folder)
            size = np.array(record.size[::-1])
            centres, sides = (
                (record.boxes[:, 2:] + record.boxes[:, :2]) / 2 / size,
                np.ptp(record.boxes.reshape(-1, 2, 2), 1),
            )
            rows = np.column_stack([record.labels, centres, sides / size])
            labels = root / "labels" / split / f"{record.name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text(
                "".join(f"{int(row[0])} {' '.join(f'{value:.6f}' for value in row[1:])}\n" for row in rows)
            )
    (root / "data.yaml").write_text(
        yaml.safe_dump({"train": "images/train", "val": "images/val", "names": list(names)})
    )
    return root


if __name__ == "__main__":
    main()
