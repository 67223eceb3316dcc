"""docs/settings.md: every field of a recipe, with the value that `finetune` has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from singleshot import recipes
from singleshot.plain_data import to_plain

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
