"""Exports a detector: writes the file, compares it with the detector, and leaves it only if both find the same."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from singleshot.data.dataset import Dataset
from singleshot.data.frames import planes
from singleshot.data.open import open_dataset
from singleshot.detectors.detector import Detector
from singleshot.engines import find_engine, load, load_detector
from singleshot.engines.graph import Exportable, exportable
from singleshot.engines.parity import MAX_DROP, Parity, compare, usual_threshold
from singleshot.engines.quantise import quantiser_of
from singleshot.engines.quantise.control import Judged, controlled
from singleshot.errors import in_brackets
from singleshot.evaluation.detect_dataset import detect_dataset, to_arrays
from singleshot.evaluation.detections import ImageDetections
from singleshot.evaluation.metrics import Metrics, evaluate
from singleshot.exporting import triton
from singleshot.exporting.place import FOLDERS, FORMATS, files_of, staged
from singleshot.exporting.raw import raw_model
from singleshot.exporting.report import Exported, Measured, fault_of
from singleshot.exporting.request import checked
from singleshot.exporting.samples import COMPARED_IMAGES, CalibrationImages, generated, read, some, spread
from singleshot.paths import to_path
from singleshot.postprocess import vary

PREFERRED = ("val", "test")
"""The split to measure on, if none is named, as in `evaluate`."""

CALIBRATION_SPLITS = ("train", "trainval", "val")
"""The split to calibrate on: the first of these that the data has, or the only one."""

_TIMED, _WARM = 12, 3  # images that are timed, and those before them that are not


class NotTheSame(RuntimeError):
    """An exported form that does not find what its detector finds. No file is left; `report` has the numbers."""

    def __init__(self, report: Exported) -> None:
        super().__init__(f"{report.fault}; no file was written")
        self.report = report


def export(
    model: Detector | str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    precision: str = "fp32",
    calibrate: str | Path | Dataset | None = None,
    max_drop: float | None = None,
    data: str | Path | Dataset | None = None,
    split: str | None = None,
    data_format: str | None = None,
    allow_outside: bool = False,
    threshold: float | None = None,
    input: str = "image",
    outputs: str = "detections",
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a detector as one file that runs without PyTorch, and show that it finds the same objects.

    Args:
        model: a detector, or its weights file.
        out: the file to write (`.onnx`, `.xml`, `.pt2`), or without suffix a folder that gets it.
        format: "onnx", "openvino", "torch" or "triton" (a folder for Triton's model repository); None: by the suffix.
        precision: "fp32", "bf16" or "int8".
        calibrate: for int8, a dataset whose train split shows which values occur; 150 images are taken.
        max_drop: for bf16 and int8, by how many points (of 100) AP may be lower (default 0.2 and 0.5).
        data: a dataset to compare both on, with AP. Without it some images of `calibrate` are compared, else generated
            ones.
        split: the split of `data` (default: val, else test, else the only one).
        data_format: the format to read, if a folder of `data` or `calibrate` holds several.
        allow_outside: read images that the annotations name outside of the data too.
        threshold: the lowest score that the exported form gives, in place of the detector's own.
        input: "image" (uint8 [B, H, W, 3], normalised inside) or "pixels" (float32 [B, 3, H, W], normalised).
        outputs: "detections", or "raw" for the network alone.
        progress: is told what is done next.

    Raises:
        UserError: a choice that is impossible, a missing package, a file that exists already, data that cannot be read.
        NotTheSame: the exported form differs by more than the tolerance. Nothing is written.
    """
    stem = "model" if isinstance(model, Detector) else to_path(model).stem
    request = checked(
        out,
        stem=stem,
        format=format,
        precision=precision,
        max_drop=max_drop,
        calibrated=calibrate is not None,
        outputs=outputs,
    )
    format, precision, target = request.format, request.precision, request.target
    detector = model if isinstance(model, Detector) else load_detector(model, wanted="export")
    detector = _with_threshold(detector, threshold)
    reading = {"format": data_format, "allow_outside": allow_outside}
    shown = _opened(data, {"split": split, "prefer": PREFERRED, **reading}, detector.class_names)
    ranges = _opened(calibrate, {"prefer": CALIBRATION_SPLITS, "need_truth": False, **reading})
    form = exportable(detector, input, outputs, free_size=detector.preprocess.padded)
    engine = find_engine(f"model{FORMATS[format]}")
    with staged(target) as place:
        file = place if format not in FOLDERS else place.with_name(f"model{FORMATS[format]}")
        progress("finding objects with the detector")
        truth = _Truth.of(detector, shown, ranges)
        # A float32 file is compared in float32: by itself a machine with bf16 would run it in that.
        exactly = partial(load, precision="fp32" if precision == "fp32" else "auto")
        opened = partial(raw_model, form=form, detector=detector) if outputs == "raw" else exactly
        judge = _Judge(truth, precision, MAX_DROP[precision] if max_drop is None else max_drop, opened)
        before = judge.measured(detector, "before the export", megabytes=_weights(detector))
        if precision == "int8":
            original = place.with_name(f"float32{FORMATS[format]}")
            progress("exporting")
            engine.export(form, original)
            assert ranges is not None
            progress("measuring the ranges of values")
            quantiser = quantiser_of(original, CalibrationImages(ranges, form.spec))
            names = dict(zip(quantiser.layers, _names(form, quantiser.shapes, quantiser.layers), strict=True))
            steps = controlled(quantiser, file, judge.judge, say=progress)
            kept = [tuple(names[layer] for layer in step.kept) for step in steps]
            judge.forms = [replace(one, kept=layers) for one, layers in zip(judge.forms, kept, strict=True)]
            for one in files_of(original):
                one.unlink()
        else:
            progress("exporting")
            form.spec = replace(form.spec, precision=precision)
            engine.export(form, file)
            judge.judge(file)
        report = judge.report(target, format, before)
        if report.fault is not None:
            raise NotTheSame(report)
        if format in FOLDERS:
            triton.write(form, file, place)
    return report


