"""YAML as plain data: nothing but mappings, lists, text, finite numbers, true, false and null.

The library divides the text into events; the values are made here. So no file runs code, takes long, fills the memory,
or ends in an error of the library's own constructors.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from singleshot.errors import UserError, short, shown
from singleshot.paths import no_name, to_path

MOST_BYTES = 500_000
MOST_VALUES = 25_000
MOST_LEVELS = 30
"""The limits of a file: its size, its values (what an alias repeats counts again), and how deep they are nested."""

_LONGEST_NUMBER = 100  # characters
_TAG = "tag:yaml.org,2002:"
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_SCALARS = ("null", "bool", "int", "float", "str", "merge")
_EXPONENT = re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$")  # 1e-3: YAML 1.1 requires 1.0e-3


class _Loader(yaml.SafeLoader):
    """Gives the events of a text, and knows which text is a number, true, false or null. A date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in kinds if tag.removeprefix(_TAG) in _SCALARS]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes what `_Loader` would read as a number, and writes a value twice where it occurs twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_multi_representer(str, _Dumper.represent_str)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(f"{_TAG}float", _EXPONENT, list("-+0123456789"))


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        UserError: not YAML, or more than plain data. The message names `where`, the line, and what is wrong there.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{where}: this is longer than {MOST_BYTES:,} characters; expected a short text of settings")
    try:
        return _Document(_Loader(text)).read()
    except yaml.reader.ReaderError as error:
        line, letter = text.count("\n", 0, error.position) + 1, text[error.position : error.position + 1]
        what = f"this is not valid YAML: the character {letter!r} is not allowed"
        raise UserError(f"{where}, line {line}: {what}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = where if mark is None else f"{where}, line {mark.line + 1}"
        what = "" if isinstance(error, _Refused) else "this is not valid YAML: "
        raise UserError(f"{place}: {what}{error.problem or error.context}") from None


def load_yaml(path: Path, expected: str = "a mapping of recipe fields, such as `batch_size: 16`") -> dict[str, Any]:
    """Read a YAML file that holds a mapping; `expected` describes it for messages."""
    path = to_path(path)
    if path.exists() and not path.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{path}: this is not a file; expected YAML, {expected}")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: this file has more than {MOST_BYTES:,} bytes; expected YAML, {expected}")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not a text file; expected YAML, {expected}") from None
    tree = read_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected {expected}, got {short(tree)}")
    return tree


def to_yaml_text(tree: dict[str, Any]) -> str:
    """Plain data as YAML text; the order of the keys is kept."""
    text: str = yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=100
    )
    return text


class _Refused(yaml.MarkedYAMLError):
    """YAML may have this, our files may not."""


def _refuse(event: Any, problem: str, kind: type[yaml.MarkedYAMLError] = _Refused) -> NoReturn:
    raise kind(problem=problem, problem_mark=event.start_mark)


class _Part(NamedTuple):
    """A value with what it counts against the limits."""

    value: Any
    size: int = 1  # values in it, itself included
    levels: int = 0  # of mappings and lists


