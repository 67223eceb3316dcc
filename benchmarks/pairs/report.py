"""The recorded runs as Markdown, and which runs are still missing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recorded import markdown

from pairs.experiment import Comparison, Experiment
from pairs.records import Line
from pairs.statistics import interval, verdict

Lines = Mapping[tuple[str, int], Line]  # by (arm, seed)


def value(line: Line, metric: str, view: str = "") -> float:
    """A metric in AP points (per cent)."""
    metrics = line["views"][view] if view else line["metrics"]
    voc = {name: metrics[key]["mAP"] for name, key in (("VOC07", "voc07"), ("VOC10", "voc10")) if key in metrics}
    return 100.0 * float({**metrics["coco"], **metrics["coco_iou"], **voc}[metric])


def table(experiment: Experiment, lines: Lines) -> str:
    """Every run, each arm's mean, the paired differences and the verdicts."""
    done, total = len(lines), len(experiment.runs)
    metrics = experiment.metrics
    parts = [f"### Paired experiment `{experiment.name}`", _about(experiment, lines, done, total)]
    if lines:
        runs = [
            [str(seed), arm, *_points(value(line, metric, view) for metric in metrics), *_origin(line, view)]
            for (name, seed), line in lines.items()
            for arm, view in _sides(experiment, name)
        ]
        parts.append(markdown.table(["seed", "arm", *metrics, "minutes", "commit", "date"], runs))
        parts.append("Mean and standard deviation over the seeds:")
        parts.append(markdown.table(["arm", "runs", *metrics], _means(experiment, lines)))
        parts.append(_rules(experiment))
        header = ["difference", "metric", *(f"seed {seed}" for seed in experiment.seeds)]
        header += ["mean", "s.e.", "95% interval", "claimed", "published", "verdict"]
        parts.append(markdown.table(header, [_row(experiment, each, lines) for each in experiment.comparisons]))
        sources = dict.fromkeys(_source(experiment, each) for each in experiment.comparisons if each.claim.source)
        if sources:
            parts.append("\n".join(["Published figures:", "", *(f"- {source}" for source in sources)]))
    return "\n\n".join(parts)


def _rules(experiment: Experiment) -> str:
    directions = {comparison.claim.direction for comparison in experiment.comparisons}
    rules = ["Shown: the interval excludes 0 on the claimed side", "opposite: on the other side"]
    if "same" in directions:
        rules.append('for "same", shown: it lies inside of the margin')
    if "none" in directions:
        rules.append('for "none", helps: it lies above 0, hurts: it lies below 0')
    return (
        "Differences between runs of the same seed, their mean, its standard error and its 95% t-interval. "
        f"{'; '.join(rules)}. Each interval stands for itself: with {len(experiment.comparisons)} of them, one in "
        "twenty would exclude 0 by chance."
    )


def _about(experiment: Experiment, lines: Lines, done: int, total: int) -> str:
    arms = ", ".join(f"`{arm}`" for arm in experiment.arms)
    text = (
        f"`python benchmarks/paired.py run {experiment.name}` makes the runs: set {experiment.data}, arms {arms} "
        f"(baseline `{experiment.baseline}`), seeds {', '.join(map(str, experiment.seeds))}. {done} of {total} runs "
        "are done. Figures are AP points of the last (averaged) weights on the split `val`."
    )
    machines = dict.fromkeys(_machine(line["machine"]) for line in lines.values())
    if machines:
        text += f" Machine{'s' * (len(machines) > 1)}: {'; '.join(machines)}."
    if any(session["dirty"] for line in lines.values() for session in line["sessions"]):
        text += " A star marks commits with changes that were not committed."
    return text


def _machine(found: dict[str, Any]) -> str:
    return f"{found['cpu']}, {found['cores']} cores, torch {found['torch']}, Python {found['python']}"


def _sides(experiment: Experiment, arm: str) -> list[tuple[str, str]]:
    """(name in the table, view) of an arm: the arm itself, and its views."""
    return [(arm, ""), *((f"{arm}:{view}", view) for view in experiment.arms[arm].views)]


def _origin(line: Line, view: str) -> list[str]:
    if view:
        return ["", "", ""]
    commits = dict.fromkeys(f"{each['commit']}{'*' * each['dirty']}" for each in line["sessions"])
    return [f"{line['seconds'] / 60:.1f}", ", ".join(commits), line["date"]]


def _means(experiment: Experiment, lines: Lines) -> Iterable[list[str]]:
    for arm in experiment.arms:
        mine = [line for (name, _), line in lines.items() if name == arm]
        for name, view in _sides(experiment, arm) if mine else []:
            cells = []
            for metric in experiment.metrics:
                values = [value(line, metric, view) for line in mine]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.2f}{spread}")
            yield [name, str(len(mine)), *cells]


