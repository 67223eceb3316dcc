"""What every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # tests run side by side; the small tensors here gain nothing from more threads


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that is kept beside the repository; tests that ask for it are skipped without it."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("SINGLESHOT_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set SINGLESHOT_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Pascal VOC folder, not to be changed: classes cell and other, splits train (4 images) and val (2), 96x72."""
    root = tmp_path_factory.mktemp("tiny") / "voc"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, names in {"train": "abcd", "val": "ef"}.items():
        for name in names:
            _write_image(root, name, random)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def _write_image(root: Path, name: str, random: np.random.Generator) -> None:
    pixels = random.integers(0, 60, (72, 96, 3), np.uint8)
    objects = ""
    for kind, (left, top) in {"cell": (8, 8), "other": (52, 30)}.items():
        pixels[top : top + 32, left : left + 32] = (200, 40, 40) if kind == "cell" else (40, 200, 40)
        corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{left + 32}</xmax><ymax>{top + 32}</ymax>"
        objects += f"<object><name>{kind}</name><bndbox>{corners}</bndbox></object>"
    Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
    size = "<size><width>96</width><height>72</height><depth>3</depth></size>"
    annotation = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(annotation)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an untrained detector for the classes of `tiny_voc`."""
    import singleshot

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny") / "model.safetensors"
    names = ("cell", "other")
    detector = singleshot.ssd(num_classes=2, class_names=names, backbone="mobilenetv2", image_size=64)
    singleshot.save(detector, path)
    return path