@dataclass
class _Document:
    """The values of a text, read event by event."""

    loader: Any  # a `_Loader`; the library's methods have no types
    anchors: dict[str, _Part | None] = field(default_factory=dict)  # None: it is being read
    size: int = 0

    def read(self) -> Any:
        """The one document of the text; None if there is none."""
        self.next()  # the start of the stream
        if isinstance(self.next(), yaml.StreamEndEvent):
            return None
        value = self.part(self.next(), 0).value
        self.next()  # the end of the document
        if not isinstance(event := self.next(), yaml.StreamEndEvent):
            _refuse(event, "another document begins here; expected one")
        return value

    def next(self) -> Any:
        try:
            return self.loader.get_event()
        except (ValueError, OverflowError):  # the library makes a letter of any number that an escape names
            problem = "an escape that stands for no letter"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.loader.get_mark()) from None

    def part(self, event: Any, level: int) -> _Part:
        """The value that begins with this event, at this level."""
        if isinstance(event, yaml.AliasEvent):
            found = self.alias(event)
            self.count(event, found.size, level + found.levels)
            return found
        self.count(event, 1, level)
        anchor, before = event.anchor, self.size
        if anchor is not None:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            found = _Part(self.scalar(event))
        else:
            value, levels = self.mapping(level) if isinstance(event, yaml.MappingStartEvent) else self.sequence(level)
            self.tag(event, yaml.MappingNode if isinstance(value, dict) else yaml.SequenceNode)
            found = _Part(value, 1 + self.size - before, levels)
        if anchor is not None:
            self.anchors[anchor] = found
        return found

    def count(self, event: yaml.Event, size: int, level: int) -> None:
        """Refuse more values, or deeper ones, than a file may have."""
        self.size += size
        if self.size > MOST_VALUES:
            _refuse(event, f"more than {MOST_VALUES:,} values, repeated ones counted; expected fewer")
        if level > MOST_LEVELS:
            _refuse(event, f"nested more than {MOST_LEVELS} levels deep; expected fewer")

    def alias(self, event: yaml.AliasEvent) -> _Part:
        if event.anchor not in self.anchors:
            _refuse(event, f"nothing before has the name &{shown(event.anchor)}")
        found = self.anchors[event.anchor]
        if found is None:
            _refuse(event, f"*{shown(event.anchor)} stands within itself")
        return found

    def sequence(self, level: int) -> tuple[list[Any], int]:
        items, deepest = [], 0
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            item = self.part(event, level + 1)
            items.append(item.value)
            deepest = max(deepest, item.levels)
        return items, deepest + 1

    def mapping(self, level: int) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        deepest = 0
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                _refuse(event, "the key of a mapping must be text")
            key, merges = self.text(event), self.tag(event, yaml.ScalarNode) == f"{_TAG}merge"
            item = self.part(begin := self.next(), level + 1)
            deepest = max(deepest, item.levels)
            if merges:
                several = item.value if isinstance(item.value, list) else [item.value]
                if not all(isinstance(one, dict) for one in several):
                    _refuse(begin, "expected a mapping, or a list of mappings, after `<<:`")
                merged += several
            elif key in own:
                _refuse(event, f"the key {shown(key)!r} is there twice", yaml.MarkedYAMLError)
            else:
                own[key] = item.value
        for other in merged:
            own = {**own, **{key: value for key, value in other.items() if key not in own}}
        return own, deepest + 1

    def tag(self, event: Any, node: Any) -> str:
        """The kind of a value: written before it, or by the look of it."""
        written = event.tag not in (None, "!")
        tag = str(event.tag if written else self.loader.resolve(node, getattr(event, "value", None), event.implicit))
        fits = {yaml.MappingNode: ("map",), yaml.SequenceNode: ("seq",)}.get(node, _SCALARS)
        if tag.removeprefix(_TAG) not in fits:
            told = shown(tag).replace(_TAG, "!!")
            _refuse(event, f"this is not valid YAML for settings: {told} is not known here; leave it out")
        return tag

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        """Text, a number, true, false or null."""
        kind, text = self.tag(event, yaml.ScalarNode).removeprefix(_TAG), event.value
        if kind in ("str", "merge"):
            return self.text(event)
        if kind == "null":
            return None
        if kind in ("int", "float") and len(text) > _LONGEST_NUMBER:
            _refuse(event, f"a number of {len(text):,} characters; expected at most {_LONGEST_NUMBER}")
        node = yaml.ScalarNode(f"{_TAG}{kind}", text)
        try:
            value = getattr(self.loader, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError, OverflowError):
            _refuse(event, f"expected {_WORDS[kind]}, got {short(text)}")
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(event, f"expected a finite number, got {text}")
        if value == 0 and kind == "float" and re.search("[1-9]", re.split("[eE]", text)[0]):
            _refuse(event, f"{text} is too near to 0 for a number of a computer; give 0 or a larger one")
        return value

    def text(self, event: yaml.ScalarEvent) -> str:
        if (found := no_name(event.value)) is not None:
            _refuse(event, f"{short(event.value)} holds {found}; leave it out")
        return str(event.value)
