"""What int8 costs and gains: AP, AP50, ms and MB of each model, in fp32 and int8, in each engine.

    python benchmarks/int8.py bccd:zoo/bccd.safetensors chess:zoo/chess.safetensors bccd:RUN/last.safetensors

Each model is exported four times (ONNX Runtime and OpenVINO, fp32 and int8). int8 is
calibrated on the train split and compared on the val split. AP is that of `singleshot evaluate`. Times are those of one
image from its pixels to its detections, with one thread, the median of rounds in which all forms take turns. Each line
of benchmarks/results/int8.jsonl is one form of a model; `results_page.py` makes the table from it.
The files stay in --work: a later run uses them again, and measures only the times anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recorded import markdown
from recorded.machine import commit, machine

import singleshot as ss
from singleshot.errors import UserError

RESULTS = Path(__file__).resolve().parent / "results" / "int8.jsonl"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ENGINES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}
MOST_AP, MOST_AP50 = 0.5, 0.3  # points that int8 may cost

_PICTURES = 4  # of one round


def measured(
    name: str, weights: Path, data: Path, work: Path, *, suffixes: Iterable[str], rounds: int
) -> list[dict[str, Any]]:
    """The lines of one model: PyTorch, then both precisions of each engine."""
    detector = ss.load(weights)
    lines: list[dict[str, Any]] = []
    forms: dict[tuple[str, str], Any] = {("PyTorch", "fp32"): detector}
    for suffix in suffixes:
        engine = ENGINES[suffix]
        for precision in ("fp32", "int8"):
            path = work / f"{name}-{precision}{suffix}"
            told = path.with_suffix(".json").with_stem(f"{path.stem}-{engine.split()[0]}")
            if not path.exists():
                calibrate = {"calibrate": data} if precision == "int8" else {}
                try:
                    report = ss.export(
                        weights, path, precision=precision, data=data, data_format="voc", progress=print, **calibrate
                    )
                except ss.NotTheSame as error:  # it is a result too
                    print(f"{path}: {error}", file=sys.stderr)
                    continue
                told.write_text(json.dumps(report.to_json()))
            found = json.loads(told.read_text())
            if not lines:
                lines.append(_line(name, "PyTorch", "fp32", found["forms"][0]))
            lines.append(_line(name, engine, precision, found["forms"][-1], tries=len(found["forms"]) - 1))
            forms[engine, precision] = ss.load(path, threads=1)
    for (engine, precision), ms in _times(forms, data, rounds=rounds).items():
        for line in lines:
            if (line["engine"], line["precision"]) == (engine, precision):
                line["ms"] = ms
    return lines


def _line(name: str, engine: str, precision: str, form: dict[str, Any], **more: Any) -> dict[str, Any]:
    kept = ("megabytes", "ap", "ap50", "same", "kept")
    return {"model": name, "engine": engine, "precision": precision, **{key: form[key] for key in kept}, **more}


def _times(forms: dict[tuple[str, str], Any], data: Path, *, rounds: int) -> dict[tuple[str, str], float]:
    """The median time of one image of each form; they take turns, so that a busy moment meets all."""
    import torch

    torch.set_num_threads(1)
    records = ss.open_dataset(data, format="voc", split="val").records[:_PICTURES]
    pictures = [ss.read_image(record.path) for record in records]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in forms}
    for turn in range(rounds + 1):
        for key, model in forms.items():
            model.predict(pictures[0])  # the threads of the form before sleep by now
            for picture in pictures:
                start = time.perf_counter()
                model.predict(picture)
                if turn:
                    times[key].append(1000 * (time.perf_counter() - start))
    return {key: statistics.median(found) for key, found in times.items()}


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as Markdown: AP in percent, and what int8 costs."""
    if not lines:
        return "Not measured yet."
    rows = []
    base = {(line["model"], line["engine"]): line for line in lines if line["precision"] == "fp32"}
    for line in lines:
        first = base.get((line["model"], line["engine"]), line)
        int8 = line["precision"] == "int8"
        rows.append(
            [
                line["model"],
                line["engine"],
                line["precision"],
                f"{100 * line['ap']:.2f}" + (f" ({100 * (line['ap'] - first['ap']):+.2f})" if int8 else ""),
                f"{100 * line['ap50']:.2f}" + (f" ({100 * (line['ap50'] - first['ap50']):+.2f})" if int8 else ""),
                f"{line['ms']:.1f}" + (f" ({first['ms'] / line['ms']:.2f}x)" if int8 else ""),
                f"{line['megabytes']:.1f}",
                str(len(line["kept"])) if int8 else "-",
            ]
        )
    return markdown.table(["model", "engine", "precision", "AP", "AP50", "ms", "MB", "layers in float32"], rows)


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The recorded lines; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(words: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 1 if a model loses more than int8 may cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="SET:WEIGHTS", help="a folder of --data, and a weights file")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with bccd and chess")
    parser.add_argument("--work", type=Path, default=Path("runs/int8"), help="where the exported files stay")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="the kinds of files")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of times (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results, which gets the lines")
    options = parser.parse_args(words)
    about = {**machine(), **commit(), "date": datetime.now(UTC).date().isoformat()}
    lines = read(options.out)
    code = 0
    for model in options.models:
        name, _, path = model.partition(":")
        weights = Path(path)
        if name not in ("bccd", "chess") or not weights.is_file():
            raise UserError(f"{model}: expected bccd:FILE or chess:FILE, with a weights file that exists")
        title = f"{name}-{weights.parent.name}"
        options.work.mkdir(parents=True, exist_ok=True)
        found = measured(
            title, weights, options.data / name, options.work, suffixes=options.engines, rounds=options.rounds
        )
        lines = [line for line in lines if line["model"] != title] + [{**line, **about} for line in found]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        print(table(found))
        first = found[0]
        for line in found[1:]:
            lost, lost50 = 100 * (first["ap"] - line["ap"]), 100 * (first["ap50"] - line["ap50"])
            if lost > MOST_AP or lost50 > MOST_AP50:
                print(f"{title} {line['engine']} {line['precision']}: AP -{lost:.2f}, AP50 -{lost50:.2f}: too much")
                code = 1
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"int8: {error}", file=sys.stderr)
        sys.exit(2)
