"""`make faults`: run the long suite, or some of it, and say how every fault can be made again."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from faults.kinds import KINDS, find, make
from faults.runner import Outcome, run_kind

import singleshot

KEPT = Path(__file__).resolve().parents[2] / ".faults"  # ignored by git


def main(words: Sequence[str] | None = None) -> int:
    """Returns 1 if there were faults."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="only these (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other cases (default: 0)")
    parser.add_argument("--cases", type=int, help="how many of each kind (default: what the kind says)")
    parser.add_argument("--case", type=int, nargs="+", help="only these numbers: how a fault is made again")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    parser.add_argument("--fast", action="store_true", help="the few cases of the fast tests")
    parser.add_argument("--keep", type=Path, default=KEPT, metavar="DIR", help="where the faults are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes to this file")
    parser.add_argument("--list", action="store_true", help="say what the kinds are")
    options = parser.parse_args(words)
    if options.list:
        for name in options.kind:
            print(f"{name:<16} {find(name).cases:>6}  {find(name).line}")
        return 0
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    for name in options.kind:  # before the first fork, so that no fork imports them again
        find(name)
    assert singleshot.ssd, "imported"
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as suite:
        outcomes = _run(options, Path(suite))
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
    faults = sum(len(outcome.faults) for outcome in outcomes)
    print(f"{sum(outcome.cases for outcome in outcomes)} cases, {faults} faults")
    return int(faults > 0)


def _run(options: argparse.Namespace, suite: Path) -> list[Outcome]:
    outcomes = []
    for name in options.kind:
        count = options.cases or (find(name).fast if options.fast else find(name).cases)
        if not count:
            continue
        keep = options.keep / f"{name}-{options.seed}"
        found = run_kind(name, options.seed, options.case or range(count), jobs=options.jobs, suite=suite, keep=keep)
        outcomes.append(found)
        print(_line(found), flush=True)
        for number in sorted(found.faults):
            told = "\n    ".join(_told(found.faults[number], whole=options.case is not None))
            print(f"  FAULT: {make(name, options.seed, number).what}\n    {told}")
            print(f'    again: make faults ARGS="--kind {name} --seed {options.seed} --case {number}"')
            print(f"    kept: {os.path.relpath(keep / str(number))}", flush=True)
    return outcomes


def _line(outcome: Outcome) -> str:
    return (
        f"{outcome.name:<16} {outcome.cases:>6} cases {len(outcome.faults):>4} faults {outcome.seconds:>7.1f} s; "
        f"slowest: {outcome.slowest[0]:.1f} s (case {outcome.slowest[1]}); most memory: {outcome.largest[0]:.0f} MB "
        f"(case {outcome.largest[1]})"
    )


def _told(fault: str, *, whole: bool) -> list[str]:
    lines = fault.strip().splitlines()
    return lines if whole else [line[:300] for line in dict.fromkeys((lines[0], lines[-1]))]


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("make faults needs Linux: its cases run in forked processes")
    sys.exit(main())
