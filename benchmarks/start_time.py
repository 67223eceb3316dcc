"""From the start of `singleshot detect` to the detections of one picture, with each engine, beside what cannot be less.

    python benchmarks/start_time.py MODEL IMAGE [--rounds 5] [--threads N] [--json]

MODEL is a weights file. It is exported for each installed engine first, into a folder that is removed again. Every
round starts each program once, so that other work on the machine meets all of them. Times are medians, in seconds:
`wall`, and `processor` (all threads), which hardly changes with the load of the machine. The aims are 1 second of wall
time for an exported model and 2.5 for a weights file, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import singleshot as ss
from singleshot.engines import NAMES, named_engine
from singleshot.engines.graph import exportable
from singleshot.errors import UserError

AIMS = {"onnxruntime": 1.0, "openvino": 1.0, "weights file": 2.5}
FLOORS = {"python": "", "cv2": "import cv2", "onnxruntime": "import onnxruntime", "openvino": "import openvino"}
FLOORS["torch"] = "import torch"
QUIET = "import sys, os; sys.modules['openvino_telemetry'] = None; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; "


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall time and processor time of a program."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def exported(model: str, folder: Path) -> dict[str, Path]:
    """The files of the engines that are installed."""
    detector, found = ss.load(model), {}
    for name, suffix in NAMES.items():
        if name == "torch":
            continue
        path = folder / f"model{suffix}"
        try:
            named_engine(name).export(exportable(detector), path)
        except UserError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
        else:
            found[name] = path
    return found


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the computation")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    with tempfile.TemporaryDirectory() as folder:
        files = {"weights file": Path(options.model), **exported(options.model, Path(folder))}
        detect = [sys.executable, "-m", "singleshot", "detect"]
        programs = {f"detect, {name}": [*detect, str(path), options.image, *threads] for name, path in files.items()}
        programs |= {f"floor: {name}": [sys.executable, "-c", QUIET + code] for name, code in FLOORS.items()}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for number in range(options.rounds + 1):
            for name, command in programs.items():
                taken = seconds(command)
                if number:  # the first round fills the disk's cache
                    found[name].append(taken)
    rows = {
        name: {
            "wall": statistics.median(wall for wall, _ in each),
            "processor": statistics.median(cpu for _, cpu in each),
        }
        for name, each in found.items()
    }
    if options.json:
        print(json.dumps({"seconds": rows, "aims": AIMS, "load": os.getloadavg()[0]}, indent=2))
        return
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for name, row in rows.items():
        aim = AIMS.get(name.removeprefix("detect, "))
        told = f"   aim {aim:.1f} wall" if aim is not None and name.startswith("detect") else ""
        print(f"{name:<24}{row['wall']:7.2f} wall {row['processor']:7.2f} processor{told}")


if __name__ == "__main__":
    main()