def _with_threshold(detector: Detector, threshold: float | None) -> Detector:
    """The same detector in float32, with another lowest score; the given one is not changed."""
    own = copy.copy(detector.evaluator() or copy.deepcopy(detector).eval())
    own.precision = "fp32"  # the reference, also where the machine detects faster in bf16
    if threshold is not None:
        own.postprocess = vary(own.postprocess, "threshold", threshold)
    return own


def _opened(
    data: str | Path | Dataset | None, asked: dict[str, Any], class_names: Sequence[str] | None = None
) -> Dataset | None:
    if data is None or isinstance(data, Dataset):
        return data
    return some(open_dataset(data, class_names=class_names, **asked))


def _weights(detector: Detector) -> float:
    """The megabytes of a detector's weights."""
    held = (*detector.parameters(), *detector.buffers())
    return sum(one.numel() * one.element_size() for one in held) / 1e6


@dataclass(frozen=True)
class _Truth:
    """What the detector finds in the images that are compared."""

    images: str  # in words
    dataset: Dataset | None  # with data: all its images, one by one, and its metrics
    pictures: list[Any]  # without data
    timed: list[Any]
    sizes: list[tuple[int, int]]
    found: list[ImageDetections]
    metrics: Metrics | None

    @classmethod
    def of(cls, detector: Detector, data: Dataset | None, calibrate: Dataset | None) -> _Truth:
        if data is not None:
            timed = read(spread(data.records, _TIMED), detector.deep_range)
            found = detect_dataset(detector, data)
            # An annotation may not say the size of its image: the tolerance is then that of the network's input.
            sizes = [record.size if all(record.size) else detector.image_size for record in data.records]
            words = f"the {len(data)} images of split {data.split!r}"
            return cls(words, data, [], timed, sizes, found, evaluate(data, found))
        if calibrate is not None:
            pictures = read(spread(calibrate.records, COMPARED_IMAGES), detector.deep_range)
            words = f"{len(pictures)} images of split {calibrate.split!r}, which were also measured for int8"
        else:
            pictures = generated(COMPARED_IMAGES)
            words = "generated images of shapes; --data compares real ones"
        sizes = [(one.shape[0], one.shape[1]) for one in pictures]
        return cls(words, None, pictures, pictures[:_TIMED], sizes, _find(detector, pictures), None)


def _find(model: Any, pictures: Sequence[Any]) -> list[ImageDetections]:
    """One by one, as most people use a detector."""
    with torch.inference_mode():
        return [to_arrays(model([torch.from_numpy(planes(picture))])[0]) for picture in pictures]


