"""Writes the generated pictures as a Pascal VOC folder and as a COCO folder with the same ground truth."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np

from singleshot.data.shapes.draw import CLASS_NAMES, HIDDEN, SIDES, ShapesImage, draw_shapes
from singleshot.errors import UserError
from singleshot.paths import to_path

_QUALITY = 92  # JPEG quality
_MARK = "shapes.json"  # the file that describes a finished folder
_VERSION = 1  # of the pictures; raise it when the same seed gives different pictures


def write_shapes(out: str | Path, *, train: int = 600, val: int = 150, size: int = 256, seed: int = 0) -> Path:
    """Draw the dataset into `out` and return `out`: `out/voc` and `out/coco` hold the same images and boxes.

    The splits `train` and `val` have that many images of `size` x `size` pixels. Image i of a split depends only on
    (seed, split, i). A folder that already holds exactly this dataset is not changed. The folder appears only when it
    is complete. Raises `UserError` if `out` holds anything else or cannot be written, and for a size below 160.

    Boxes are xyxy in pixels, clipped to the image. They enclose the whole shape, including its hidden parts. Both
    formats have the same numbers. In VOC's files a shape cut by the edge is `truncated`, and a partly hidden one
    `occluded`.
    """
    out = to_path(out)
    if seed < 0:
        raise UserError(f"seed {seed}: give 0 or a positive whole number.")
    if size < SIDES[1]:
        raise UserError(f"pictures of {size} x {size} pixels: the largest shapes need {SIDES[1]:.0f} or more.")
    contents = {"version": _VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if (out / _MARK).is_file() and _read_mark(out / _MARK) == contents:
        return out
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError(f"{out} already exists and does not hold this dataset. Choose another folder.")
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        for index, (split, count) in enumerate((("train", train), ("val", val))):
            drawn = (draw_shapes(np.random.default_rng([seed, index, i]), size) for i in range(count))
            _write_split(partial, split, [_write_image(partial, split, i, image) for i, image in enumerate(drawn)])
        (partial / _MARK).write_text(json.dumps(contents))
        if out.exists():
            out.rmdir()  # empty, as seen above
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}). Free some space, or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _read_mark(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def _write_image(root: Path, split: str, index: int, drawn: ShapesImage) -> tuple[str, ShapesImage]:
    """Write the picture and its XML file; return the stem."""
    stem = f"{split}_{index:05d}"
    voc, coco = root / "voc" / "JPEGImages" / f"{stem}.jpg", root / "coco" / split / f"{stem}.jpg"
    for path in (voc, coco):
        path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    voc.write_bytes(encoded[1].tobytes())
    try:
        os.link(voc, coco)  # one file under two names
    except OSError:  # a file system without links
        shutil.copyfile(voc, coco)
    annotation = root / "voc" / "Annotations" / f"{stem}.xml"
    annotation.parent.mkdir(parents=True, exist_ok=True)
    annotation.write_text(_xml(stem, drawn))
    return stem, drawn


def _xml(stem: str, drawn: ShapesImage) -> str:
    height, width, depth = drawn.image.shape
    lines = [
        "<annotation>",
        f"  <filename>{escape(stem)}.jpg</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>{depth}</depth></size>",
    ]
    for box, label, visible, truncated in zip(
        drawn.boxes.tolist(), drawn.labels.tolist(), drawn.visible.tolist(), drawn.truncated.tolist(), strict=True
    ):
        corners = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += [
            "  <object>",
            f"    <name>{CLASS_NAMES[label]}</name>",
            f"    <truncated>{int(truncated)}</truncated>",
            f"    <occluded>{int(visible < HIDDEN)}</occluded>",
            "    <difficult>0</difficult>",
            f"    <bndbox>{corners}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _write_split(root: Path, split: str, images: list[tuple[str, ShapesImage]]) -> None:
    """Write VOC's list of a split and COCO's JSON file."""
    lists = root / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem, _ in images))

    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASS_NAMES)],
    }
    for image_id, (stem, drawn) in enumerate(images, start=1):
        height, width, _ = drawn.image.shape
        document["images"].append({"id": image_id, "file_name": f"{stem}.jpg", "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(drawn.boxes.tolist(), drawn.labels.tolist(), strict=True):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    folder = root / "coco" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"instances_{split}.json").write_text(json.dumps(document))
