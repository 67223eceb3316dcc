"""The metrics of one pass of a network with several post-processings, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from singleshot.evaluation.metrics import Metrics

# The columns of Tables 3 and 4 of the IoU-aware paper together.
COLUMNS = ("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APs", "APm", "APl")

Value = float | str


@dataclass(frozen=True)
class Sweep:
    """The metrics for each value of one number of the post-processing."""

    name: str  # such as "iou_alpha"
    values: tuple[Value, ...]
    metrics: tuple[Metrics, ...]  # one for each value

    def to_json(self) -> dict[str, Any]:
        """Plain data: the name, and `Metrics.to_json` for each value; "coco" also has AP55 .. AP95."""
        results = []
        for value, metrics in zip(self.values, self.metrics, strict=True):
            document = metrics.to_json()
            document["coco"].update(metrics.coco.by_iou)
            results.append({self.name: value, **document})
        return {"sweep": self.name, "results": results}

    def table(self) -> str:
        """A readable table in percent, with "-" where there is nothing to find and "*" at the best AP."""
        numbers = [{**metrics.coco.numbers, **metrics.coco.by_iou} for metrics in self.metrics]
        rows = [[found[name] for name in COLUMNS] for found in numbers]
        best = max((row[0] for row in rows), default=-1.0)
        header = [self.name, *COLUMNS]
        lines = [header]
        for value, row in zip(self.values, rows, strict=True):
            marked = f"{_shown(value)}{' *' if row[0] == best > 0 else ''}"
            lines.append([marked, *("-" if number < 0 else f"{100 * number:.1f}" for number in row)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        return "\n".join(
            [text[0], "-" * len(text[0]), *text[1:], "", "COCO (%), AP50 .. AP90 at a single IoU; * best AP"]
        )


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
