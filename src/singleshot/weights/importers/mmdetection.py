"""What a file of mmdetection says beside its tensors: version, classes, and its configuration as plain data."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from singleshot.source import CLASS_NAMES
from singleshot.weights.importers import class_names
from singleshot.weights.importers.importer import Source

_LONGEST = 200_000  # characters of a configuration; the published ones have some ten thousand
_MOST = 200  # entries of one of its parts; so copies of parts within parts cannot fill the memory
_MOST_IN_ALL = 100_000  # entries of one value, with all that it contains; the published ones have some hundreds
_UNKNOWN = object()  # a value that is computed in a way that is not read here
_NORMALISED = ("mean", "std")


@dataclass(frozen=True)
class Told:
    """What the notes of a file say; empty where they say nothing."""

    version: tuple[int, ...] = ()
    """The version of mmdetection: (2, 11, 0)."""
    classes: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration: what it assigns, by name."""

    @property
    def old(self) -> bool:
        """Whether the file was made by mmdetection before 2.0, which counts pixels (a side is x2 - x1 + 1)."""
        head = self.part("bbox_head")
        return self.version < (2,) if self.version else "anchor_strides" in head or "target_stds" in head

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the model: backbone, neck, bbox_head, data_preprocessor, test_cfg ..."""
        return mapping(mapping(self.config.get("model")).get(name))

    @property
    def inference(self) -> dict[str, Any]:
        """The numbers of the inference, as arguments of a builder."""
        given = self.part("test_cfg") or mapping(self.config.get("test_cfg"))
        nms = mapping(given.get("nms"))
        if nms and nms.get("type", "nms") != "nms":
            warnings.warn(f"{nms['type']!r} of the file's configuration is not used: NMS takes its place", stacklevel=2)
        found = {
            "threshold": given.get("score_thr"),
            "nms": nms.get("iou_threshold", nms.get("iou_thr")),
            "candidates": given.get("nms_pre"),
            "detections": given.get("max_per_img"),
        }
        return {name: number for name, number in found.items() if is_number(number) and number >= 0}

    @property
    def pixels(self) -> list[Any] | None:
        """[mean, std, order] on RGB in 0..1 of the images that the network reads."""
        given = self.part("data_preprocessor") or mapping(self.config.get("data_preprocessor"))
        if not given:
            given = next(_steps(self._test_pipeline, "Normalize"), mapping(self.config.get("img_norm_cfg")))
        if not all(_are_numbers(given.get(name), 3) for name in _NORMALISED):
            return None
        order, step = ("rgb", 1) if given.get("bgr_to_rgb", given.get("to_rgb", False)) else ("bgr", -1)
        # The numbers stand in the network's order of channels. Ours are always red first.
        return [*([number / 255 for number in given[name]][::step] for name in _NORMALISED), order]

    @property
    def size(self) -> tuple[list[int], bool] | None:
        """[width, height] that images are resized to, or that bound them, and whether their aspect ratio is kept."""
        steps = self._test_pipeline
        resize = next(_steps(steps, "Resize"), {})
        views = next(_steps(steps, "MultiScaleFlipAug"), {})
        test = mapping(mapping(self.config.get("data")).get("test"))
        for given in (resize.get("scale"), resize.get("img_scale"), views.get("img_scale"), test.get("img_scale")):
            if isinstance(given, list) and len(given) == 2 and all(type(side) is int and side > 0 for side in given):
                kept = (
                    resize.get("keep_ratio", "scale" not in resize) if resize else test.get("resize_keep_ratio", True)
                )
                return list(given), bool(kept)
        return None

    @property
    def _test_pipeline(self) -> Any:
        data = mapping(mapping(self.config.get("data")).get("test"))  # before version 3
        since = mapping(mapping(self.config.get("test_dataloader")).get("dataset"))
        return since.get("pipeline") or data.get("pipeline") or self.config.get("test_pipeline")


def told(source: Source) -> Told:
    """What the notes of a file say. Whatever they hold, there is no error: what cannot be read is left out."""
    meta = mapping(source.notes.get("meta")) or source.notes
    dataset = mapping(meta.get("dataset_meta"))
    names = dataset.get("classes", dataset.get("CLASSES", meta.get("CLASSES")))
    text = meta.get("cfg", meta.get("config"))
    version = _version(meta.get("mmdet_version"))
    if not version and "mmengine_version" in meta:
        version = (3,)
    sound = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return Told(version, tuple(names) if sound else (), read_config(text) if isinstance(text, str) else {})


def classes(count: int, source: Source, found: Told) -> dict[str, Any]:
    """The arguments of a builder about classes.

    Without any names, 80 and 20 classes are taken for COCO's and VOC's, with a warning.
    """
    if len(found.classes) == count:
        return {"num_classes": count, "class_names": list(found.classes)}
    known = {len(names): (title, names) for title, names in (("COCO", class_names.COCO), ("VOC", class_names.VOC))}
    if count in known and CLASS_NAMES not in source.notes:
        title, names = known[count]
        warnings.warn(
            f"{source.where}the file does not name its {count} classes: they get {title}'s names; name them if they "
            "are others",
            stacklevel=2,
        )
        return {"num_classes": count, "class_names": list(names)}
    return {"num_classes": count}


def taken_for(source: Source, what: str) -> None:
    """Warn that a file does not say how it was made, and what it is taken for."""
    warnings.warn(f"{source.where}the file holds no configuration: it is taken for {what}", stacklevel=2)


def read_config(text: str) -> dict[str, Any]:
    """What a configuration of mmdetection assigns, as plain data; nothing of it is run.

    Read are literals, `dict(...)`, and names that were assigned before. A value that is computed in any other way is
    left out, and a text that is not Python gives nothing.
    """
    try:
        lines = [line for line in text[: _LONGEST + 1].splitlines() if not _is_path(line)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as Python's about backslashes: it is not the user's code
            tree = ast.parse("\n".join(lines) if len(text) <= _LONGEST else "")
        found: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for line in tree.body:
            if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
                name = line.targets[0].id
                sizes[name] = _size(line.value, sizes)
                found[name] = _value(line.value, found)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {name: value for name, value in found.items() if value is not _UNKNOWN}


def _size(node: ast.AST, sizes: Mapping[str, int]) -> int:
    """Entries of a value, with those of the names in it: short lists of lists of lists can stand for any number."""
    size = sum(sizes.get(part.id, 1) if isinstance(part, ast.Name) else 1 for part in ast.walk(node))
    if size > _MOST_IN_ALL:
        raise ValueError
    return size


def _is_path(line: str) -> bool:
    """Whether a line is the path of a configuration, which some versions write above its text."""
    return line.endswith(".py") and not any(sign in line for sign in "=()#\"'")


def _value(node: ast.expr | None, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name):
            return names.get(name, _UNKNOWN)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            values = [_value(part, names) for part in parts]
            return _UNKNOWN if any(value is _UNKNOWN for value in values) else values
        case ast.Dict(keys=keys, values=parts):
            pairs = [(_value(key, names), _value(part, names)) for key, part in zip(keys, parts, strict=True)]
            return {key: value for key, value in pairs if isinstance(key, str) and value is not _UNKNOWN}
        case ast.Call(func=ast.Name(id="dict"), args=parts, keywords=keywords):
            made: dict[str, Any] = {}
            for part in parts:
                made |= mapping(_value(part, names))
            for keyword in keywords:
                value = _value(keyword.value, names)
                if keyword.arg is None:
                    made |= mapping(value)
                elif value is not _UNKNOWN:
                    made[keyword.arg] = value
            if len(made) > _MOST:
                raise ValueError
            return made
    return _UNKNOWN


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is; anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def _steps(value: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a pipeline of one kind, also those within others, in order; each part is looked at once."""
    waiting, seen = [value], set()
    while waiting:
        step = waiting.pop()
        if not isinstance(step, Mapping | list) or id(step) in seen:
            continue
        seen.add(id(step))
        if isinstance(step, Mapping) and str(step.get("type")).rpartition(".")[2] == kind:
            yield step
        waiting.extend(reversed(list(step.values() if isinstance(step, Mapping) else step)))


def _version(text: Any) -> tuple[int, ...]:
    """(2, 11, 0) of "2.11.0+27bf9e3"; empty for anything else."""
    parts = text.split("+")[0].split(".") if isinstance(text, str) else []
    numbers = []
    for part in parts:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not 0 < len(digits) < 5:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(is_number(number) for number in value)
