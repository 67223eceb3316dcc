"""A recipe as YAML with a comment beside each line, and the published figures above it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from singleshot.plain_data import to_plain
from singleshot.training.recipe import Recipe
from singleshot.yaml_text import to_yaml_text

_COLUMN = 44  # where comments begin, unless a line is longer
_OTHERS = ("arguments", "defaults")  # fields whose keys are arguments of a builder

Line = tuple[str, str]  # YAML, and the comment beside it; "" if there is none


def commented_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text; `from_yaml` of it gives an equal recipe."""
    lines = [*_head(recipe), *(_beside(*line) for line in _fields(recipe, _arguments(recipe)))]
    return "\n".join(lines) + "\n"


def _head(recipe: Recipe) -> Iterator[str]:
    if recipe.expected:
        yield "# Published figures for these settings. They were measured by others and are not a promise."
        yield from (f"#   {one.value:.1f} %: {one.metric} ({one.source})" for one in recipe.expected)
        if recipe.data.split is not None:
            yield f"# Trained on the images of the split {recipe.data.split}."
    yield "# To change something: save this as a file, edit it, then `singleshot train DATA --recipe FILE`."


def _beside(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN}}  # {comment}" if comment else text


def _fields(value: Any, arguments: Mapping[str, str], indent: str = "") -> Iterator[Line]:
    """The lines of a dataclass; the lines of its parts are indented."""
    for field in dataclasses.fields(value):
        part, about = getattr(value, field.name), str(field.metadata.get("about"))
        if dataclasses.is_dataclass(part):
            yield f"{indent}{field.name}:", _first_sentence(part)
            yield from _fields(part, arguments, f"{indent}  ")
        elif part and isinstance(part, tuple) and dataclasses.is_dataclass(part[0]):
            yield f"{indent}{field.name}:", about
            for one in part:
                (text, comment), *others = _fields(one, arguments, f"{indent}  ")
                yield f"{indent}- {text.lstrip()}", comment
                yield from others
        elif part and field.name in _OTHERS:
            yield f"{indent}{field.name}:", about
            for key, item in part.items():
                yield from _plain(key, item, arguments[key], f"{indent}  ")
        else:
            yield from _plain(field.name, to_plain(part), about, indent)


def _plain(name: str, value: Any, about: str, indent: str) -> Iterator[Line]:
    first, *others = to_yaml_text({name: value}).rstrip("\n").split("\n")
    if others and not isinstance(value, (dict, list, tuple)):  # there is no room beside a text of several lines
        yield f"{indent}# {about}", ""
        about = ""
    yield f"{indent}{first}", about
    for line in others:
        yield f"{indent}{line}", ""


def _first_sentence(part: object) -> str:
    """What a group of fields is about: the first sentence of its class's docstring."""
    text = (inspect.getdoc(type(part)) or "").partition("\n")[0].rstrip(".")
    return text[:1].lower() + text[1:]


def _arguments(recipe: Recipe) -> dict[str, str]:
    """What the arguments of builders mean, from their docstrings; the recipe's own builder comes first."""
    from singleshot.detectors import BUILDERS  # here, since it imports torch: listing recipes does not need it

    builders = sorted(BUILDERS, key=lambda name: name != recipe.builder)
    meanings: dict[str, str] = {}
    for name in builders:
        taken = dict.fromkeys(
            inspect.signature(BUILDERS[name]).parameters, f"an argument of {name}: docs/{_page(name)}"
        )
        for key, text in {**taken, **argument_lines(inspect.getdoc(BUILDERS[name]) or "")}.items():
            meanings.setdefault(key, text)
    own = f"an argument of {recipe.builder}"
    return {key: meanings.get(key, own) for key in (*recipe.arguments, *recipe.defaults)}


def _page(builder: str) -> str:
    return {"iou_retinanet": "iou_aware.md"}.get(builder, f"{builder}.md")


def argument_lines(docstring: str) -> dict[str, str]:
    """The section "Args:" of a docstring: argument name -> its first sentence, without the full stop."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section[1], re.MULTILINE)
    return {name: re.split(r"\.(?=\s|$)", " ".join(text.split()), maxsplit=1)[0] for name, text in entries}
