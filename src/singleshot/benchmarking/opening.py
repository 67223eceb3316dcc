"""What is measured: models by name or file, opened by each engine in each precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singleshot.benchmarking import loads
from singleshot.benchmarking.machine import Machine
from singleshot.benchmarking.pictures import Pictures, pixels
from singleshot.benchmarking.stages import GraphStages, LayerStages, Stages
from singleshot.engines import NAMES, holds_weights, load, named_engine
from singleshot.engines.options import Options
from singleshot.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from singleshot.detectors.detector import Detector

Size = int | tuple[int, int]

_CLASSES = 80  # of a variant that was never trained: COCO's
_LOOKED_AT = 4  # images that decide the made scores
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Source:
    """A model as a file that engines open or convert."""

    label: str
    path: Path
    exported: bool
    gflops: float | None
    parameters: int | None
    scores: str  # what post-processing gets to do
    own: bool  # the user's own file, as it is


@dataclass(frozen=True)
class Opened:
    """A model that an engine runs."""

    source: Source
    engine: str
    precision: str
    model: Any
    stages: Stages


def sources(
    names: Sequence[str], sizes: Sequence[Size | None], pictures: Pictures, folder: Path, device: str
) -> Iterator[Source]:
    """Every model in every size. `folder` takes the weights of those that are made here.

    Raises `UserError` for an unknown name, a file that cannot be opened, and a size that the detector refuses.
    """
    from singleshot.detectors.registry import VARIANTS

    for name in names:
        if name not in VARIANTS and not _is_file(name):
            hint = did_you_mean(name, VARIANTS, otherwise="`singleshot models` lists the names.")
            raise UserError(f"{name!r} is neither a file nor the name of a variant; {hint}")
        for size in sizes:
            if name in VARIANTS:
                yield _written(_variant(name, size), _label(name, size), pictures, folder, trained=False)
            elif not holds_weights(name):
                if size is not None:
                    raise UserError(
                        f"{name}: an exported model has the size that it was exported for; leave --size out, or give "
                        "the .safetensors file"
                    )
                yield Source(_short(name), Path(name), True, None, None, "those of the exported model", own=True)
            else:
                yield _of_weights(name, size, pictures, folder, device)


def _of_weights(name: str, size: Size | None, pictures: Pictures, folder: Path, device: str) -> Source:
    detector = load(name, device="cpu")
    if size is not None:
        detector = _resized(detector, size, name)
    if size is None and not pictures.made:
        return _source(detector, _short(name), Path(name), f"as the weights give them on {pictures.about}", own=True)
    return _written(detector, _label(_short(name), size), pictures, folder, trained=True)


def _variant(name: str, size: Size | None) -> Detector:
    import torch

    from singleshot.detectors.registry import create

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(name, num_classes=_CLASSES, **({} if size is None else {"image_size": _argument(size)})).eval()


def _resized(detector: Detector, size: Size, name: str) -> Detector:
    """The same weights in a detector for images of another size."""
    from singleshot.detectors.registry import BUILDERS

    if detector.builder not in BUILDERS:
        raise UserError(f"{name}: --size needs a builder of this package, and this detector has its own")
    arguments = {**detector.arguments, "image_size": _argument(size)}
    other = BUILDERS[detector.builder](class_names=detector.class_names, **arguments)
    try:
        other.load_state_dict(detector.state_dict())
    except RuntimeError:
        raise UserError(
            f"{name}: its weights do not fit a detector of {_written_size(size)} pixels, which has other layers; "
            "leave --size out"
        ) from None
    other.postprocess = detector.postprocess
    return other.eval()


def _written(detector: Detector, label: str, pictures: Pictures, folder: Path, *, trained: bool) -> Source:
    """Scores are made where the pictures or the weights mean nothing, and the weights written for the engines."""
    import torch

    from singleshot.weights import checkpoint

    images = [torch.from_numpy(picture) for picture in pixels(pictures, _LOOKED_AT, detector.deep_range)]
    if trained and not pictures.made:
        load = loads.Load(False, loads.measured_share(detector, images))
    else:
        load = loads.made(detector, images)
    path = folder / f"{len(list(folder.iterdir()))}_{label.replace('/', '_')}.safetensors"
    checkpoint.save(detector, path)
    return _source(detector, label, path, load.line(), own=False)


def _source(detector: Detector, label: str, path: Path, scores: str, *, own: bool) -> Source:
    from singleshot.detectors.models import count_flops, count_parameters

    gflops = round(count_flops(detector) / 1e9, 3)
    return Source(label, path, False, gflops, count_parameters(detector), scores, own)


def engines_of(source: Source, asked: Sequence[str] | None) -> list[str]:
    """The engines that can run a model: all, or of an exported one only its own."""
    if not source.exported:
        return list(asked or NAMES)
    own = next((name for name in NAMES if NAMES[name] == source.path.suffix.lower()), None)
    return [own] if own is not None else ["auto"]


def missing(engine: str) -> str | None:
    """What to say of an engine that is not installed; None if it is."""
    module = named_engine(engine)
    lacking = [name for name in module.PACKAGES if find_spec(name) is None]
    if not lacking:
        return None
    return f"{engine}: {', '.join(lacking)} is not installed: pip install 'singleshot[{module.EXTRA}]'"


def precisions_of(
    source: Source, engine: str, asked: Sequence[str] | None, machine: Machine, device: str
) -> tuple[list[str], list[str]]:
    """The precisions to open a model in, and why others are left out."""
    if source.exported:  # it has its own
        return ["auto"], []
    has = named_engine(engine).PRECISIONS
    if asked is not None:
        lacking = [f"{engine} in {one}: it computes in {', '.join(has)}" for one in asked if one not in has]
        return [one for one in asked if one in has], lacking
    if "bf16" in has and device == "cpu" and not set(machine.flags) & set(_BF16):
        why = "bf16: this processor has no instructions for it, and is slower than in fp32"
        return [one for one in has if one != "bf16"], [why]
    return list(has), []


def opened(source: Source, engine: str, precision: str, options: Options, pictures: Pictures, folder: Path) -> Opened:
    """Open a model with an engine, converted first if it must be. Raises `UserError` where that is impossible."""
    path, by = source.path, "auto" if source.exported else engine
    if precision == "int8":
        path, by = _quantised(source, engine, pictures, folder), "auto"
    elif engine != "torch" and not source.own:  # the conversion of a user's own file is kept in the cache
        path, by = _converted(source, engine, folder), "auto"
    model: Any = load(path, engine=by, precision=precision, threads=options.threads, device=options.device)
    if source.exported:
        precision = str(model.spec.precision)
    stages = GraphStages(model) if hasattr(model, "run") else LayerStages(model)
    return Opened(source, engine, precision, model, stages)


def _converted(source: Source, engine: str, folder: Path) -> Path:
    """A weights file in the form of an engine, in float32."""
    from singleshot.engines.graph import exportable

    path = folder / f"{source.path.stem}{NAMES[engine]}"
    if not path.exists():
        named_engine(engine).export(exportable(load(source.path)), path)
    return path


def _quantised(source: Source, engine: str, pictures: Pictures, folder: Path) -> Path:
    """The same in int8, calibrated on the images of the measurement: right for its speed, not for its accuracy."""
    from singleshot.engines.quantise import quantiser_of
    from singleshot.exporting.samples import CalibrationImages

    original = _converted(source, engine, folder)
    path = folder / f"{source.path.stem}_int8{NAMES[engine]}"
    if not path.exists():
        spec = load(original).spec
        quantiser_of(original, CalibrationImages(pictures.dataset(), spec)).write(path)
    return path


def _is_file(name: str) -> bool:
    path = Path(name)
    return path.exists() or path.suffix != "" or len(path.parts) > 1


def _short(name: str) -> str:
    path = Path(name)
    return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem


def _label(name: str, size: Size | None) -> str:
    return name if size is None else f"{name}@{_written_size(size)}"


def _written_size(size: Size) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _argument(size: Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)
