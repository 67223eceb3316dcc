"""Starts a program in several processes, as `torchrun` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run_ranks(program: Path, *words: object, ranks: int = 2, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a program in this many processes and wait for its end; with one, without torchrun."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *several, *map(str, (program, *words))],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
