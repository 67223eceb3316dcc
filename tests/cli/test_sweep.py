"""The values of `--sweep`."""

from __future__ import annotations

import pytest

from singleshot.cli.sweep import Sweep, sweep_of
from singleshot.errors import UserError

PAPER = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("nms=0.4,0.5", "nms", (0.4, 0.5)),
        ("iou_alpha=product, 0.5 ,1", "iou_alpha", ("product", 0.5, 1.0)),
        ("iou-alpha=none", "iou_alpha", ("product",)),
        ("iou_alpha=1,0.9,...,0", "iou_alpha", PAPER),
        ("iou_alpha=product,1,0.9,...,0", "iou_alpha", ("product", *PAPER)),
        ("candidates=100,200,...,500,1000", "candidates", (100.0, 200.0, 300.0, 400.0, 500.0, 1000.0)),
        ("nms=0.5,0.5,0.5", "nms", (0.5,)),
        ("soft-nms=none,0.3", "soft_nms", ("none", 0.3)),
    ],
)
def test_values(text: str, name: str, values: tuple[float | str, ...]) -> None:
    assert sweep_of(text) == Sweep(name, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nms", "expected NAME=VALUE,VALUE"),
        ("nms=", "expected NAME=VALUE,VALUE"),
        ("=1,2", "expected NAME=VALUE,VALUE"),
        ("nms=0.5,,0.6", "expected NAME=VALUE,VALUE"),
        ("nms=half", "expected numbers between the commas .*, got 'half'"),
        ("nms=nan", "expected numbers between the commas .*, got 'nan'"),
        ("nms=...,1", "'...' needs two numbers before it and one after it"),
        ("nms=1,...,0", "'...' needs two numbers before it and one after it"),
        ("nms=1,0.9,...", "'...' needs two numbers before it and one after it"),
        ("nms=1,product,...,0", "expected numbers between the commas .*, got 'product'"),
        ("nms=1,0.7,...,0", r"steps of -0.3 from 0.7 do not end at 0; write all values"),
        ("nms=0,0.1,...,-1", "do not end at -1"),
        ("nms=1,1,...,0", "do not end at 0"),
        ("nms=0,0.000001,...,1", "at most 1000 values"),
    ],
)
def test_what_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"--sweep: .*{said}"):
        sweep_of(text)
