"""Detectors as they ran at an earlier commit, to compare with, round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


class Before:
    """A detector in a process with the package of that commit."""

    def __init__(self, source: Path, model: Path, images: list[str], threads: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._say(json.dumps({"model": str(model), "images": images, "threads": threads}))
        assert self._heard() == "ready"
        self._turn = 0

    def __call__(self) -> dict[str, float]:
        """Detect in one image: the seconds that it took there."""
        self._say(str(self._turn // 2))  # as in `singleshot benchmark`: a call that is not counted, and one that is
        self._turn += 1
        return {"all": float(self._heard())}

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the process with the earlier commit ended; its error is above")
        return line
