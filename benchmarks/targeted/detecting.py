"""Rows of whole detections: the default engine and the best one against the commit before, from file to detections."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from singleshot.benchmarking import _call, opening, pictures
from singleshot.benchmarking.machine import matmul_rate, this_machine
from singleshot.benchmarking.pictures import Pictures
from singleshot.benchmarking.timing import Spread, interleaved
from singleshot.engines.options import Options
from singleshot.errors import UserError
from targeted.before import Before
from targeted.row import Row, at_least, elsewhere, ratio

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = {  # model -> the least ratio of the default `predict` against the commit before
    "ssd300_mobilenetv2": 1.9,
    "refinedet320_mobilenetv2": 1.35,
    "retinanet320_mobilenetv2": 1.35,
}
PEERS = {"ssd300_vgg16": 1.3, "retinanet_r50": 1.3}  # the same against torchvision
ZOO = {"chess": (18.0, 4.4), "bccd": (15.0, 4.4)}  # model -> (ms on a processor with VNNI, ratio)


@dataclass(frozen=True)
class Timed:
    """One model: milliseconds of each round, before, by default now, and with the best engine."""

    before: list[float]
    default: list[float]
    best: list[float]
    engine: str  # the best one, with its precision
    share: float | None  # of the limit in that precision, reached by its network


def timed(name: str, source: Path, rounds: int, shown: Pictures, folder: Path, *, best: bool = True) -> Timed:
    """Measure one model."""
    folder.mkdir(parents=True)
    (one,) = opening.sources([name], (None,), shown, folder, "cpu")
    options = Options()
    default = opening.opened(one, "torch", "auto", options, shown, folder)
    before = Before(source, one.path, [str(path) for path in shown.paths], torch.get_num_threads())
    try:
        fastest, label, precision = default, "torch", "fp32"
        if best:
            found = list(_others(one, options, shown, folder))
            tried = [_call(each, 1, shown, []) for each in found]
            quick, _ = interleaved(tried, rounds=2)
            times = [min(sum(each.values()) for each in taken) for taken in quick]
            if times:
                fastest = found[times.index(min(times))]
                label, precision = f"{fastest.engine} {fastest.precision}", fastest.precision
            del found, tried
        calls = [before, _call(default, 1, shown, []), _call(fastest, 1, shown, [])]
        seconds, complete = interleaved(calls, rounds=rounds)
        if not complete:
            raise KeyboardInterrupt
    finally:
        before.close()
    columns = [[1e3 * sum(each.values()) for each in taken] for taken in seconds]
    graph = Spread.of([each.get("graph", 0.0) for each in seconds[2]]).median
    rate = matmul_rate(precision)
    share = one.gflops * 1e9 / graph / rate if one.gflops and graph and rate else None
    return Timed(columns[0], columns[1], columns[2], label, share)


def _others(one: opening.Source, options: Options, shown: Pictures, folder: Path) -> Iterator[opening.Opened]:
    """The engine that is the fastest on every processor that was tried, in each precision; if it is there."""
    machine = this_machine()
    for engine in [name for name in ("openvino", "onnxruntime") if opening.missing(name) is None][:1]:
        for precision in opening.precisions_of(one, engine, None, machine, "cpu")[0]:
            try:
                yield opening.opened(one, engine, precision, options, shown, folder)
            except UserError as error:
                print(f"left out: {one.label}, {engine}, {precision}: {error}", flush=True)


def rows_of_models(source: Path, rounds: int) -> Iterator[Row]:
    """The default `predict` and the best engine, on variants with made scores and generated pictures."""
    flags = this_machine().flags
    amx, vnni = "amx_int8" in flags, "avx512_vnni" in flags or "avx_vnni" in flags
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "pictures").mkdir()
        shown = pictures.generated(Path(place) / "pictures")
        for name, least in DEFAULT.items():
            found = timed(name, source, rounds, shown, Path(place) / name, best=False)
            yield at_least(f"default `predict` against before: {name}", ratio(found.before, found.default), least,
                           _times(found.before, found.default))  # fmt: skip
        for name, (with_amx, with_vnni, rate) in {
            "ssd300_vgg16": (12.0, 3.5, 50.0),
            "retinanet_r50": (8.0, 5.0, None),
            "refinedet320_vgg16": (8.0, 3.4, 40.0),
        }.items():
            found = timed(name, source, max(2, rounds // 3), shown, Path(place) / name)
            if name in PEERS:
                yield at_least(f"default `predict` against before: {name}", ratio(found.before, found.default),
                               PEERS[name], _times(found.before, found.default))  # fmt: skip
                yield elsewhere(f"default and best against torchvision: {name}",
                                f">= {PEERS[name]:g}x; best >= {with_amx:g}x with AMX, {with_vnni:g}x with VNNI",
                                "python benchmarks/peers.py")  # fmt: skip
            times = ratio(found.before, found.best)
            per_second = 1e3 / Spread.of(found.best).median
            share = "" if found.share is None else f", {100 * found.share:.0f} % of the limit"
            note = f" ({found.engine}, {per_second:.1f} images/s{share}{_times(found.before, found.best)})"
            least = with_amx if amx else with_vnni
            yield at_least(f"best engine against before: {name}", times, least, note, here=amx or vnni)
            if rate is not None:
                yield Row(f"images/s with AMX: {name}", f">= {rate:g}", f"{per_second:.1f}",
                          per_second >= rate if amx else None)  # fmt: skip


def rows_of_zoo(source: Path, rounds: int, data: Path) -> Iterator[Row]:
    """The zoo's detectors on their own pictures, one by one."""
    flags = this_machine().flags
    vnni = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))
    with tempfile.TemporaryDirectory() as place:
        for name, (limit, least) in ZOO.items():
            paths = sorted((data / name).rglob("*.jpg"))[:8]
            if not paths:
                yield elsewhere(f"best engine, one by one: zoo/{name}", f">= {least:g}x", f"needs {data / name}")
                continue
            shown = pictures.given(paths)
            found = timed(str(ROOT / "zoo" / f"{name}.safetensors"), source, rounds, shown, Path(place) / name)
            note = f" ({found.engine}{_times(found.before, found.best)})"
            yield at_least(f"best engine against before, one by one: zoo/{name}",
                           ratio(found.before, found.best), least, note)  # fmt: skip
            now = Spread.of(found.best).median
            yield Row(f"the same with VNNI: zoo/{name}", f"<= {limit:g} ms", f"{now:.1f} ms",
                      now <= limit if vnni else None)  # fmt: skip
            yield Row(f"default `predict` against before: zoo/{name}", "-",
                      f"{ratio(found.before, found.default):.2f}x{_times(found.before, found.default)}")  # fmt: skip


