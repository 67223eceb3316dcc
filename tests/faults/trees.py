"""Damage to plain data and to texts: what JSON, YAML, XML and lists of names have in common."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

Path = tuple[Any, ...]


class Raw:
    """A piece of text that stands in a file as it is, where a value is expected."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"raw {self.text[:30]!r}"


class Again(str):
    """A key that a mapping has already, once more."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


NUMBERS = (0, -1, 1, 2, 0.5, -0.0, 1e-300, 1e9, 1e18, 1e308, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63) - 1, 10**400)
TEXTS = (
    "", " ", "0", "1", "12.5", "12,5", "-1", "nan", "NaN", "inf", "-Infinity", "1e999", "true", "false", "no", "maybe",
    "null", "~", "0x10", "0b1", "1_000", "1:60", "2001-01-01", "\x00", "a\x00b", "a\nb", "\x1b[2J", "\u202e", "\u2028",
    "\ud800", "\udcff", "\ufeff", "é", "日本", "𝟙", "٣", "../../etc/passwd", "/etc/passwd", "/dev/zero", "..", ".",
    "C:\\x", "a/b", "x" * 300, "x" * 100_000, "%s%n", "{0}", "[1]", "'", '"', "`", "<b>", "&amp;", "$HOME", "*", "?",
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [0] * 3, [1, 2, 3, 4], ["a"] * 50, {"a": {"b": [1]}})
DEEP = ("[" * 100_000, "[" * 5_000 + "]" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 40 + "]" * 40)
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5_000, "-" + "9" * 5_000, "0." + "9" * 5_000)


def damage_tree(chance: random.Random, tree: Any, raw: Sequence[str] = (*LITERALS, *DEEP)) -> tuple[str, Any, Path]:
    """A copy of the tree with one place changed: what was done, the copy, and the place."""
    tree = copy.deepcopy(tree)
    place = chance.choice(_places(tree))
    parent = tree
    for key in place[:-1]:
        parent = parent[key]
    key = place[-1]
    value = parent[key]
    what = chance.choice(("value", "value", "value", "value", "leave out", "twice", "rename", "wrap", "swap", "many"))
    if what == "leave out":
        del parent[key]
    elif what == "twice" and isinstance(parent, dict):
        parent[Again(key)] = chance.choice((copy.deepcopy(value), _value(chance, raw)))
    elif what == "twice":
        parent.insert(key, copy.deepcopy(value))
    elif what == "rename" and isinstance(parent, dict):
        parent[chance.choice((*TEXTS[:60], str(key).upper(), f" {key}", f"{key}s"))] = parent.pop(key)
    elif what == "wrap":
        parent[key] = chance.choice(([value], {"a": value}, [value, value], str(value), json.dumps(value, default=str)))
    elif what == "swap":
        other = chance.choice(_places(tree))
        parent[key] = copy.deepcopy(_at(tree, other))
    elif what == "many" and isinstance(parent, list):
        parent.extend(copy.deepcopy(value) for _ in range(chance.choice((1, 10, 300))))
    else:
        what, parent[key] = "value", _value(chance, raw)
    said = "" if what == "leave out" or (key not in parent and isinstance(parent, dict)) else f" = {parent[key]!r:.60}"
    return f"{what} at {'.'.join(map(str, place))[:100]}{said}", tree, place


def _value(chance: random.Random, raw: Sequence[str]) -> Any:
    kind = chance.choice((NUMBERS, TEXTS, OTHERS, raw or NUMBERS))
    value = chance.choice(kind)
    return Raw(value) if kind is raw else copy.deepcopy(value)


def _places(tree: Any) -> list[Path]:
    """All places in a tree that can be changed; those nearer to the root are rarer in number, not in the choice."""
    by_level: dict[int, list[Path]] = {}
    waiting: list[tuple[Path, Any]] = [((), tree)]
    for path, value in waiting:
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            by_level.setdefault(len(path), []).append((*path, key))
            waiting.append(((*path, key), value[key]))
    most = max(map(len, by_level.values()))
    return [place for places in by_level.values() for place in places * max(1, most // (4 * len(places)))]


def _at(tree: Any, place: Path) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def to_json(tree: Any) -> str:
    """A tree with `Raw` and `Again` in it as JSON text."""
    return written(tree, json.dumps, quote='"')


def written(tree: Any, write: Callable[[Any], str], *, quote: str) -> str:
    """A tree with `Raw` in it as the text that `write` makes of plain data; text has these quotation marks there."""
    raws: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(value.text)
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {key: mark(item) for key, item in value.items()}
        return [mark(item) for item in value] if isinstance(value, list) else value

    text = write(mark(tree))
    for number, raw in enumerate(raws):
        text = text.replace(f"{quote}@raw{number}@{quote}", raw, 1)
    return text


def damage_text(chance: random.Random, text: str, tokens: Sequence[str]) -> tuple[str, bytes]:
    """Damage to a text that knows nothing of it but some words of its language: what was done, and the bytes."""
    content = text.encode("utf-8", "surrogatepass")
    at = chance.randrange(len(content) + 1)
    end = min(len(content), at + chance.choice((1, 2, 10, 200, len(content))))
    token = chance.choice(tokens).encode("utf-8", "surrogatepass")
    what = chance.choice(
        ("cut", "bits", "insert", "replace", "leave out", "repeat", "many", "encoding", "lines", "junk")
    )
    if what == "cut":
        content = content[:at]
    elif what == "bits":
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 3, 30))):
            if changed:
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        content = bytes(changed)
    elif what == "insert":
        content = content[:at] + token + content[at:]
    elif what == "replace":
        content = content[:at] + token + content[end:]
    elif what == "leave out":
        content = content[:at] + content[end:]
    elif what == "repeat":
        content = content[:at] + content[at:end] * chance.choice((2, 3, 50)) + content[end:]
    elif what == "many":
        times = min(chance.choice((10, 1_000, 20_000)), 3_000_000 // max(1, len(token)))
        content = content[:at] + token * times + content[at:]
    elif what == "encoding":
        codec = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gbk", "latin-1", "cp037", "utf-7"))
        content, what = text.encode(codec, "replace"), f"{what} {codec}"
    elif what == "lines":
        lines = content.splitlines(keepends=True)
        chance.shuffle(lines)
        content = chance.choice((b"".join(lines), content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r")))
    else:
        content = content[:at] + chance.randbytes(chance.choice((1, 10, 1_000))) + content[end:]
    return f"{what} from byte {at} to {end} (word {token[:20]!r})", content