class _Judge:
    """Measures exported files against the detector, and keeps what it measured."""

    def __init__(self, truth: _Truth, precision: str, max_drop: float, opened: Callable[[Path], Any]) -> None:
        self.truth, self.precision, self.max_drop, self.opened = truth, precision, max_drop, opened
        self.threshold = usual_threshold(truth.found)
        self.forms: list[Measured] = []
        self.parity: Parity | None = None
        self.metrics: Metrics | None = None

    def measured(
        self, model: Any, title: str, *, megabytes: float, metrics: Metrics | None = None, same: float | None = None
    ) -> Measured:
        told = metrics or self.truth.metrics
        ap, ap50 = (None, None) if told is None else (told.coco.numbers["AP"], told.coco.numbers["AP50"])
        return Measured(title, _milliseconds(model, self.truth.timed), megabytes, ap, ap50, same)

    def judge(self, file: Path) -> Judged:
        """Find objects with an exported file, compare, and measure."""
        truth = self.truth
        model = self.opened(file)
        data = truth.dataset
        found = _find(model, truth.pictures) if data is None else detect_dataset(model, data)
        self.metrics = None if data is None else evaluate(data, found)
        near = None if self.precision == "fp32" else 0.2 * self.threshold
        self.parity = compare(truth.found, found, truth.sizes, threshold=self.threshold, near=near)
        size = sum(one.stat().st_size for one in files_of(file)) / 1e6
        title = f"{self.precision}, try {len(self.forms) + 1}" if self.forms else self.precision
        form = self.measured(model, title, megabytes=size, metrics=self.metrics, same=self.parity.share)
        self.forms.append(form)
        drop = None
        if self.metrics is not None and truth.metrics is not None:
            drop = 100 * (truth.metrics.coco.numbers["AP"] - self.metrics.coco.numbers["AP"])
        fault = fault_of(self.parity, drop, precision=self.precision, max_drop=self.max_drop)
        quality = self.parity.share if self.metrics is None else self.metrics.coco.numbers["AP"]
        return Judged(fault is None, quality, form.ms, form.megabytes)

    def report(self, target: Path, format: str, before: Measured) -> Exported:
        """The report on the last file."""
        assert self.parity is not None
        return Exported(
            target,
            format,
            self.precision,
            self.truth.images,
            self.parity,
            self.max_drop,
            (before, *self.forms),
            self.truth.metrics,
            self.metrics,
        )


def _milliseconds(model: Any, pictures: Sequence[Any]) -> float:
    """The median time of one image, from its pixels to its detections."""
    times = []
    for picture in (*pictures[:_WARM], *pictures):
        start = time.perf_counter()
        model.predict(picture)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[min(_WARM, len(pictures)) :])


def _names(form: Exportable, shapes: Sequence[tuple[int, ...]], layers: Sequence[str]) -> list[str]:
    """The names of a graph's layers in the detector, where its convolutions are the same in the same order."""
    called: list[tuple[str, torch.nn.Module]] = []
    # A frozen norm is folded into its convolution, which is then not called itself: only this method of it is.
    methods = ((torch.nn.Conv2d, "_conv_forward"), (torch.nn.ConvTranspose2d, "forward"))
    parts = [
        (name, part, method)
        for name, part in form.named_modules()
        for kind, method in methods
        if isinstance(part, kind)
    ]

    def seen(name: str, part: torch.nn.Module, original: Callable[..., torch.Tensor], *given: Any) -> torch.Tensor:
        called.append((name, part))
        return original(*given)

    try:
        for name, part, method in parts:
            part.__dict__[method] = partial(seen, name, part, getattr(part, method))
        with torch.no_grad():
            form(*form.example(1))
    finally:
        for _, part, method in parts:
            part.__dict__.pop(method, None)
    counts = [int(part.weight.numel()) for _, part in called]  # type: ignore[operator]
    if counts != [_product(shape) for shape in shapes]:
        return [f"{layer}{in_brackets('x'.join(map(str, shape)))}" for layer, shape in zip(layers, shapes, strict=True)]
    return [name for name, _ in called]


def _product(shape: Sequence[int]) -> int:
    number = 1
    for side in shape:
        number *= side
    return number
