"""From the start of `singleshot detect` to the detections of one picture, beside the imports that cannot be less.

    python benchmarks/start_time.py IMAGE model.onnx model.xml model.safetensors [--rounds 5] [--threads N] [--json]

`singleshot export` makes the files of engines. Every round starts each program once, so that other work on the machine
meets all of them. Times are medians, in seconds: `wall`, and `processor` (all threads), which changes less with the
load of the machine. The aims are 1 second of wall time for an exported model and 2.5 for a weights file, on a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from singleshot.engines import holds_weights

AIM, AIM_WEIGHTS = 1.0, 2.5
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


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("models", nargs="+", metavar="model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the computation")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    detect = [sys.executable, "-m", "singleshot", "detect"]
    aims = {f"detect, {path}": AIM_WEIGHTS if holds_weights(path) else AIM for path in options.models}
    programs = {f"detect, {path}": [*detect, path, options.image, *threads] for path in options.models}
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
        print(json.dumps({"seconds": rows, "aims": aims, "load": os.getloadavg()[0]}, indent=2))
        return
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for name, row in rows.items():
        told = f"   aim {aims[name]:.1f} wall" if name in aims else ""
        print(f"{name:<40}{row['wall']:7.2f} wall {row['processor']:7.2f} processor{told}")


if __name__ == "__main__":
    main()
