"""Every speed that was aimed at beside what is measured here, in one table.

    python benchmarks/targets.py [--only GROUP ...] [--rounds 7] [--data DIR] [--torchvision PYTHON] [--out FILE.md]

Groups: parts (post-processing, suppression, drawing, `singleshot models`), start, int8 (accuracy), folder, zoo, models
(default and best engine against the commit before). What is compared with an earlier commit runs in a process of its
own, in turn with the package as it is here. `--torchvision` is the Python of an environment that has torchvision, for
`parts`; benchmarks/peers.py compares whole detectors with it.
`--data` or SINGLESHOT_SHARED is the folder with the datasets chess and bccd. Targets that are meant for processors with
AMX or VNNI are not judged on others. The whole takes about ten minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "2f03885"  # the last commit before engines


def main(words: list[str] | None = None) -> int:
    """Run the command line: print each row as soon as it is measured. Exit code 1 if a target is missed."""
    from recorded.machine import commit
    from targeted import detecting, parts
    from targeted.row import HEADER, Row
    from trees import trees

    from singleshot.benchmarking.machine import this_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("parts", "start", "int8", "folder", "zoo", "models")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="GROUP", help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", default=BEFORE, metavar="COMMIT", help=f"the commit before ({BEFORE})")
    parser.add_argument("--data", type=Path, help="folder that holds chess and bccd (default: SINGLESHOT_SHARED)")
    parser.add_argument("--runs", type=Path, help="folder with the runs retinanet-bccd and refinedet-bccd, for int8")
    parser.add_argument("--torchvision", metavar="PYTHON", help="the Python of an environment with torchvision")
    parser.add_argument("--out", type=Path, help="write the table here too")
    options = parser.parse_args(words)
    if options.rounds < 2:
        parser.error("--rounds: expected 2 or more")
    data = options.data or Path(os.environ.get("SINGLESHOT_SHARED", ROOT.parent / "shared" / "data"))
    rounds = options.rounds
    lines = []

    def show(rows: Iterator[Row]) -> bool:
        good = True
        for row in rows:
            lines.append(row.line())
            print(lines[-1], flush=True)
            good &= row.reached is not False
        return good

    about = f"{date.today()}, commit {commit()['commit']}, {this_machine().line()}, medians of {rounds} rounds"
    print(f"{about}\n\n{HEADER}", flush=True)
    good = True
    if "parts" in options.only:
        good &= show(parts.rows_of_post_processing(rounds, options.torchvision))
    if "start" in options.only:
        good &= show(parts.rows_of_start(max(2, rounds // 2)))
    if "int8" in options.only:
        good &= show(parts.rows_of_int8(data, options.runs))
    if "folder" in options.only:
        good &= show(detecting.rows_of_folder(rounds))
    if "zoo" in options.only or "models" in options.only:
        with trees(options.against) as sources:
            if "zoo" in options.only:
                good &= show(detecting.rows_of_zoo(sources["before"], rounds, data))
            if "models" in options.only:
                good &= show(detecting.rows_of_models(sources["before"], rounds))
    if options.out is not None:
        options.out.write_text(f"{about}\n\n{HEADER}\n" + "\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
