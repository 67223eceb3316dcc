"""Copy the weights of a trained detector into one for other classes, class by class, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.heads import BranchLayers
from singleshot.structures import plain_name

_CLASSES = "class_logits"

# Other data sets' words for COCO's classes (on the right), without spaces and signs.
_SAME = {
    "aeroplane": "airplane",  # Pascal VOC
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",  # Open Images, Objects365
    "computermonitor": "tv",
    "mobilephone": "cellphone",
    "doughnut": "donut",
    "hairdryer": "hairdrier",
    "cattle": "cow",
    "table": "diningtable",
    "houseplant": "pottedplant",
    "computermouse": "mouse",
    "computerkeyboard": "keyboard",
    "remotecontrol": "remote",
    "microwaveoven": "microwave",
    "mug": "cup",
    "coffeecup": "cup",
    "flyingdisc": "frisbee",
    "ski": "skis",
}


@dataclass(frozen=True)
class Transfer:
    """What a detector took from another one, its source.

    `classes`: each class -> the source's class whose weights it starts from, None if there is none. Names of tensors:
    `taken`, `partly` (only the classes that were found), `new` (still random) and `unused` (of the source). `obstacles`
    say why class layers could not be mapped.
    """

    classes: Mapping[str, str | None]
    known: tuple[str, ...]  # the source's classes
    taken: tuple[str, ...]
    partly: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]
    obstacles: tuple[str, ...]

    def text(self) -> str:
        """The mapping of classes and the numbers of tensors, in one line."""
        parts = [f"{len(self.taken)} tensors copied"]
        if self.partly:
            parts.append(f"{len(self.partly)} in part")
        parts.append(f"{len(self.new)} new{_in_brackets(self.new, 3)}")
        if self.unused:
            parts.append(f"{len(self.unused)} of its own not used{_in_brackets(self.unused, 3)}")
        return f"{self._class_text()}; {', '.join(parts)}"

    def _class_text(self) -> str:
        found = {name: other for name, other in self.classes.items() if other is not None}
        new = tuple(name for name in self.classes if name not in found)
        if not found:
            return (
                f"none of the {len(new)} classes{_in_brackets(new, 5)} is among its {len(self.known)}"
                f"{_in_brackets(self.known, 5)}; all start at random"
            )
        pairs = ", ".join(f"{name} <- {other}" for name, other in found.items() if name != other)
        if any(name == other for name, other in found.items()):
            pairs = f"{pairs}; the others by the same name" if pairs else "by the same name"
        text = f"{len(found)} of {len(self.classes)} classes found by name ({pairs})"
        why = "; ".join(self.obstacles)
        if self.obstacles and not any(_CLASSES in name for name in (*self.taken, *self.partly)):
            return f"{text}, but all start at random: {why}"
        text = f"{text}, {len(new)} start at random{_in_brackets(new, 20)}"
        return f"{text}; in some class layers all start at random: {why}" if why else text


def transfer(source: Detector, target: Detector) -> Transfer:
    """Copy the weights of `source` that fit into `target`, in place; the rest of `target` stays unchanged.

    Tensors are copied if name and shape are the same. In the layers that predict class logits, each class takes the
    parameters of the class with its name (`match_classes`) at each anchor of a cell. The background, if there is one,
    takes those of the background. RefineDet's authors go from COCO to Pascal VOC in this way (sub-sampling). It needs
    the same number of anchors in a cell, and a background in both detectors or in neither. A head that is not made of
    `Branch`es of `class_logits` is only copied for exactly the same classes. Nothing random is drawn.
    """
    rows = match_classes(target.class_names, source.class_names)
    ours, theirs = target.state_dict(), source.state_dict()
    our_layers, their_layers = _class_layers(target), _class_layers(source)
    opaque = not our_layers and target.class_names != source.class_names
    state: dict[str, Tensor] = {}
    partly, obstacles = set(), set()
    for name, value in ours.items():
        given, layer = theirs.get(name), name.rpartition(".")[0]
        if opaque and name.startswith("head."):
            obstacles.add("the head does not say which of its parameters belong to a class")
        elif given is None or (layer in our_layers) != (layer in their_layers):
            continue
        elif layer in our_layers:
            found = _mapped(value, given, rows, our_layers[layer], their_layers[layer])
            if isinstance(found, str):
                obstacles.add(found)
            elif any(row is not None for row in rows):
                state[name] = found
                if None in rows:
                    partly.add(name)
        elif given.shape == value.shape:
            state[name] = given
    target.load_state_dict(state, strict=False)
    return Transfer(
        classes={
            name: None if row is None else source.class_names[row]
            for name, row in zip(target.class_names, rows, strict=True)
        },
        known=source.class_names,
        taken=tuple(name for name in ours if name in state and name not in partly),
        partly=tuple(name for name in ours if name in partly),
        new=tuple(name for name in ours if name not in state),
        unused=tuple(name for name in theirs if name not in ours),
        obstacles=tuple(sorted(obstacles)),
    )


def match_classes(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int | None, ...]:
    """For each of our classes the index of their class with the same name, None if there is none.

    Equal names come first, then names that differ only in case, spaces, underscores and hyphens, then other words for
    the same thing (sofa, couch). Each of their classes is used at most once.
    """
    found: dict[int, int] = {}
    for form in (str, _plain, _word):
        used = set(found.values())
        free: dict[str, int] = {}
        for index, name in enumerate(theirs):
            if index not in used:
                free.setdefault(form(name), index)
        for index, name in enumerate(ours):
            if index not in found and form(name) in free:
                found[index] = free.pop(form(name))
    return tuple(found.get(index) for index in range(len(ours)))


def _plain(name: str) -> str:
    return plain_name(name) or name


def _word(name: str) -> str:
    return _SAME.get(_plain(name), _plain(name))


@dataclass(frozen=True)
class _ClassLayer:
    """The rows of a convolution's parameters are anchor * (classes + others) + logit, the others last."""

    classes: int
    others: int  # logits that are not a class: 1 if there is a background

    @property
    def logits(self) -> int:
        return self.classes + self.others


