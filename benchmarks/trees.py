"""The package as it is here and as it was at an earlier commit, to measure them side by side."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def trees(against: str | None) -> Iterator[dict[str, Path]]:
    """Name -> the folder for PYTHONPATH: "before" (with `against`, a commit) and "now"."""
    now = {"now": ROOT / "src"}
    if against is None:
        yield now
        return
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "prune"], check=True)
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), against], check=True)
        try:
            yield {"before": tree / "src", **now}
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def medians(rounds: Sequence[Mapping[str, float]], *, rates: bool) -> dict[str, float]:
    """The median of each tree. With two trees also how many times better it is now; `rates` are better when larger."""
    found = {tree: statistics.median(line[tree] for line in rounds) for tree in rounds[0]}
    if "before" in found:
        better, worse = ("now", "before") if rates else ("before", "now")
        found["ratio"] = statistics.median(line[better] / line[worse] for line in rounds)
    return found


def tell(summary: Mapping[str, Mapping[str, float]], *, as_json: bool) -> None:
    """Print the result: one line for each measured quantity, or all as JSON."""
    if as_json:
        print(json.dumps(summary))
        return
    for name, numbers in summary.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in numbers.items()))
