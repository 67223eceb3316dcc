"""The general detector: one long run on voc07 in the background of other work; `everyday.yaml` fixes it.

    python benchmarks/everyday.py [--data DIR] [--out DIR]     # starts the run, or continues it
    python benchmarks/everyday.py --status [--out DIR]         # step, VOC07 mAP so far, time left

The same command starts and continues: after Ctrl-C, SIGTERM or a crash the run goes on as if it had never stopped. If
it runs already, or is finished, the command says so and does nothing. It takes one thread, at a low priority:

    setsid nohup python benchmarks/everyday.py >> runs/everyday.txt 2>&1 &

`--data` or SINGLESHOT_SHARED is the folder with the datasets and weights. `--out` (runs/everyday beside this folder)
gets `start.safetensors`, the SSD that the run starts from, and the run folder `run`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "everyday.yaml"
SOURCE = "weights/ssd_mobilenetv2_oidv4_fp16.tflite"
NAMES = "weights/ssd_mobilenetv2_oidv4_labels.txt"
PHOTOGRAPHS = 200  # that the norms of the imported weights are settled on: the first ones of the split train
PRIORITY = 15  # niceness: 0 is usual, 19 waits for all others
COMMAND = "python benchmarks/everyday.py"


def main(words: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    from singleshot.errors import UserError

    beside = HERE.parents[1] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--status", action="store_true", help="say how far the run is")
    parser.add_argument("--data", type=Path, help="folder that holds voc07 and weights (default: SINGLESHOT_SHARED)")
    parser.add_argument("--out", type=Path, default=HERE.parent / "runs" / "everyday", help="where it is kept")
    options = parser.parse_args(words)
    data = options.data or Path(os.environ.get("SINGLESHOT_SHARED", beside))
    try:
        if options.status:
            print("\n".join(status(options.out)))
            return 0
        return run(data, options.out)
    except UserError as error:
        print(f"everyday: {error}", file=sys.stderr)
        return 2


def run(data: Path, out: Path) -> int:
    """Start the run, or continue it, unless it runs or is finished. Returns the exit code of `singleshot train`."""
    import torch

    from singleshot import cli
    from singleshot.errors import UserError
    from singleshot.training.folder import RunFolder, only_one

    torch.set_num_threads(1)
    folder = RunFolder(out / "run")
    if finished(folder):
        print("\n".join(status(out)))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(out, "it runs already"))
        except UserError:
            print("\n".join(status(out)))
            return 0
        if folder.state.exists():
            return cli.main(["train", "--resume", str(folder.path)])
        start = out / "start.safetensors"
        if not start.exists():
            make_start(data, start)
        words = ["train", str(data / "voc07"), "--recipe", str(RECIPE), "--from", str(start)]
        return cli.main([*words, "--out", str(folder.path)])


def make_start(data: Path, path: Path) -> None:
    """Import the SSD, with norms that have the statistics of photographs, and write it."""
    import singleshot as ss

    if not (data / NAMES).is_file():
        raise ss.UserError(f"{data / NAMES}: no such file; give the folder that holds voc07 and weights with --data")
    names = [line.strip() for line in (data / NAMES).read_text(encoding="utf-8").splitlines()[1:]]
    print(f"importing {SOURCE}", flush=True)
    detector = ss.import_weights(data / SOURCE, class_names=names)
    records = ss.open_dataset(data / "voc07", split="train", format="voc", strict=False).records
    ss.settle_norm(detector, [record.path for record in records[:PHOTOGRAPHS]])
    ss.save(detector, path)


def finished(folder: Any) -> bool:
    """Whether the run has made its last step."""
    return folder.last.exists() and last_step(read(folder)) >= length(folder)


def length(folder: Any) -> int:
    """The number of steps that the recipe of the run names; it may be changed between two starts."""
    from singleshot.training.recipe import from_yaml

    return from_yaml(folder.recipe).schedule.steps or 0


def read(folder: Any) -> list[dict[str, Any]]:
    """The sound lines of a run's log."""
    from singleshot.training.log_lines import read_log

    return [line.entry for line in read_log(folder.log) if not line.problem]


def last_step(entries: Iterable[dict[str, Any]]) -> int:
    """The last step that is in the log."""
    return max((entry["step"] for entry in entries), default=0)


def status(out: Path) -> list[str]:
    """How far the run is, in lines of text."""
    from singleshot.errors import UserError
    from singleshot.training.folder import RunFolder, only_one
    from singleshot.training.recipe import from_yaml

    folder = RunFolder(out / "run")
    if not folder.log.exists():
        return [f"{out}: not started; `{COMMAND}` starts it"]
    entries = read(folder)
    total = length(folder)
    steps = [entry for entry in entries if entry["kind"] == "step"]
    step, recipe = last_step(entries), from_yaml(folder.recipe)
    lines = [f"step {step:,} of {total:,} ({step * recipe.batch_size:,} images shown)"]
    if steps:
        lines[0] += f", loss {sum(steps[-1]['losses'].values()):.2f}"
    validations = [entry for entry in entries if entry["kind"] == "validation"]
    if validations:
        points = ", ".join(f"{one['step']:,}: {one['metrics']['voc07']['mAP']:.3f}" for one in validations)
        lines.append(f"VOC07 mAP by step: {points}")
    if step >= total:
        return [*lines, "finished"]
    speeds = [entry["images_per_second"] for entry in steps[-20:] if entry.get("images_per_second")]
    if speeds:
        speed = statistics.median(speeds)
        hours = (total - step) * recipe.batch_size / speed / 3600
        lines.append(f"{speed:.1f} images a second at present; {hours:.0f} hours left at this speed")
    try:
        with only_one(out, "it runs already"):
            lines.append(f"stopped; `{COMMAND}` continues it")
    except UserError:
        minutes = (time.time() - folder.log.stat().st_mtime) / 60
        lines.append(f"it runs; the last line of its log is {minutes:.0f} minutes old")
    return lines


def give_way() -> None:
    """Leave the processor to everything else.

    After `setsid` a process is in a group of its own. On Linux the niceness of the group then decides, and not that of
    the process (sched(7), autogroup).
    """
    if hasattr(os, "nice"):
        os.nice(PRIORITY)
    with suppress(OSError):  # other systems have no such file
        Path("/proc/self/autogroup").write_text(str(PRIORITY))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    give_way()
    sys.exit(main())
