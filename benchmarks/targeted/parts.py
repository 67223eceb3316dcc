"""Rows of single parts: post-processing and drawing, the start, int8's accuracy."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from growing import works

from targeted.row import Row, at_most

ROOT = Path(__file__).resolve().parents[2]
BCCD_RUNS = ("retinanet-bccd", "refinedet-bccd")


def rows_of_post_processing(rounds: int, torchvision: str | None) -> Iterator[Row]:
    """Post-processing, suppression, drawing and `singleshot models`, on one thread, by processor time."""
    from postprocess_speed import ROWS, Side, measure

    sides = [Side("now", sys.executable, ROOT / "src")]
    if torchvision is not None:
        sides.append(Side("torchvision", torchvision, None))
    try:
        for name, row in ROWS.items():
            found = measure(sides, name, rounds)
            if "now" not in found:
                yield Row(name, "-" if row.target is None else f"<= {row.target:g} ms", "not possible here")
            elif row.target is not None:
                yield at_most(name, found["now"], row.target)
            elif "torchvision" in found:
                theirs = found["torchvision"]
                yield Row(name, "<= torchvision's", f"{found['now']:.1f} ms, theirs {theirs:.1f} ms",
                          found["now"] <= theirs)  # fmt: skip
            else:
                yield Row(name, "-", f"{found['now']:.1f} ms")
    finally:
        for side in sides:
            side.process.kill()
            side.process.wait()


def rows_of_start(rounds: int) -> Iterator[Row]:
    """Processes from their start to the first detection, by the clock."""
    with tempfile.TemporaryDirectory() as place:
        photo = Path(place, "photo.jpg")
        works.read(Path(place), 512)
        Path(place, "512.jpg").rename(photo)
        model = ROOT / "zoo" / "chess.safetensors"
        for suffix in (".onnx", ".xml"):
            path = Path(place, f"chess{suffix}")
            told = _run(["export", str(model), "--out", str(path)])
            if told.returncode:
                yield Row(f"start to first detection: {suffix}", "<= 1 s", told.stderr.strip().splitlines()[-1])
                continue
            took = _seconds(["detect", str(path), str(photo)], rounds)
            yield Row(f"start to first detection: {suffix}", "<= 1 s", f"{took:.2f} s", took <= 1.0)
        took = _seconds(["detect", str(model), str(photo)], rounds)
        yield Row("start to first detection: checkpoint", "<= 2.5 s", f"{took:.2f} s", took <= 2.5)


def rows_of_int8(data: Path, runs: Path | None) -> Iterator[Row]:
    """AP of the int8 form against float32, calibrated on the train split, measured on val."""
    files = {f"zoo/{name}": (ROOT / "zoo" / f"{name}.safetensors", data / name) for name in ("chess", "bccd")}
    for name in BCCD_RUNS if runs is not None else ():
        assert runs is not None
        files[name] = (next(iter(sorted(runs.glob(f"*{name}*/last.safetensors"))), runs / name), data / "bccd")
    for name, (model, its_data) in files.items():
        what, target = f"int8 against float32: {name}", "drop of AP <= 0.5, of AP50 <= 0.3"
        with tempfile.TemporaryDirectory() as place:
            words = ["export", str(model), "--out", str(Path(place, "int8.xml")), "--precision", "int8", "--json"]
            told = _run([*words, "--calibrate", str(its_data), "--data", str(its_data), "--data-format", "voc"])
            if told.returncode:
                yield Row(what, target, (told.stderr.strip().splitlines() or ["failed"])[-1], False)
                continue
            forms = json.loads(told.stdout)["forms"]
        first, last = forms[0], forms[-1]
        ap, ap50 = (100 * (first[key] - last[key]) for key in ("ap", "ap50"))
        kept = f", {len(last['kept'])} layers stay float" if last["kept"] else ""
        yield Row(what, target, f"{ap:+.2f}, {ap50:+.2f}{kept}", ap <= 0.5 and ap50 <= 0.3)


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "singleshot", *words]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def _seconds(words: list[str], rounds: int) -> float:
    """The median of the wall time; the first process fills the disk's cache."""
    walls = []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        told = _run(words)
        if told.returncode:
            raise RuntimeError(told.stderr)
        if turn:
            walls.append(time.perf_counter() - start)
    return statistics.median(walls)
