"""Images per second of `singleshot train` on this machine: the working tree and an earlier commit, side by side.

    python benchmarks/training_speed.py [--against COMMIT] [--detectors ssd retinanet refinedet] [--size 256]
                                        [--rounds 3] [--steps 20] [--threads 1] [--json]

Each round trains every detector (MobileNetV2 from a weights file, 16 images in a step, one loader process) for some
steps on generated shapes, once with each of the two source trees, in turn. Both use the recipe of `pairs/base.yaml`.
So the code is compared, and not the old and the new `finetune`. The first ten steps do not count. The script prints the
medians over the rounds and of the ratios within the rounds, because other work on the machine slows both trees alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import save_file
from trees import medians, tell, trees

from singleshot.backbones import build
from singleshot.data.shapes import write_shapes

RECIPE = Path(__file__).resolve().parent / "pairs" / "base.yaml"
WARM, BATCH = 10, 16
ARGUMENTS = {
    "ssd": (),
    "retinanet": ("--arguments.resize", "stretch", "--arguments.channels", "128", "--arguments.tower_norm", "group"),
    "refinedet": ("--arguments.channels", "128"),
}


def images_per_second(
    source: Path, detector: str, folder: Path, out: Path, size: int, steps: int, threads: int
) -> float:
    """Train in a new process with the package in `source`, and with the images and weights in `folder`."""
    words = ["train", str(folder / "shapes" / "voc"), "--format", "voc", "--recipe", str(RECIPE), "--out", str(out)]
    words += ["--builder", detector, "--backbone-weights", str(folder / "backbone.safetensors"), "--val-split", "none"]
    words += ["--device", "cpu", "--data.workers", "1", "--log.every", "1"]
    words += ["--schedule.epochs", "null", "--schedule.steps", str(WARM + steps), "--batch-size", str(BATCH)]
    words += ["--arguments.backbone", "mobilenetv2", "--arguments.image_size", str(size), *ARGUMENTS[detector]]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "singleshot", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} in {source}:\n{done.stderr}")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    times = {line["step"]: line["time"] for line in lines if line["kind"] == "step"}
    return BATCH * steps / (times[WARM + steps] - times[WARM])


def compare(sources: dict[str, Path], options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Detector -> images per second of each tree, and the ratio."""
    write_shapes(folder / "shapes", train=64, val=1)
    # Random weights, but from a file: a backbone with weights keeps its batch norm's statistics in these first steps.
    save_file(build("mobilenetv2").state_dict(), folder / "backbone.safetensors")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.detectors}
    for turn in range(options.rounds):
        for name, rounds in found.items():
            rounds.append({})
            for tree, source in sources.items():
                out = folder / f"{name}-{tree}-{turn}"
                rate = images_per_second(source, name, folder, out, options.size, options.steps, options.threads)
                rounds[-1][tree] = rate
                print(f"round {turn + 1}: {name}, {tree}: {rate:.1f} images/s", file=sys.stderr, flush=True)
    return {name: medians(rounds, rates=True) for name, rounds in found.items()}


def main() -> None:
    """Print one line for each detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--detectors", nargs="+", choices=list(ARGUMENTS), default=list(ARGUMENTS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, trees(options.against) as sources:
        summary = compare(sources, options, Path(place))
    tell(summary, as_json=options.json)


if __name__ == "__main__":
    main()
