"""`singleshot models`: every detector, its parts and its size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jsonargparse import Namespace

from singleshot.cli.output import Result, table
from singleshot.cli.parser import VerbParser

EPILOG = """\
The numbers are computed from the built networks, for 20 classes. A multiply and an add count as two operations.
In Python, singleshot.create(NAME, num_classes=...) builds any of them.
Weights that others publish: `imagenet` means those of the backbone (`train --backbone-weights imagenet`). A star: the
file is here, in the cache or in an installed package. `singleshot download` lists all, and fetches one by its name."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of this verb."""
    return VerbParser("models", "Lists every detector that can be built by name.", EPILOG).parse(words)


def run(options: Namespace) -> Result:
    """List the numbers of all, as `detectors.models` measured them: building all networks takes seconds."""
    text = (resources.files("singleshot.cli") / "models.json").read_text(encoding="utf-8")
    found = []
    for model in json.loads(text):
        backbone = model.pop("backbone")
        found.append({**model, "weights": _weights(model, backbone)})
    rows = [
        [
            model["name"],
            _size(model["input"]),
            f"{model['parameters'] / 1e6:.2f} M",
            model["boxes"],
            f"{model['gflops']:.1f}",
            _summary(model["weights"]),
            _published(model["published"]),
        ]
        for model in found
    ]
    header = ["name", "input", "parameters", "boxes", "GFLOPs", "weights", "published"]
    trained = [
        [model["name"], ", ".join(_short(one) for one in model["weights"] if one["detector"])]
        for model in found
        if any(one["detector"] for one in model["weights"])
    ]
    lines = ["Trained detectors that others publish (`singleshot download NAME`; *: here):"]
    lines += [f"  {name}: {names}" for name, names in trained]
    return Result(found, "\n".join([table(rows, header=header), "", *lines]))


def _weights(model: dict[str, Any], backbone: str | None) -> list[dict[str, Any]]:
    """The published weights of a variant: of its backbone, and trained detectors."""
    from singleshot.catalogue import CATALOGUE, IMAGENET, described, of_backbone

    known = of_backbone(backbone or "")
    # What is called NAME-... is trained as the variant NAME.
    trained = [one for one in CATALOGUE.values() if one.detector and one.name.partition("-")[0] == model["name"]]
    # Of the backbone's the first is enough here.
    return [{**described(one), "word": IMAGENET} for one in known[:1]] + [
        {**described(one), "word": one.name} for one in trained
    ]


def _summary(weights: list[dict[str, Any]]) -> str:
    number = sum(one["detector"] is not None for one in weights)
    backbone = [_short(one) for one in weights if one["detector"] is None]
    return ", ".join(backbone + [f"{number} trained"] * (number > 0)) or "-"


def _short(weights: dict[str, Any]) -> str:
    return f"{weights['word']}{'*' if weights['here'] else ''}"


def _size(size: object) -> str:
    return "x".join(str(side) for side in size) if isinstance(size, list | tuple) else str(size)


def _published(published: object) -> str:
    if isinstance(published, dict):
        return ", ".join(f"{name} {figure}" for name, figure in published.items())
    return "-" if published is None else str(published)
