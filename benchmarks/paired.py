"""Paired experiments: arms that differ in one thing and are trained with the same seeds, and their differences.

    python benchmarks/paired.py run NAME [--seeds 0 1 ...] [--arms A B ...] [--data DIR] [--weights FILE]
                                    [--out FILE] [--work DIR]
    python benchmarks/paired.py table NAME [--out FILE]
    python benchmarks/paired.py status NAME [--out FILE] [--work DIR]

Data, settings, seeds and claims of an experiment are in `benchmarks/pairs/experiments.py`. `run` makes the runs one
after the other, seed by seed. A finished run is a line in the results file and is skipped. A stopped run (Ctrl-C saves
its state) is resumed. So the script may be started again at any time, and may run unattended:

    nohup python benchmarks/paired.py run retinanet > pairs.log 2>&1 &

Several processes may share the seeds (`--seeds`) or the arms (`--arms`) and the results file. Each needs its own folder
for its runs:

    nohup python benchmarks/paired.py run refinedet --seeds 0 1 2 --work runs/pairs_a > a.log 2>&1 &
    nohup python benchmarks/paired.py run refinedet --seeds 3 4 --work runs/pairs_b > b.log 2>&1 &

`table` prints all runs, the paired differences and the verdicts in Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pairs import experiment as experiments
from pairs import records, report
from pairs.experiments import EXPERIMENTS

from singleshot.errors import UserError

HERE = Path(__file__).resolve().parent
BESIDE = HERE.parents[1] / "shared" / "data"


def main(words: list[str] | None = None) -> int:
    """Run the command line. The exit code is 0, 2 if the user has to correct something, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["run", "table", "status"])
    parser.add_argument("name", help=f"the experiment: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--seeds", type=int, nargs="+", help="with run: only these seeds; default: the experiment's")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="with run: only these arms; default: all of them")
    parser.add_argument("--data", type=Path, help="folder that holds the datasets (default: SINGLESHOT_SHARED)")
    parser.add_argument("--weights", type=Path, help="the backbone's weights (default: in the data's folder)")
    parser.add_argument("--out", type=Path, help="results file (default: benchmarks/results/NAME_pairs.jsonl)")
    parser.add_argument("--work", type=Path, default=Path("runs/pairs"), help="run folders (default: runs/pairs)")
    options = parser.parse_args(words)
    try:
        experiment = experiments.get(EXPERIMENTS, options.name)
        for word in ("seeds", "arms"):
            if getattr(options, word) is not None and options.verb != "run":
                raise UserError(f"--{word} is for run, and {options.verb} shows all {word}: leave it out")
        out = options.out or HERE / "results" / f"{experiment.name}_pairs.jsonl"
        if options.verb == "run":
            from pairs import runner

            data = options.data or Path(os.environ.get("SINGLESHOT_SHARED", BESIDE))
            inside = data / experiment.weights if experiment.weights is not None else None
            places = runner.Places(data, options.weights or inside, out, options.work)
            runner.run_all(experiment, places, lambda line: print(line, flush=True), options.seeds, options.arms)
            return 0
        lines = records.read(out)
        records.check(experiment, lines, out)
        found = records.of(experiment, lines)
        if options.verb == "table":
            print(report.table(experiment, found))
        else:
            print(report.status(experiment, found, options.work))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        again = "python benchmarks/paired.py " + " ".join(sys.argv[1:] if words is None else words)
        print(f"{str(stop).partition('. Continue')[0] or 'stopped'}. Continue with: {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
