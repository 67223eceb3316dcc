"""docs/settings.md: every field of a recipe, with the value that `finetune` has."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path
from typing import Any

from singleshot import recipes
from singleshot.plain_data import to_plain
from singleshot.ranges import range_of
from singleshot.training.recipe import Recipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
NO_SETTINGS = {"name", "expected", "start"}


def fields(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("arguments", "defaults"):
            found |= fields(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def ranges(part: Any, prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for field in dataclasses.fields(part):
        value, allowed = getattr(part, field.name), range_of(field)
        if dataclasses.is_dataclass(value):
            found |= ranges(value, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = "" if allowed is None else str(allowed)
    return found


def test_every_number_has_a_range_and_the_page_says_it() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| .+? \| (.*?) ?\| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {name: told for name, told in ranges(Recipe()).items() if name not in NO_SETTINGS}
    for kind in (Recipe, *(kind for kind in typing.get_type_hints(Recipe).values() if dataclasses.is_dataclass(kind))):
        for name, hint in typing.get_type_hints(kind).items():
            if {int, float} & {hint, *typing.get_args(hint)}:
                assert range_of(kind.__dataclass_fields__[name]) is not None, f"{kind.__name__}.{name} has no range"


def test_every_field_with_its_value() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    finetune = {
        key: value for key, value in fields(to_plain(recipes.get("finetune"))).items() if key not in NO_SETTINGS
    }
    assert sorted(name for name, _ in rows) == sorted(finetune)
    for name, told in rows:
        value = finetune[name]
        if isinstance(value, dict):
            assert told == ", ".join(f"{key}: {part}" for key, part in value.items())
        else:
            assert told == (value if isinstance(value, str) else json.dumps(value)), name
