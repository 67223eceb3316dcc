"""What a recipe says of the images to train on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import singleshot as ss
from singleshot.training.recipe import Recipe, override
from singleshot.training.setup import limit_notes, open_data
from singleshot.training.values import check_values


@pytest.mark.parametrize(
    ("skip_empty", "drop_difficult", "expected"),
    [(False, True, "abcd"), (True, False, "acd"), (True, True, "cd")],
)
def test_images_without_objects(
    tiny_voc: Path, tmp_path: Path, skip_empty: bool, drop_difficult: bool, expected: str
) -> None:
    """b is given no object, and a only difficult ones; the images to measure on all stay."""
    root = shutil.copytree(tiny_voc, tmp_path / "voc")
    for name in "bf":
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(re.sub("<object>.*</object>", "", path.read_text()))
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    changes = {"data.path": str(root), "data.skip_empty": skip_empty, "data.drop_difficult": drop_difficult}
    data = open_data(override(Recipe(), changes))
    assert "".join(record.name[0] for record in data.train.records) == expected
    assert data.val is not None
    assert len(data.val) == 2


def test_validating_on_what_was_learnt_is_said(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"data.path": str(tiny_voc)})
    assert not any("trained on too" in warning for warning in open_data(recipe).warnings)
    warnings = open_data(override(recipe, {"data.val_split": "train"})).warnings
    said = "4 of the 4 images to validate on are trained on too: the figures will be too good. Choose another split"
    assert f"{said} with --val-split" in warnings
    assert not any("trained on too" in word for word in open_data(override(recipe, {"data.overfit": 2})).warnings)


def test_overfitting_trains_and_validates_on_the_same_few_images(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"data.path": str(tiny_voc), "data.overfit": 2})
    data = open_data(recipe)
    assert data.val is not None
    assert [record.name for record in data.train.records] == [record.name for record in data.val.records]
    assert len(data.train) == 2 < len(open_data(override(recipe, {"data.overfit": None})).train)
    assert data.train.split == data.val.split == "train"
    with pytest.raises(ss.UserError, match="data.overfit is 0; expected 1 to 1,000,000,000, or null"):
        check_values(override(recipe, {"data.overfit": 0}))


def test_a_limit_trains_on_fewer_images_and_validates_on_all(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"data.path": str(tiny_voc)})
    whole = open_data(recipe)
    assert whole.val is not None
    drawn = []
    for count in (2, 3, len(whole.train)):
        few = open_data(override(recipe, {"data.limit": count, "seed": count}))
        assert few.val is not None
        assert [record.name for record in few.val.records] == [record.name for record in whole.val.records]
        assert len(few.train) == count
        drawn.append({record.name for record in few.train.records})
    assert drawn[0] < drawn[1] < drawn[2]
    more = open_data(override(recipe, {"data.limit": 1000}))
    assert len(more.train) == len(whole.train)
    assert f"data.limit is 1000, but there are only {len(whole.train)} images: all are used" in more.warnings
    with pytest.raises(ss.UserError, match="data.limit is 0; expected 1 to 1,000,000,000, or null"):
        check_values(override(recipe, {"data.limit": 0}))


def test_more_objects_than_can_be_counted_are_said(tiny_voc: Path) -> None:
    data = open_data(override(Recipe(), {"data.path": str(tiny_voc)}))
    assert limit_notes(data, 2) == []
    train, val = limit_notes(data, 1)
    assert train.startswith("train: 4 images have more than 1 objects (most: a, 2); 4 of 8 objects are beyond")
    assert val.startswith("val: 2 images have more than 1 objects (most: e, 2); 2 of 4 objects are beyond this limit")
