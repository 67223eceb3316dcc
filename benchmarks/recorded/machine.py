"""The code and the machine that made a result."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def commit() -> dict[str, Any]:
    """The commit of the code, and whether files were changed or added since."""
    here = Path(__file__).resolve().parents[2]

    def said(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=here, check=False, capture_output=True, text=True)
        return found.stdout.strip() if not found.returncode else ""

    code = ("src", "benchmarks", ":!benchmarks/results")
    return {"commit": said("rev-parse", "--short", "HEAD"), "dirty": bool(said("status", "--porcelain", "--", *code))}


def machine() -> dict[str, Any]:
    """Processor and versions."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
             ] if info.exists() else []  # fmt: skip
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
