"""Measures detectors from image file to detections: every engine, every precision, and where the time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from singleshot.benchmarking import loads as loads
from singleshot.benchmarking import opening, pictures
from singleshot.benchmarking.machine import matmul_rate, this_machine
from singleshot.benchmarking.opening import Opened, Size
from singleshot.benchmarking.pictures import Pictures
from singleshot.benchmarking.report import Benchmark as Benchmark
from singleshot.benchmarking.report import Line
from singleshot.benchmarking.timing import Seconds, Spread, interleaved
from singleshot.engines import NAMES, named_engine
from singleshot.engines.options import Options, known_precision
from singleshot.errors import UserError

if TYPE_CHECKING:
    from singleshot.data.dataset import Dataset

Tell = Callable[[str], None]

_NETWORK = ("base network", "added layers", "heads", "graph")  # the parts that the share of the limit counts
_PREFERRED = ("val", "test")


class Choices(TypedDict, total=False):
    """What `benchmark` takes by keyword."""

    batch_size: int | Sequence[int]
    engine: str | Sequence[str] | None
    precision: str | Sequence[str] | None
    size: Size | Sequence[Size] | None
    threads: int | None
    rounds: int
    image: str | Path | Sequence[str | Path]
    data: str | Path | None
    split: str | None
    format: str | None
    allow_outside: bool
    device: str
    tell: Tell | None


@dataclass(frozen=True)
class Settings:
    """The choices, checked."""

    batch_size: tuple[int, ...] = (1,)
    engine: tuple[str, ...] | None = None
    precision: tuple[str, ...] | None = None
    size: tuple[Size | None, ...] = (None,)
    threads: int | None = None
    rounds: int = 10
    image: tuple[str | Path, ...] = ()
    data: str | Path | None = None
    split: str | None = None
    format: str | None = None
    allow_outside: bool = False
    device: str = "cpu"
    tell: Tell | None = None

    @classmethod
    def of(cls, choices: Mapping[str, Any]) -> Settings:
        """From what a user gave. Raises `UserError` for what is not known."""
        if unknown := set(choices) - set(Choices.__annotations__):
            raise UserError(f"benchmark takes {', '.join(Choices.__annotations__)}; got {', '.join(sorted(unknown))}")
        many = {
            name: _many(choices[name]) for name in ("batch_size", "engine", "precision", "image") if name in choices
        }
        found = cls(**{**choices, **many, "size": _sizes(choices.get("size"))})
        if found.rounds < 1 or not found.batch_size or any(number < 1 for number in found.batch_size):
            raise UserError("rounds and batch_size must be 1 or more")
        for name in found.engine or ():
            named_engine(name)
        if found.precision is not None:
            found = replace(found, precision=tuple(known_precision(word) for word in found.precision))
            if "auto" in (found.precision or ()):
                found = replace(found, precision=None)
        if found.image and found.data is not None:
            raise UserError("images to measure on are given twice, as image and as data: leave one of them out")
        if found.split is not None and found.data is None:
            raise UserError("split names a part of data, and no data is given: give data too")
        if found.format is not None and found.data is None:
            raise UserError("format is that of data, and no data is given: give data too")
        Options(found.device, threads=found.threads)
        return found


def benchmark(models: str | Path | Sequence[str | Path], **choices: Unpack[Choices]) -> Benchmark:
    """Measure models from image file to detections: time, images a second, and where the time goes.

    Args:
        models: files of detectors, or names of `singleshot models`, which get random weights.
        choices: batch_size: one or several numbers of images for each call (1). engine: one or several of `NAMES`
            (all that are installed). precision: fp32, bf16, int8 (all that the engine and the machine have). size: an
            input size, or several; for names and weights files. threads: how many compute. rounds: how often all take
            turns (10). image: files to detect in; data, split, format, allow_outside: a dataset as `open_dataset` takes
            it, which also gives AP. Without both, pictures are generated. device: "cpu" or "cuda". tell: called with a
            line of text before each step.

    Scores decide what post-processing has to do. On given images a trained model has its own. Random weights, and any
    weights on generated pictures, are changed so that a stated share of the scores passes the threshold.
    Ctrl-C ends the measurement; what was measured so far is returned, with `complete` False.

    Raises:
        UserError: an unknown name or engine, a file or an image that cannot be read, a size that a detector refuses;
            or nothing is left to measure.
    """
    import torch

    settings = Settings.of(choices)
    names = [str(name) for name in ([models] if isinstance(models, str | Path) else models)]
    if not names:
        raise UserError("benchmark needs at least one model: a file, or a name of `singleshot models`")
    threads = torch.get_num_threads()
    try:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        with tempfile.TemporaryDirectory(prefix="singleshot-benchmark-") as folder:
            return _measured(names, settings, Path(folder))
    finally:
        torch.set_num_threads(threads)


def _measured(names: list[str], settings: Settings, folder: Path) -> Benchmark:
    tell = settings.tell or (lambda line: None)
    (folder / "pictures").mkdir()
    (folder / "models").mkdir()
    dataset = None if settings.data is None else _dataset(settings, None)
    if dataset is not None:
        shown = pictures.of_dataset(dataset)
    elif settings.image:
        shown = pictures.given(settings.image)
    else:
        shown = pictures.generated(folder / "pictures")
    machine = this_machine()
    sources = list(opening.sources(names, settings.size, shown, folder / "models", settings.device))
    found, left_out = _opened(sources, settings, shown, folder / "models", tell)
    if not found:
        raise UserError("nothing to measure", *left_out)
    tell("measuring products of matrices")
    rates = {one: matmul_rate(one, settings.device) for one in dict.fromkeys(each.precision for each in found)}
    calls, counts = _calls(found, settings, shown)
    tell(f"measuring {len(calls)} calls in {settings.rounds} rounds")
    seconds, complete = interleaved(calls, rounds=settings.rounds)
    lines = []
    pairs = [(one, batch) for one in found for batch in settings.batch_size]
    for (one, batch), taken, objects in zip(pairs, seconds, counts, strict=True):
        if taken:
            lines.append(_line(one, batch, taken, objects, rates[one.precision]))
    if dataset is not None and complete:
        try:
            lines = _with_accuracy(lines, found, settings, tell)
        except KeyboardInterrupt:
            complete = False
    scores = {source.label: source.scores for source in sources}
    return Benchmark(
        machine, tuple(lines), rates, tuple(left_out), shown.about, scores, settings.rounds, complete=complete
    )


def _dataset(settings: Settings, class_names: Sequence[str] | None) -> Dataset:
    from singleshot.data.open import open_dataset

    assert settings.data is not None
    return open_dataset(
        settings.data,
        split=settings.split,
        prefer=_PREFERRED,
        format=settings.format,
        allow_outside=settings.allow_outside,
        class_names=class_names,
    )


def _opened(
    sources: Sequence[opening.Source], settings: Settings, shown: Pictures, folder: Path, tell: Tell
) -> tuple[list[Opened], list[str]]:
    """Every model with every engine in every precision, and why others are left out."""
    machine = this_machine()
    options = Options(settings.device, threads=settings.threads)
    found: list[Opened] = []
    left_out: dict[str, None] = {}
    for source in sources:
        for engine in opening.engines_of(source, settings.engine):
            if engine in NAMES and (reason := opening.missing(engine)) is not None:
                left_out[reason] = None
                continue
            precisions, reasons = opening.precisions_of(source, engine, settings.precision, machine, settings.device)
            left_out.update(dict.fromkeys(reasons))
            for precision in precisions:
                tell(f"opening {source.label}: {engine}, {precision}")
                try:
                    found.append(opening.opened(source, engine, precision, options, shown, folder))
                except UserError as error:
                    left_out[f"{source.label}, {engine}, {precision}: {error}"] = None
    return found, list(left_out)


def _calls(
    found: Sequence[Opened], settings: Settings, shown: Pictures
) -> tuple[list[Callable[[], Seconds]], list[list[int]]]:
    """One call for each model and batch, and the numbers of objects that its calls find."""
    calls: list[Callable[[], Seconds]] = []
    counts: list[list[int]] = []
    for one in found:
        for batch in settings.batch_size:
            objects: list[int] = []
            counts.append(objects)
            calls.append(_call(one, batch, shown, objects))
    return calls, counts


def _call(one: Opened, batch: int, shown: Pictures, objects: list[int]) -> Callable[[], Seconds]:
    turn = 0

    def call() -> Seconds:
        nonlocal turn
        files = shown.batch(batch, turn // 2)  # the call that counts sees the files of the one before it
        turn += 1
        predictions: list[Any] = []
        took = one.stages.divided(lambda: predictions.extend(one.model.predict(files, batch_size=batch)))
        objects.extend(len(prediction) for prediction in predictions)
        return took

    return call


def _line(one: Opened, batch: int, taken: Sequence[Seconds], objects: Sequence[int], rate: float | None) -> Line:
    parts = {name: 1e3 / batch * Spread.of([each.get(name, 0.0) for each in taken]).median for name in taken[-1]}
    network = sum(ms for name, ms in parts.items() if name in _NETWORK)
    gflops = one.source.gflops
    share = None if rate is None or gflops is None or not network else gflops * 1e9 / (network / 1e3) / rate
    height, width = one.model.image_size
    return Line(
        model=one.source.label,
        engine=one.engine,
        precision=one.precision,
        batch=batch,
        input=(height, width),
        ms=Spread.of([1e3 / batch * sum(each.values()) for each in taken]),
        parts={name: round(ms, 4) for name, ms in parts.items()},
        gflops=gflops,
        parameters=one.source.parameters,
        share=share,
        detections=sum(objects) / max(1, len(objects)),
    )


def _with_accuracy(lines: list[Line], found: Sequence[Opened], settings: Settings, tell: Tell) -> list[Line]:
    """The lines with AP, which is measured once for each model, engine and precision."""
    from singleshot.evaluation.detect_dataset import detect_dataset
    from singleshot.evaluation.metrics import evaluate

    accuracy: dict[tuple[str, str, str], float] = {}
    for one in found:
        own = _dataset(settings, one.model.class_names)
        tell(f"measuring AP on {len(own)} images: {one.source.label}, {one.engine}, {one.precision}")
        metrics = evaluate(own, detect_dataset(one.model, own))
        accuracy[one.source.label, one.engine, one.precision] = 100.0 * metrics.coco.numbers["AP"]
    return [replace(line, ap=accuracy[line.model, line.engine, line.precision]) for line in lines]


def _many(given: Any) -> tuple[Any, ...] | None:
    """One value or several -> several."""
    if given is None:
        return None
    return (given,) if isinstance(given, str | Path | int) else tuple(given)


def _sizes(given: Any) -> tuple[Size | None, ...]:
    if given is None:
        return (None,)
    if isinstance(given, int) or (isinstance(given, tuple) and len(given) == 2):
        return (given,)
    return tuple(given) or (None,)
