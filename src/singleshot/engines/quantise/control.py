"""Accuracy control: which layers stay float32, so that an int8 model finds what the detector finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from singleshot.engines.quantise.quantiser import Quantiser


@dataclass(frozen=True)
class Judged:
    """What was measured of an int8 file."""

    good: bool  # whether it finds what the detector finds, within the tolerance
    quality: float  # what is compared: AP (0 to 1), or the share of the same objects; more is better
    ms: float  # of one image
    megabytes: float


@dataclass(frozen=True)
class Step:
    """One try: the layers that stayed float32, and what was measured."""

    kept: tuple[str, ...]
    judged: Judged


def controlled(
    quantiser: Quantiser,
    path: Path,
    judge: Callable[[Path], Judged],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[Step]:
    """Write an int8 file in which as few layers as possible are float32, so that it is judged good. Returns the tries.

    At first all layers are int8. If that is not good, those that move the outputs most by themselves stay float32: 1,
    2, 4, ... of them, up to half of the layers. The file at `path` is that of the last try, good or not.
    """
    steps: list[Step] = []
    ranked: Sequence[str] = ()
    kept = 0
    while True:
        quantiser.write(path, ranked[:kept])
        steps.append(Step(tuple(ranked[:kept]), judge(path)))
        if steps[-1].judged.good or kept >= len(quantiser.layers) // 2:
            return steps
        if not ranked:
            say("int8 in all layers costs too much; looking for the layers that cost most")
            costs = quantiser.costs()
            ranked = sorted(quantiser.layers, key=lambda layer: -costs[layer])
        kept = max(1, 2 * kept)
        say(f"trying with the {kept} most costly of {len(ranked)} layers in float32")
