"""Make the runs, one after the other: start or resume, measure, and write one line for each."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import singleshot as ss
from recorded import files
from recorded.machine import commit, machine
from recorded.plan import Run, chosen
from singleshot import cli
from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset

LINES = Path(__file__).resolve().parents[1] / "results" / "evidence.jsonl"
_GAP = 300.0  # seconds: a larger gap between two entries of a run's log means that the run was stopped


def read(path: Path = LINES) -> dict[str, dict[str, Any]]:
    """The lines of the finished runs, by name.

    Raises:
        UserError: a line is not a result; the message gives its number.
    """
    found = {}
    for number, text in enumerate(files.texts(path), 1):
        try:
            line = json.loads(text)
            found[line["name"]] = line
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}:{number}: this line is not a result in JSON; correct or remove it") from None
    return found


def run_all(
    data: Path,
    runs: Path,
    only: Collection[str] | None = None,
    lines: Path = LINES,
    say: Callable[[str], None] = print,
) -> None:
    """Make the runs of the plan that have no line yet.

    Raises:
        UserError: an unknown run, lines that cannot be read, another process in this folder, or a command that failed
            (it has printed why).
        KeyboardInterrupt: after Ctrl-C, with the state saved; the next call continues from there.
    """
    plan = chosen(only)
    code = commit()
    with files.only_one(runs, "make other runs (--only) in another folder (--runs)"):
        for run in plan:
            if run.name in read(lines):
                continue
            line = _made(run, data, runs, code, say)
            if not files.append(lines, line, lambda other, name=run.name: other["name"] == name):  # type: ignore[misc]
                say(f"{run.name}: another process was faster, and its result stays")


def _made(run: Run, data: Path, runs: Path, code: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Train one run (or continue it), measure it, and return its line."""
    folder = runs / run.name
    begun = (folder / "state.safetensors").exists()
    command = f"singleshot train --resume {folder}" if begun else run.command(str(folder))
    say(command)
    carry_out(command, data)
    return {
        "name": run.name,
        "detector": run.detector,
        "dataset": run.measured_on,
        "command": run.command(f"runs/{run.name}"),
        **code,
        "date": date.today().isoformat(),
        "machine": machine(),
        "minutes": minutes(files.log(folder)),
        "metrics": (
            measured(folder / "last.safetensors", run.dataset, data)
            if run.by_heart is None
            else remembered(folder / "last.safetensors", data / run.dataset, run.by_heart)
        ),
        "curve": files.curve(folder),
    }


def minutes(log: list[dict[str, Any]]) -> float:
    """The time of a run in minutes, with validation. Gaps between stopping and resuming do not count."""
    times = [entry["time"] for entry in log if "time" in entry]
    gaps = (after - before for before, after in itertools.pairwise(times))
    return round(sum(gap for gap in gaps if gap < _GAP) / 60, 1)


def measured(weights: Path, dataset: str, data: Path) -> dict[str, Any]:
    """All metrics of a weights file on the split `val` of a dataset."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        carry_out(f"singleshot evaluate {weights} $DATA/{dataset} --format voc --split val --json", data)
    metrics: dict[str, Any] = json.loads(out.getvalue())
    return metrics


def remembered(weights: Path, dataset: Path, count: int) -> dict[str, Any]:
    """All metrics of a weights file on the first images of the split `train`."""
    found = ss.open_dataset(dataset, split="train", format="voc", strict=False)
    few = replace(found, records=found.records[:count])
    return ss.evaluate(few, detect_dataset(ss.load(weights), few)).to_json()


def carry_out(command: str, data: Path) -> None:
    """Run a command line of singleshot in this process, so that Ctrl-C reaches it and it saves its state.

    Raises:
        UserError: the command failed.
        KeyboardInterrupt: the command was interrupted.
    """
    code = cli.main([word.replace("$DATA", str(data)) for word in command.split()[1:]])
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"this command ended with exit code {code}: {command}")
