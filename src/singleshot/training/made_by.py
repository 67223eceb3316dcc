"""What a saved state was made by: all that would make a continued run another one."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from singleshot.data.dataset import Dataset

SAMPLED = 1000  # files of a dataset whose bytes are read; of the others the size alone counts
BLOCK = 16 * 1024  # bytes that are read at the start, in the middle and at the end of a file


@dataclass(frozen=True)
class MadeBy:
    """What a state was made by, as plain data. An empty or zero field is not known: an older program saved the state.

    Of files the content counts, never the time or the folder: a dataset that was copied is the same dataset.
    """

    recipe: dict[str, Any] = field(default_factory=dict)  # every setting, as plain data
    train: str = ""  # images and objects to train on
    pixels: str = ""  # the image files of these
    val: str = ""  # images, objects and image files to validate on
    processes: int = 0
    threads: int = 0  # of torch, in each process
    torch: str = ""
    machine: str = ""


def objects(dataset: Dataset, *, areas: bool = False) -> str:
    """Tells whether two runs see the same objects. `areas`: those of the file count too (COCO's metric uses them)."""
    digest = hashlib.sha256(repr((dataset.class_names, len(dataset))).encode(errors="backslashreplace"))
    for record in dataset.records:
        digest.update(record.name.encode(errors="backslashreplace"))
        for values in (record.boxes, record.labels, record.difficult, record.crowd, *([record.areas] if areas else [])):
            digest.update(values.tobytes())
    objects = sum(len(record.labels) for record in dataset.records)
    return f"{len(dataset)} images, {objects} objects, fingerprint {digest.hexdigest()[:12]}"


def image_files(paths: Sequence[Path]) -> str:
    """Tells whether files were changed: by the size of each, and by some bytes of up to `SAMPLED` of them."""
    digest, total = hashlib.sha256(), 0
    step = max(1, -(-len(paths) // SAMPLED))
    for index, path in enumerate(paths):
        try:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            total += size
            if index % step == 0:
                digest.update(_sample(path, size))
        except OSError:  # the reading of the image says what is wrong
            digest.update(b"unreadable")
    return f"{total:,} bytes, fingerprint {digest.hexdigest()[:12]}"


def _sample(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= 3 * BLOCK:
            return file.read(3 * BLOCK)
        content = file.read(BLOCK)
        for place in ((size - BLOCK) // 2, size - BLOCK):
            file.seek(place)
            content += file.read(BLOCK)
        return content


def machine(device: torch.device) -> str:
    """The processor, as far as it decides how numbers are rounded: its kind and instructions, or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
