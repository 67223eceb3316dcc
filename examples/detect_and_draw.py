"""Find objects in pictures from Python: in one picture, in many pictures, and draw them.

    python examples/detect_and_draw.py runs/cells/best.safetensors photos/

Without arguments, an untrained detector looks at three generated pictures, to show the calls.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import singleshot as ss
from singleshot.data.shapes import CLASS_NAMES, draw_shapes
from singleshot.inference.predictor import iterate


def main(arguments: list[str] | None = None) -> None:
    """Detect objects in one picture, then in all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="a detector's file")
    parser.add_argument("sources", nargs="*", help="image files, folders, globs")
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument("--top-k", type=int, help="largest number of objects in a picture")
    parser.add_argument("--out", type=Path, default=Path("found"))
    choices = parser.parse_args(arguments)
    if choices.model is None:
        detector = ss.ssd(num_classes=5, class_names=CLASS_NAMES, backbone="mobilenetv2", image_size=96)
        choices.sources, choices.top_k = [str(make_pictures(Path("pictures")))], 5
    else:
        detector = ss.load(choices.model)

    # A folder of any size: pictures are read, searched, drawn and forgotten batch by batch, in order.
    kept = {"threshold": choices.threshold, "top_k": choices.top_k}
    for prediction in iterate(detector, choices.sources, out=choices.out, **kept):
        print(f"{prediction.path}: {len(prediction)} objects")

    # One picture, given as a path, a PIL image, an array [H, W, 3] or a tensor [3, H, W].
    pixels = ss.read_image(str(prediction.path))
    found = detector.predict(pixels)
    for box, score, name in list(zip(found.boxes.tolist(), found.scores.tolist(), found.names, strict=True))[:3]:
        print(f"  {name} {score:.2f} at {[round(value) for value in box]}")
    picture = ss.draw(pixels, found, threshold=choices.threshold)
    Image.fromarray(picture).save(choices.out / "last.png")
    print("pictures and detections.json:", choices.out)


def make_pictures(folder: Path) -> Path:
    """Three generated pictures."""
    folder.mkdir(exist_ok=True)
    for i in range(3):
        Image.fromarray(draw_shapes(np.random.default_rng(i)).image).save(folder / f"{i}.png")
    return folder


if __name__ == "__main__":
    main()
