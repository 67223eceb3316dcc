"""The training runs in docs/results.md; `benchmarks/recorded/plan.py` fixes them before the first run.

    python benchmarks/evidence.py run [--only NAME ...] [--data DIR] [--runs DIR]
    python benchmarks/evidence.py status [--runs DIR]
    python benchmarks/evidence.py zoo [--data DIR] [--runs DIR]      # weights of runs worth keeping, with model cards

Runs are made one after the other. A finished run has a line in `benchmarks/results/evidence.jsonl` and is skipped. A
stopped run is resumed, so the script may be started again at any time:

    nohup python benchmarks/evidence.py run > evidence.log 2>&1 &

`--data` or SINGLESHOT_SHARED is the folder with the datasets and weights. `singleshot evaluate` measures the last
(averaged) weights on the split `val`. `python benchmarks/results_page.py` writes the lines into the page.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BESIDE = HERE.parents[1] / "shared" / "data"


def main(words: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    from recorded import plan, runner, zoo

    from singleshot.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "status", "zoo"])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="with run: only these runs")
    parser.add_argument("--data", type=Path, help="folder that holds the datasets (default: SINGLESHOT_SHARED)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are (runs)")
    options = parser.parse_args(words)
    data = options.data or Path(os.environ.get("SINGLESHOT_SHARED", BESIDE))
    try:
        if options.only is not None and options.verb != "run":
            raise UserError(f"--only is for run, and {options.verb} takes all runs: leave it out")
        if options.verb != "status" and not data.is_dir():
            raise UserError(f"{data}: no such folder; give the folder that holds bccd, chess and weights with --data")
        if options.verb == "run":
            runner.run_all(data, options.runs, options.only, say=lambda line: print(line, flush=True))
        elif options.verb == "zoo":
            zoo.write(data, options.runs, HERE.parent / "zoo")
        else:
            finished = runner.read()
            for run in plan.RUNS:
                begun = (options.runs / run.name / "state.safetensors").exists()
                print(f"{'done' if run.name in finished else 'begun' if begun else 'waiting':8} {run.name}")
    except UserError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evidence: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
