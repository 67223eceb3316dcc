"""What was measured, as data, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from singleshot.benchmarking.machine import Machine
from singleshot.benchmarking.timing import Spread
from singleshot.text_table import aligned


@dataclass(frozen=True)
class Line:
    """One model on one engine in one precision, with one size of batch. Times are milliseconds for each image."""

    model: str
    engine: str
    precision: str
    batch: int
    input: tuple[int, int]
    ms: Spread
    parts: dict[str, float]  # medians; their names depend on the engine
    gflops: float | None  # of the network, for one image; None: not known (an exported file)
    parameters: int | None
    share: float | None  # of the measured rate of matrix products, reached while the network runs
    detections: float  # for each image, on average
    ap: float | None = None  # COCO's AP in per cent, if there was data to measure it on

    @property
    def images_per_second(self) -> float:
        """From image file to detections."""
        return 1000.0 / self.ms.median

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "input": list(self.input), "images_per_second": round(self.images_per_second, 3)}


@dataclass(frozen=True)
class Benchmark:
    """All lines of one measurement, and what they depend on."""

    machine: Machine
    lines: tuple[Line, ...]
    rates: dict[str, float | None]  # precision -> measured operations a second in products of matrices
    left_out: tuple[str, ...]  # what was not measured, and why
    images: str
    scores: dict[str, str]  # model -> what its post-processing got to do
    rounds: int
    complete: bool = True  # False: interrupted

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "machine": self.machine.to_json(),
            "gflop_rates": {name: None if rate is None else round(rate / 1e9, 2) for name, rate in self.rates.items()},
            "images": self.images,
            "scores": self.scores,
            "rounds": self.rounds,
            "complete": self.complete,
            "left_out": list(self.left_out),
            "lines": [line.to_json() for line in self.lines],
        }

    def table(self) -> str:
        """Readable text: the machine, the whole times, and where the time goes."""
        rates = [f"{name} {rate / 1e9:,.0f}" for name, rate in self.rates.items() if rate is not None]
        text = [self.machine.line(), f"matrix products, GFLOP/s: {', '.join(rates) or 'not measured'}"]
        text.append(f"{self.images}; medians of {self.rounds} rounds, ms an image, from image file to detections")
        if self.lines:
            text += ["", self._whole(), "", *self._parts()]
        text += [f"{name}: {about}" for name, about in self.scores.items()]
        text += [f"left out: {reason}" for reason in self.left_out]
        if not self.complete:
            text.append("interrupted: only what was measured so far")
        return "\n".join(text)

    def plot(self, path: str | Path) -> None:
        """Draw accuracy, or the network's size where none was measured, against the time for each image."""
        from singleshot.benchmarking.plot import draw

        draw(self, path)

    def _whole(self) -> str:
        accurate = any(line.ap is not None for line in self.lines)
        header = [
            "model",
            "input",
            "engine",
            "precision",
            "batch",
            "ms",
            "quartiles",
            "images/s",
            "of limit",
            "objects",
        ]
        cells = [header + ["AP"] * accurate]
        for line in self.lines:
            share = "-" if line.share is None else f"{100 * line.share:.0f} %"
            cells.append([
                line.model, f"{line.input[0]}x{line.input[1]}", line.engine, line.precision, str(line.batch),
                f"{line.ms.median:.1f}", f"{line.ms.low:.1f}-{line.ms.high:.1f}", f"{line.images_per_second:.1f}",
                share, f"{line.detections:.0f}",
                *["-" if line.ap is None else f"{line.ap:.1f}"] * accurate,
            ])  # fmt: skip
        return aligned(cells, [False, False, False, False, True, True, True, True, True, True, True][: len(cells[0])])

    def _parts(self) -> list[str]:
        """One table for each way of dividing the time."""
        text = []
        for names in dict.fromkeys(tuple(line.parts) for line in self.lines):
            mine = [line for line in self.lines if tuple(line.parts) == names]
            cells = [["model", "engine", "precision", "batch", *(f"{name}, ms (%)" for name in names)]]
            for line in mine:
                whole = sum(line.parts.values()) or 1.0
                parts = [f"{ms:.1f} ({100 * ms / whole:.0f})" for ms in line.parts.values()]
                cells.append([line.model, line.engine, line.precision, str(line.batch), *parts])
            text += [aligned(cells, [False, False, False, *[True] * (1 + len(names))]), ""]
        return text