def rows_of_folder(rounds: int) -> Iterator[Row]:
    """A folder of 96 pictures, SSD300 on MobileNetV2 in int8, against the same one by one."""
    import singleshot as ss

    flags = this_machine().flags
    vnni = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "pictures").mkdir()
        (Path(place) / "models").mkdir()
        few = pictures.generated(Path(place) / "pictures")
        (one,) = opening.sources(["ssd300_mobilenetv2"], (None,), few, Path(place) / "models", "cpu")
        model = opening.opened(one, "openvino", "int8", Options(), few, Path(place) / "models").model
        paths = [str(path) for path in few.paths] * 12
        folder: list[float] = []
        singly: list[float] = []
        for path in few.paths:
            model.predict(str(path))
        for _ in range(max(2, rounds // 3)):
            start = time.perf_counter()
            for _ in ss.detect(model, paths, threshold=0.01):
                pass
            folder.append((time.perf_counter() - start) / len(paths))
            start = time.perf_counter()
            for path in paths:
                model.predict(path)
            singly.append((time.perf_counter() - start) / len(paths))
    rate = 1.0 / Spread.of(folder).median
    yield at_least("folder against one by one: ssd300_mobilenetv2 int8", ratio(singly, folder), 1.3)
    yield Row("folder, images/s with VNNI: ssd300_mobilenetv2 int8", ">= 120", f"{rate:.1f}",
              rate >= 120 if vnni else None)  # fmt: skip


def _times(slow: list[float], fast: list[float]) -> str:
    return f" ({Spread.of(slow).median:.0f} -> {Spread.of(fast).median:.0f} ms)"
