"""Recipes as plain data: overrides, YAML, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from singleshot.errors import UserError
from singleshot.training import from_yaml, override, to_yaml
from singleshot.training.recipe import Data, Published, Recipe, Schedule, Validation
from singleshot.training.values import check_values
from singleshot.yaml_text import to_yaml_text


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("optimizer.lr", "1e-2", 0.01),
        ("optimizer.lr", "2", 2.0),
        ("schedule.steps", "120000", 120000),
        ("schedule.steps", "null", None),
        ("schedule.milestones", "[80, 100]", (80, 100)),
        ("schedule.milestones", "80,100", (80, 100)),
        ("augmentation.crop", "false", False),
        ("data.workers", "none", None),
        ("data.val_split", "none", "none"),
        ("data.val_split", "null", None),
        ("data.format", "none", None),
        ("data.split", "2007", "2007"),
        ("log.trackers", "tensorboard", ("tensorboard",)),
        ("compute.precision", "bf16", "bf16"),
        ("batch_size", "8", 8),
    ],
)
def test_override(key: str, text: str, expected: Any) -> None:
    value: Any = override(Recipe(), {key: text})
    for part in key.split("."):
        value = getattr(value, part)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("asked", "epochs", "images", "steps"),
    [
        ({"steps": 5}, None, None, 5),
        ({"steps": "5"}, None, None, 5),
        ({"images": 5}, None, 5, 100),
        ({"epochs": 5}, 5.0, 1000, 100),
        ({"epochs": None, "steps": 5}, None, None, 5),
        ({"epochs": "null", "steps": "5"}, None, None, 5),
        ({"epochs": "None", "steps": "5"}, None, None, 5),
        ({"epochs": "~", "steps": "5"}, None, None, 5),
        ({"images": 5, "milestones": [3]}, None, 5, None),
        ({"epochs": 5, "steps": 7, "milestones": [3]}, 5.0, 1000, 7),
        ({"epochs": None, "images": 5, "steps": 7}, None, 5, 7),
        ({"epochs": None}, None, 1000, 100),
        ({"warmup_steps": 3}, 3.0, 1000, 100),
    ],
)
def test_the_unit_of_length_that_is_asked_for_counts(
    asked: dict[str, Any], epochs: float | None, images: int | None, steps: int | None, tmp_path: Path
) -> None:
    base = Recipe(schedule=Schedule(steps=100, images=1000, epochs=3))
    dotted = {f"schedule.{unit}": value for unit, value in asked.items()}
    (tmp_path / "nested.yaml").write_text(to_yaml_text({"schedule": asked}))
    (tmp_path / "dotted.yaml").write_text(to_yaml_text(dotted))
    for recipe in (
        override(base, dotted),
        override(base, {"schedule": asked}),
        from_yaml(tmp_path / "nested.yaml", base=base),
        from_yaml(tmp_path / "dotted.yaml", base=base),
    ):
        assert (recipe.schedule.epochs, recipe.schedule.images, recipe.schedule.steps) == (epochs, images, steps)


@pytest.mark.parametrize(
    ("asked", "every", "times"),
    [
        ({"every": 5}, 5.0, None),
        ({"times": 4}, 2.0, 4),
        ({"every": 5, "times": "4"}, 5.0, 4),
        ({"patience": 3}, 2.0, 10),
    ],
)
def test_the_interval_of_validations_that_is_asked_for_counts(
    asked: dict[str, Any], every: float, times: int | None
) -> None:
    base = Recipe(validation=Validation(every=2, times=10))
    for changes in ({"validation": asked}, {f"validation.{key}": value for key, value in asked.items()}):
        found = override(base, changes).validation
        assert (found.every, found.times) == (every, times)
    with pytest.raises(UserError, match="validation.times is 0; expected 1 to 1,000,000, or null"):
        check_values(override(base, {"validation.times": 0}))


def test_text_that_looks_like_a_number_is_read_back(tmp_path: Path) -> None:
    recipe = Recipe(name="7e10", data=Data(split="1E3", classes=("1e-3", "12", "null", "yes")))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert from_yaml(tmp_path / "recipe.yaml") == recipe


def test_override_arguments() -> None:
    recipe = override(Recipe(arguments={"backbone": "vgg16"}), {"arguments.image_size": "[300, 400]"})
    recipe = override(recipe, {"arguments.classification": "{type: SoftmaxLoss, ratio: 3}"})
    assert recipe.arguments == {
        "backbone": "vgg16",
        "image_size": [300, 400],
        "classification": {"type": "SoftmaxLoss", "ratio": 3},
    }


def test_parts_of_an_argument_can_be_set_one_by_one() -> None:
    recipe = override(Recipe(), {"arguments.classification.type": "FocalLoss", "arguments.classification.gamma": "1.5"})
    assert recipe.arguments == {"classification": {"type": "FocalLoss", "gamma": 1.5}}
    recipe = override(recipe, {"arguments.classification.gamma": 2, "arguments.iou_head.alpha": 0.4})
    assert recipe.arguments["classification"] == {"type": "FocalLoss", "gamma": 2}
    assert recipe.arguments["iou_head"] == {"alpha": 0.4}
    with pytest.raises(UserError, match=r"arguments.channels.x: the value is 128, which has no part 'x'"):
        override(Recipe(arguments={"channels": 128}), {"arguments.channels.x": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.learning_rate", "1", "unknown key 'optimizer.learning_rate'"),
        ("optimiser.lr", "1", "did you mean optimizer"),
        ("optimizer.lr", "fast", "optimizer.lr: expected a number, got 'fast'"),
        ("optimizer.lr", "true", "expected a number, got True"),
        ("batch_size", "2.5", "batch_size: expected a whole number, got 2.5"),
        ("augmentation.crop", "1", "expected true or false, got 1"),
        ("optimizer.name", "lion", "expected one of sgd, adam, adamw, got 'lion'"),
        ("optimizer", "sgd", "expected a mapping of name, lr"),
        ("batch_size.x", "1", "batch_size has no parts"),
        ("log.trackers", "[aim]", r"log.trackers\[0\]: expected one of tensorboard"),
        ("arguments", "3", "arguments: expected a mapping"),
        ("arguments.size", "[1", "this is not valid YAML"),
    ],
)
def test_mistakes(key: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(Recipe(), {key: value})


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = override(
        Recipe(
            expected=(Published("VOC07", 77.2, "SSD: a paper"),),
            arguments={"image_size": [300, 300], "classification": {"type": "SoftmaxLoss"}, "pixels": "caffe_bgr"},
            schedule=Schedule(steps=10, milestones=(5, 8)),
        ),
        {"optimizer.lr": 1e-5, "ema.decay": 0.999, "data.path": "/data/a: b", "log.trackers": ["tensorboard"]},
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    assert from_yaml(path) == recipe
    assert to_yaml(from_yaml(path)) == to_yaml(recipe)


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer:\n  lr: 1e-4\narguments: {backbone: resnet50}\n")
    base = override(Recipe(), {"optimizer.momentum": 0.8, "arguments.image_size": 320})
    recipe = from_yaml(path, base=base)
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (1e-4, 0.8)
    assert recipe.arguments == {"image_size": 320, "backbone": "resnet50"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {lr: 1\n", "mine.yaml, line 2: this is not valid YAML"),
        ("- a\n- b\n", "expected a mapping of recipe fields"),
        ("", "expected a mapping of recipe fields"),
        ("batch: 3\n", "mine.yaml: unknown key 'batch'; did you mean batch_size"),
        ("optimizer: {lr: fast}\n", "mine.yaml: optimizer.lr: expected a number"),
        ("expected: [{metric: mAP, value: 1}]\n", r"mine.yaml: expected\[0\].source is missing; got metric, value"),
        ("seed: 1\nseed: 2\n", "line 2.*'seed' is there twice"),
        ("seed: !!python/object/apply:os.system [ls]\n", "this is not valid YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        from_yaml(path)


def test_no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00rubbish")
    with pytest.raises(UserError, match="this is not a text file"):
        from_yaml(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        from_yaml(tmp_path / "none.yaml")
