"""How cost grows: the time of a piece of work at several sizes, and the power of the size that it grows with.

    python benchmarks/growth.py [--quick] [--only TEXT ...] [--rounds 3] [--out FILE.json] [--plot FILE.png]

Evaluation (5,000 to 50,000 images), opening datasets (1,000 to 120,000 images), boxes in an image (1 to 5,000),
candidates (200 to 50,000), classes (20 to 1,203), the size of images, of batches, and threads. All data is generated,
in a temporary folder. `--quick` takes small sizes, in less than two minutes; `--only` takes works whose name or family
has one of the words, and with `--out` replaces their rows in a file that exists.

The exponent is the slope of the logarithms: 1 is linear, 2 quadratic. That between the two largest sizes says more than
that over all, because at small sizes a fixed part hides it. Exit code 1 if a work grows faster than the problem itself.

Work of one thread is measured by the processor's own time, which other programs change little; the rest by the clock.
`python benchmarks/results_page.py` writes the rows of benchmarks/results/growth.json into docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

import cv2
import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "growth.json"
PLOT = HERE.parent / "docs" / "images" / "growth.png"


def main(words: list[str] | None = None) -> int:
    """Run the command line: measure, print, write. Returns the exit code."""
    from growing import report
    from growing.measure import Row, measured
    from growing.works import works
    from recorded.machine import commit

    from singleshot.benchmarking.machine import this_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, in less than two minutes; writes no results")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only works with one of these in their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, help="write the rows here (without --quick and --only: results/growth.json)"
    )
    parser.add_argument("--plot", type=Path, help="draw the rows here (without --quick and --only: docs/images)")
    options = parser.parse_args(words)
    if options.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    whole = not options.quick and not options.only
    out, picture = options.out or (RESULTS if whole else None), options.plot or (PLOT if whole else None)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for work in works(Path(folder)):
            if options.only and not any(text in f"{work.family}: {work.name}" for text in options.only):
                continue
            rows.append(measured(work, rounds=options.rounds, quick=options.quick))
            print(report.line(rows[-1]), flush=True)
        # Written before the folder is removed, which takes minutes on some disks.
        if not rows:
            parser.error(f"--only {' '.join(options.only)}: no work has this in its name")
        good = all(row.grows_as_it_should for row in rows)
        if out is not None and options.only and out.exists():
            fresh = {(row.family, row.name): row for row in rows}
            kept = [Row.from_json(row) for row in json.loads(out.read_text())["rows"]]
            table = [fresh.get((row.family, row.name), row) for row in kept]
            rows = table + [row for row in rows if row not in table]
        if out is not None:
            about = {
                "date": date.today().isoformat(),
                "machine": this_machine().to_json(),
                "code": commit(),
                "rounds": options.rounds,
            }
            out.write_text(json.dumps({"about": about, "rows": [row.to_json() for row in rows]}, indent=1) + "\n")
        if picture is not None:
            report.plot(rows, picture)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
