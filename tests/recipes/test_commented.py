"""A recipe with a comment beside each line is still that recipe."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from singleshot import recipes
from singleshot.recipes.commented import argument_lines, commented_yaml
from singleshot.training import from_yaml, override
from singleshot.training.recipe import Published, Recipe


@pytest.mark.parametrize("name", recipes.names())
def test_every_line_has_a_comment_and_the_recipe_is_the_same(name: str, tmp_path: Path) -> None:
    text = commented_yaml(recipes.get(name))
    (tmp_path / "recipe.yaml").write_text(text)
    assert from_yaml(tmp_path / "recipe.yaml") == recipes.get(name)
    for line in text.splitlines():
        if re.match(r" *(- )?\w+:", line):
            comment = line.partition("  # ")[2]
            assert len(comment) > 5, line
            assert not comment.endswith("."), line


@pytest.mark.parametrize("name", recipes.names())
def test_published_figures_stand_above_with_data_metric_and_table(name: str) -> None:
    recipe, head = recipes.get(name), commented_yaml(recipes.get(name)).partition("\nname:")[0]
    for figure in recipe.expected:
        assert f"#   {figure.value:.1f} %: {figure.metric} ({figure.source})" in head.splitlines()
        assert re.search(r"(Tables?|section|MODEL_ZOO) ?", figure.source)
    assert ("not a promise" in head) == bool(recipe.expected)
    if recipe.expected and recipe.data.split:
        assert f"the split {recipe.data.split}." in head


def test_every_field_says_what_it_means() -> None:
    def check(kind: type) -> None:
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING and dataclasses.is_dataclass(field.default):
                assert inspect.getdoc(type(field.default))
                check(type(field.default))
            else:
                assert len(field.metadata["about"]) > 5, f"{kind.__name__}.{field.name}"

    check(Recipe)
    check(Published)


def test_awkward_values(tmp_path: Path) -> None:
    recipe = override(
        Recipe(),
        {
            "name": "two\nlines",
            "data.path": "/data/#1: 'mine'  # old",
            "data.classes": ["a: b", "# c", "null"],
            "arguments": {"backbone_options": {"width": 0.5, "of": [1, 2]}, "nested": {}, "empty": None},
        },
    )
    long = dataclasses.replace(recipe, start_from="folder with spaces/" * 12 + "model.safetensors")
    for one in (recipe, long):
        (tmp_path / "recipe.yaml").write_text(commented_yaml(one))
        assert from_yaml(tmp_path / "recipe.yaml") == one


def test_a_builder_of_ones_own_is_not_imported() -> None:
    text = commented_yaml(Recipe(builder="no_such_module:build", arguments={"depth": 3}))
    assert re.search(r"^  depth: 3 +# an argument of no_such_module:build$", text, re.MULTILINE)


def test_arguments_of_a_docstring() -> None:
    text = """One line.

    Args:
        backbone: the network below. More about it
            in a second line.
        size: sides in pixels, 0.5 and more (section 3.1; default 300)
            or two of them.

    Raises:
        UserError: nothing: at all.
    """
    assert argument_lines(inspect.cleandoc(text)) == {
        "backbone": "the network below",
        "size": "sides in pixels, 0.5 and more (section 3.1; default 300) or two of them",
    }
    assert argument_lines("One line.") == {}
