"""`singleshot models`: every detector, its parts and its size."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

EPILOG = """\
The numbers are computed from the built networks, for 20 classes. A multiply and an add count as two operations.
In Python, singleshot.create(NAME, num_classes=...) builds any of them."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    return VerbParser("models", "Lists every detector that can be built by name.", EPILOG).parse(words)


def run(options: Namespace) -> Result:
    """Build all of them, and list their numbers."""
    from singleshot import detectors

    found = detectors.models()
    rows = [
        [
            model["name"],
            _size(model["input"]),
            f"{model['parameters'] / 1e6:.2f} M",
            model["boxes"],
            f"{model['gflops']:.1f}",
            _published(model["published"]),
        ]
        for model in found
    ]
    header = ["name", "input", "parameters", "boxes", "GFLOPs", "published"]
    return Result(found, table(rows, header=header))


def _size(size: object) -> str:
    return "x".join(str(side) for side in size) if isinstance(size, list | tuple) else str(size)


def _published(published: object) -> str:
    if isinstance(published, dict):
        return ", ".join(f"{name} {figure}" for name, figure in published.items())
    return "-" if published is None else str(published)