def paired(experiment: Experiment, comparison: Comparison, lines: Lines) -> dict[int, float]:
    """Seed -> difference in AP points, for the seeds whose two runs are done."""
    found = {}
    for seed in experiment.seeds:
        both = []
        for side in (comparison.arm, comparison.against or experiment.baseline):
            arm, _, view = side.partition(":")
            line = lines.get((arm, seed))
            if line is not None:
                gain = value(line, comparison.metric, view)
                both.append(gain - value(line, comparison.beyond, view) if comparison.beyond else gain)
        if len(both) == 2:
            found[seed] = both[0] - both[1]
    return found


def _row(experiment: Experiment, comparison: Comparison, lines: Lines) -> list[str]:
    found, claim = paired(experiment, comparison, lines), comparison.claim
    row = [f"{comparison.arm} - {comparison.against or experiment.baseline}", comparison.measured]
    row += [f"{found[seed]:+.2f}" if seed in found else "" for seed in experiment.seeds]
    claimed = f"same (± {claim.margin:g})" if claim.direction == "same" else claim.direction
    if len(found) < 2:
        return [*row, "", "", "", claimed, claim.figure, _unfinished(found, experiment)]
    result = interval(list(found.values()))
    row += [f"{result.mean:+.2f}", f"{result.error:.2f}", f"{result.low:+.2f} to {result.high:+.2f}"]
    # No verdict before the last seed: somebody who may stop at a good moment can show anything.
    complete = len(found) == len(experiment.seeds)
    said = f"**{verdict(result, claim)}**" if complete else _unfinished(found, experiment)
    return [*row, claimed, claim.figure, said]


def _unfinished(found: Mapping[int, float], experiment: Experiment) -> str:
    return f"({len(found)} of {len(experiment.seeds)} seeds)"


def _source(experiment: Experiment, comparison: Comparison) -> str:
    return f"{comparison.arm} - {comparison.against or experiment.baseline}: {comparison.claim.source}"


def _points(values: Iterable[float]) -> list[str]:
    return [f"{number:.2f}" for number in values]


def status(experiment: Experiment, lines: Lines, work: Path) -> str:
    """Which runs are done, which have begun, which remain, and how long they may take."""
    rows: list[str] = []
    left = 0.0
    known = all_known = True
    for arm, seed in experiment.runs:
        name = f"{arm}, seed {seed}"
        line = lines.get((arm, seed))
        if line is not None:
            rows.append(f"done     {name}: AP {value(line, 'AP'):.1f}, {line['seconds'] / 60:.1f} minutes")
            continue
        share, seconds = progress(work / experiment.name / f"{arm}-{seed}")
        guess = _guess(arm, lines, seconds / share if share and seconds else None)
        known = guess is not None
        all_known &= known
        remaining = (1 - share) * guess if guess is not None else 0.0
        left += remaining
        estimate = f", about {remaining / 60:.0f} minutes left" if known else ""
        rows.append(f"{'begun   ' if share else 'waiting '} {name}{f': {share:.0%}' if share else ''}{estimate}")
    hours = f"{left / 3600:.1f} hours" if left >= 3600 else f"{left / 60:.0f} minutes"
    time = f"about {hours} left" if all_known else "no run to estimate the time by"
    rows.append(f"{len(lines)} of {len(experiment.runs)} runs done" + (f"; {time}" if left or not all_known else ""))
    return "\n".join(rows)


def progress(folder: Path) -> tuple[float, float]:
    """The share of a run that its log has reached, and the seconds that it took so far (finished sessions)."""
    log, sessions = folder / "log.jsonl", folder.with_name(f"{folder.name}.sessions.json")
    if not log.exists() or not sessions.exists():
        return 0.0, 0.0
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    step = max((entry["step"] for entry in entries), default=0)
    total = max((entry["total"] for entry in entries if entry["kind"] == "start"), default=0)
    if not step or not total:
        return 0.0, 0.0
    found = json.loads(sessions.read_text())["sessions"]
    last = max((entry["time"] for entry in entries if "time" in entry), default=0.0)
    spent = (max(0.0, last - each["started"]) if each["seconds"] is None else each["seconds"] for each in found)
    return min(step / total, 1.0), sum(spent)


def _guess(arm: str, lines: Lines, own: float | None) -> float | None:
    """Estimated seconds of a whole run: from its arm's other runs, else from its own progress, else from all runs."""
    same = [line["seconds"] for (name, _), line in lines.items() if name == arm]
    other = [line["seconds"] for line in lines.values()]
    if same:
        return statistics.fmean(same)
    return own if own is not None else statistics.fmean(other) if other else None
