"""The time that `singleshot VERB --help` takes: the median of several new processes, in milliseconds.

    python benchmarks/help_time.py [--repeats 7] [--json]

The aim is less than half a second. The tests do not check this time, but its condition: nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from singleshot.cli import verbs

LIMIT_MS = 500.0


def milliseconds(words: list[str], repeats: int) -> float:
    """Median wall time of `python -m singleshot WORDS`, after one run that fills the disk cache."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "singleshot", *words], check=True, stdout=subprocess.DEVNULL)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def main() -> int:
    """Print one line per verb. Returns exit code 1 if one is too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    commands = [["--help"], *([*verb.split(), "--help"] for verb in verbs())]
    found = {" ".join(words): round(milliseconds(words, options.repeats), 1) for words in commands}
    if options.json:
        print(json.dumps({"limit_ms": LIMIT_MS, "median_ms": found}, indent=2))
    else:
        print("\n".join(f"singleshot {words:<20}{median:8.1f} ms" for words, median in found.items()))
    return int(max(found.values()) >= LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
