"""An example of a kind, in which some cases have a fault; `test_kinds.py` runs it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from faults.kinds import Case, Kind


def make(rng: np.random.Generator, number: int) -> Case:
    return Case(f"the number {number}", content=str(number).encode())


def check(case: Case, shared: Any, folder: Path) -> None:
    (folder / "file").write_bytes(case.content)
    assert case.content != b"1", "wrong"
    if case.content == b"2":
        time.sleep(60)
    if case.content == b"3":
        os.kill(os.getpid(), signal.SIGKILL)
    if case.content == b"4":
        bytearray(200 << 20)


KIND = Kind("some numbers are wrong", make, check, cases=100, fast=4, seconds=0.5, memory=100)
