"""Runs cases in forked processes, so that a crash, a hang or a large amount of memory is seen and ends nothing else."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import kinds


@dataclass
class Outcome:
    """What came of the cases of one kind."""

    name: str
    cases: int = 0
    faults: dict[int, str] = field(default_factory=dict)  # number of the case -> what went wrong
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)  # seconds, number of the case
    largest: tuple[float, int] = (0.0, 0)  # megabytes above the process, number of the case


def run_kind(name: str, seed: int, numbers: Sequence[int], *, jobs: int, suite: Path, keep: Path) -> Outcome:
    """Run these cases of a kind in `jobs` processes at a time, in a folder of the suite's, which is removed then.

    Of each fault a folder is kept: `keep/NUMBER`.
    """
    outcome, began = Outcome(name), time.monotonic()
    shutil.rmtree(keep, ignore_errors=True)
    folder = suite / name
    folder.mkdir()
    selector = selectors.DefaultSelector()
    for part in range(jobs):
        if mine := list(numbers[part::jobs]):
            fork = _Fork(name, seed, mine, folder / str(part))
            selector.register(fork.pipe, selectors.EVENT_READ, fork)
    try:
        while selector.get_map():
            for key, _ in selector.select(timeout=0.5):
                key.data.read()
            for key in list(selector.get_map().values()):
                _follow(key.data, selector, outcome, keep)
    finally:
        for key in list(selector.get_map().values()):
            key.data.end()
        shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def _follow(fork: _Fork, selector: selectors.BaseSelector, outcome: Outcome, keep: Path) -> None:
    """Take what a fork has reported. If it has ended too early or is stuck, another does the next cases."""
    for report in fork.reports():
        number = report["case"]
        outcome.cases += 1
        outcome.slowest = max(outcome.slowest, (report["seconds"], number))
        outcome.largest = max(outcome.largest, (report["megabytes"], number))
        if report["fault"]:
            _note(outcome, fork, number, report["fault"], keep)
    if not fork.closed and not fork.stuck:
        return
    selector.unregister(fork.pipe)
    told = fork.end()
    if fork.case is not None:
        outcome.cases += 1
        _note(outcome, fork, fork.case, told, keep)
    elif fork.left:
        raise RuntimeError(f"{fork.name}: the cases cannot be run: {told}")
    if fork.left:
        again = _Fork(fork.name, fork.seed, fork.left, fork.folder)
        selector.register(again.pipe, selectors.EVENT_READ, again)


def _note(outcome: Outcome, fork: _Fork, number: int, told: str, keep: Path) -> None:
    outcome.faults[number] = told
    case = kinds.make(fork.name, fork.seed, number)
    kept = keep / str(number)
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "fault.txt").write_text(f"{case.what}\n\n{told}\n", errors="backslashreplace")
    if case.content:
        (kept / case.name).write_bytes(case.content)


class _Fork:
    """A process that runs cases one after another, seen from the process that has forked it."""

    def __init__(self, name: str, seed: int, numbers: Sequence[int], folder: Path) -> None:
        self.name, self.seed, self.folder, self.left = name, seed, folder, list(numbers)
        self.case: int | None = None  # the one that runs now
        self.closed = False
        self._text, self._since, self._limit = b"", time.monotonic(), 300.0  # of the preparation
        folder.mkdir(exist_ok=True)
        self.pipe, writing = os.pipe()
        self._process = os.fork()
        if not self._process:
            status = 1
            try:
                os.close(self.pipe)
                _cases(name, seed, self.left, folder, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(writing)

    def read(self) -> None:
        """Take what has come through the pipe."""
        chunk = os.read(self.pipe, 1 << 16)
        self.closed = not chunk
        self._text += chunk

    def reports(self) -> Iterator[dict[str, Any]]:
        """What cases have reported since the last call."""
        *lines, self._text = self._text.split(b"\n")
        for report in map(json.loads, lines):
            self._since = time.monotonic()
            if "seconds" in report:
                self.case = None
                yield report
            else:
                self.case, self._limit = report["case"], report["limit"]
                self.left.remove(self.case)

    @property
    def stuck(self) -> bool:
        """Whether a case takes longer than its kind allows, and longer than the process takes to say where it is."""
        return time.monotonic() - self._since > self._limit + 2

    def end(self) -> str:
        """End the process and those that it has started. Returns how it ended, with the end of what it said."""
        stuck = self.stuck
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        how = f"stuck for {self._limit:g} s" if stuck else f"the process ended with {code}"
        said = self.folder / "said.txt"
        return f"{how}\n{said.read_text(errors='replace')[-6000:] if said.exists() else ''}"


def _cases(name: str, seed: int, numbers: Sequence[int], folder: Path, pipe: int) -> None:
    """What a fork does: the cases one after another, with a line through the pipe before and after each."""
    os.setpgid(0, 0)
    kind = kinds.find(name)
    said = os.open(folder / "said.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, errors="backslashreplace", closefd=False) for number in (1, 2))
    shared = folder / "shared"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir()
    prepared = kind.prepare(shared)
    ceiling = (_kilobytes("VmSize") << 10) + 4 * (kind.memory << 20)  # for the machine's sake
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    for number in numbers:
        _send(pipe, case=number, limit=kind.seconds)
        here = folder / "case"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        os.ftruncate(said, 0)
        os.chdir(here)
        began, before, fault = time.monotonic(), _forget_peak(), ""
        faulthandler.dump_traceback_later(kind.seconds, file=said)
        try:
            kind.check(kinds.make(name, seed, number), prepared, here)
        except BaseException:
            fault = f"{_end_of(said)}\n{traceback.format_exc()[-20000:]}".strip()
        faulthandler.cancel_dump_traceback_later()
        used = (_kilobytes("VmHWM") - before) / 1024
        if used > kind.memory and not fault:
            fault = f"{used:.0f} MB of memory, {kind.memory} are allowed"
        _send(pipe, case=number, seconds=time.monotonic() - began, megabytes=used, fault=fault)


def _end_of(file: int) -> str:
    """The end of what a case has printed."""
    size = os.fstat(file).st_size
    return os.pread(file, 5000, max(0, size - 5000)).decode(errors="replace")


def _send(pipe: int, **report: Any) -> None:
    line = json.dumps(report).encode() + b"\n"
    while line:
        line = line[os.write(pipe, line) :]


def _forget_peak() -> int:
    """Let the system measure the peak of this process's memory anew; returns what it has now, in KiB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmHWM")


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")), 0)
