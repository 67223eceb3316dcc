"""Seconds for `singleshot detect` on one image, from the start of the process: here and at an earlier commit.

    python benchmarks/load_time.py [--model FILE] [--against COMMIT] [--rounds 7] [--json]

Nearly all of this time is loading: PyTorch, the package, the detector. Without --model, an untrained SSD on MobileNetV2
is loaded. The two source trees take turns. The script prints the medians of the wall time and of the processor time,
and of the ratios (before / now) within the rounds. An extra round before the first fills the disk cache.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trees import medians, tell, trees

import singleshot as ss
from singleshot.data.shapes import write_shapes


def seconds(source: Path, words: list[str]) -> dict[str, float]:
    """Wall and processor time of one process with the package in `source`."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "singleshot", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def compare(against: str | None, words: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Kind of time -> tree -> median, and the median ratio."""
    with trees(against) as sources:
        found = [{name: seconds(source, words) for name, source in sources.items()} for _ in range(rounds + 1)][1:]
    kinds = ("wall", "processor")
    return {kind: medians([{tree: line[tree][kind] for tree in line} for line in found], rates=False) for kind in kinds}


def main() -> None:
    """Print one line for each kind of time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder, "model.safetensors")
        if options.model is None:
            ss.save(ss.ssd(num_classes=20, backbone="mobilenetv2", image_size=320), model)
        write_shapes(Path(folder, "shapes"), train=1, val=1)
        image = next(Path(folder, "shapes").rglob("*.jpg"))
        summary = compare(options.against, ["detect", str(model), str(image), "--json"], options.rounds)
    tell(summary, as_json=options.json)


if __name__ == "__main__":
    main()