def _class_layers(detector: Detector) -> dict[str, _ClassLayer]:
    """The layers that predict class logits, by name."""
    return {
        f"{name}.predict.{_CLASSES}": _ClassLayer(detector.num_classes, part.outputs[_CLASSES] - detector.num_classes)
        for name, part in detector.named_modules()
        if isinstance(part, BranchLayers) and _CLASSES in part.outputs
    }


def _mapped(
    value: Tensor, given: Tensor, rows: Sequence[int | None], our: _ClassLayer, their: _ClassLayer
) -> Tensor | str:
    """Parameters [anchors * logits, ...] with the rows of the found classes, or a text that says why it cannot be."""
    if our.others != their.others or our.others < 0:
        return (
            f"another kind of loss, with {our.logits} logits for {our.classes} classes; "
            f"its own has {their.logits} for {their.classes}"
        )
    anchors, known = len(value) // our.logits, len(given) // their.logits
    if anchors != known:
        return f"other anchors, {anchors} in a cell instead of {known}"
    if value.shape[1:] != given.shape[1:]:
        return f"other maps, of {value.shape[1]} channels instead of {given.shape[1]}"
    others = range(our.others)
    to = [index for index, row in enumerate(rows) if row is not None] + [our.classes + other for other in others]
    origin = [row for row in rows if row is not None] + [their.classes + other for other in others]
    result = value.clone(memory_format=torch.contiguous_format)
    cells = result.view(anchors, our.logits, *value.shape[1:])
    cells[:, to] = given.to(value).reshape(anchors, their.logits, *value.shape[1:])[:, origin]
    return result


def _in_brackets(names: tuple[str, ...], limit: int) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > limit else ""
    return f" ({', '.join(names[:limit])}{more})"
