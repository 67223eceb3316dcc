"""A toy importer: the weights of a project that writes slashes. One file, and one line in `IMPORTERS`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from singleshot.weights.importers.importer import Source

TITLE = "the toys' SSD"


def recognises(source: Source) -> bool:
    """All of its names begin alike."""
    return bool(source.tensors) and all(name.startswith("toy/") for name in source.tensors)


def builder(source: Source) -> tuple[str, dict[str, Any]]:
    """The toys have one network, of two classes."""
    return "ssd", {"num_classes": 2, "backbone": "mobilenetv2", "image_size": 64}


def rename(key: str, source: Source) -> list[str]:
    """Slashes for dots."""
    return [f"toy/{key.replace('.', '/')}"]


def unneeded(key: str) -> bool:
    """What the training left behind."""
    return key.startswith("toy/optimizer/")


def finish(state: dict[str, Tensor], source: Source) -> None:
    """The toys mean the same."""
