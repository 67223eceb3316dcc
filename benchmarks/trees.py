"""The package as it lies here and as it was at an earlier commit, to be measured side by side."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
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
