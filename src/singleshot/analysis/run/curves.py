"""How training runs went: their losses and validations, from the logs in their folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singleshot.analysis.run.section import run_section
from singleshot.analysis.section import Section
from singleshot.errors import UserError, short
from singleshot.paths import to_path
from singleshot.training.folder import RunFolder
from singleshot.training.log_lines import GROUPS, read_log
from singleshot.training.recipe import from_yaml


@dataclass(frozen=True)
class Validation:
    """One validation of a run; metrics by group and name, as in `singleshot evaluate --json`."""

    step: int
    epoch: float
    metrics: dict[str, dict[str, float | None]]

    def value(self, metric: str) -> float | None:
        """The metric of a dotted name, such as coco.AP; None: the images leave it undefined."""
        group, _, name = metric.partition(".")
        return self.metrics[group].get(name)


@dataclass(frozen=True)
class Curves:
    """One run. `losses`: term -> its mean since the entry before, at each of `steps`."""

    name: str
    total: int  # steps of the finished run; 0: not known yet
    metric: str  # the metric that its best weights are chosen by
    steps: tuple[int, ...]
    epochs: tuple[float, ...]
    losses: dict[str, tuple[float, ...]]
    validations: tuple[Validation, ...]

    @property
    def best(self) -> Validation | None:
        """The validation with the best value of `metric`, the first if several are equal; None before the first."""
        return max(self.validations, key=lambda one: one.value(self.metric) or 0.0, default=None)

    @property
    def loss(self) -> tuple[float, ...]:
        """The sum of the terms."""
        return tuple(sum(parts) for parts in zip(*self.losses.values(), strict=True))


@dataclass(frozen=True)
class RunAnalysis:
    """Several runs, to compare."""

    runs: tuple[Curves, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"runs": [{**vars(run), "validations": [vars(one) for one in run.validations]} for run in self.runs]}

    def section(self) -> Section:
        """The table and the figure."""
        return run_section(self)


def read_curves(path: str | Path) -> Curves:
    """The curves of a run folder, also while a process is still training in it.

    Raises:
        UserError: it is not a run folder, or its log is damaged.
    """
    folder = RunFolder(to_path(path))
    if not folder.log.is_file() or not folder.recipe.is_file():
        raise UserError(
            f"{path}: this is not a run folder: expected {folder.log.name} and {folder.recipe.name} in it; "
            "give the folder that `singleshot train` wrote"
        )
    entries = _entries(folder.log)
    starts = [entry for entry in entries if entry["kind"] == "start"]
    steps = [entry for entry in entries if entry["kind"] == "step"]
    return Curves(
        name=os.path.basename(os.path.realpath(folder.path)),
        total=starts[-1]["total"] if starts else 0,
        metric=from_yaml(folder.recipe).validation.metric,
        steps=tuple(entry["step"] for entry in steps),
        epochs=tuple(entry["epoch"] for entry in steps),
        losses={
            term: tuple(entry["losses"][term] for entry in steps) for term in (steps[0]["losses"] if steps else ())
        },
        validations=tuple(
            Validation(entry["step"], entry["epoch"], {name: entry["metrics"][name] for name in GROUPS})
            for entry in entries
            if entry["kind"] == "validation"
        ),
    )


def analyse_runs(paths: Sequence[str | Path]) -> RunAnalysis:
    """The curves of several run folders."""
    return RunAnalysis(tuple(read_curves(path) for path in paths))


def _entries(log: Path) -> list[dict[str, Any]]:
    """The lines of a log, without a last line that is still being written."""
    lines = [line for line in read_log(log) if not line.half]
    terms = next((line.entry["losses"].keys() for line in lines if line.entry.get("kind") == "step"), None)
    for line in lines:
        problem = line.problem
        if line.entry.get("kind") == "step" and line.entry["losses"].keys() != terms:
            problem = f"the losses are {short(list(line.entry['losses']))}, not those of the lines before"
        if problem:
            raise UserError(f"{log}:{line.number}: {problem}; the log is damaged: remove this line")
    return [line.entry for line in lines]
