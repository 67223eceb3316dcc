"""Every argument of a builder has its line in the docstring, with the default that the signature has."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from singleshot.detectors import BUILDERS
from singleshot.recipes.commented import argument_lines


def shown(default: Any) -> str:
    """A default as the docstrings write it: as it is written in YAML, whole numbers without a point."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return f"[{', '.join(map(shown, default))}]"
    return f"{default:g}" if isinstance(default, float) else str(default)


def entries(builder: str) -> dict[str, str]:
    text = inspect.getdoc(BUILDERS[builder]) or ""
    section = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


@pytest.mark.parametrize("builder", list(BUILDERS))
def test_every_argument_has_a_line_in_the_order_of_the_signature(builder: str) -> None:
    parameters = inspect.signature(BUILDERS[builder]).parameters
    assert list(entries(builder)) == list(parameters)
    for name, parameter in parameters.items():
        text = entries(builder)[name]
        if parameter.default is inspect.Parameter.empty:
            assert "Default" not in text
        else:
            assert re.search(rf"Default {re.escape(shown(parameter.default))}[.:]", text), (name, text)


@pytest.mark.parametrize("builder", list(BUILDERS))
def test_the_first_sentence_is_what_a_recipe_prints_beside_the_argument(builder: str) -> None:
    for name, text in argument_lines(inspect.getdoc(BUILDERS[builder]) or "").items():
        assert 10 < len(text) < 160, (name, text)
        assert "Default" not in text, (name, text)
