"""What a recipe says of the images to train on, and of the detector to go on from."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import singleshot as ss
from singleshot import recipes
from singleshot.training.recipe import Recipe, check_values, override
from singleshot.training.setup import build_detector, open_data, resolve_start


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


def test_what_a_recipe_says_counts_and_a_file_says_the_rest(tmp_path: Path) -> None:
    detector = ss.refinedet(
        num_classes=2, backbone="mobilenetv2", image_size=64, channels=32, threshold=0.016, soft_nms=0.3
    )
    ss.save(detector, tmp_path / "coco.safetensors")
    arguments = {"threshold": 0.01, "soft_nms": None, "image_size": 320}
    recipe = Recipe(builder="refinedet", arguments=arguments, start_from=str(tmp_path / "coco.safetensors"))
    resolved, source = resolve_start(recipe)
    assert source is not None
    assert resolved.arguments == {
        "backbone": "mobilenetv2", "image_size": 320, "channels": 32, "threshold": 0.01, "soft_nms": None,
    }  # fmt: skip
    assert resolve_start(resolved)[0] == resolved

    finetune = Recipe(builder="ssd", arguments={"image_size": 96}, start_from=recipe.start_from, start="file")
    resolved, _ = resolve_start(finetune)
    assert (resolved.builder, resolved.start) == ("refinedet", "own")
    assert resolved.arguments == {
        "backbone": "mobilenetv2", "image_size": 64, "channels": 32, "threshold": 0.016, "soft_nms": 0.3,
    }  # fmt: skip

    other = Recipe(builder="ssd", arguments={"image_size": 96}, start_from=recipe.start_from)
    resolved, _ = resolve_start(other)
    assert (resolved.builder, resolved.arguments) == ("ssd", {"image_size": 96})


def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(ss.UserError, match=r"refinedet320_voc_from_coco goes on from a trained detector: .*--from"):
        resolve_start(recipes.get("refinedet320_voc_from_coco"))
    ss.save(ss.ssd(num_classes=1, backbone="mobilenetv2", image_size=64), tmp_path / "m.safetensors")
    recipe = Recipe(start_from=str(tmp_path / "m.safetensors"), arguments={"backbone_weights": "w.safetensors"})
    with pytest.raises(ss.UserError, match=r"m.safetensors \(--from\) or from w.safetensors \(--backbone-weights\)"):
        resolve_start(recipe)


def test_a_backbone_without_weights_has_nothing_to_keep() -> None:
    kept = {"optimizer.backbone_lr_factor": 0.1, "optimizer.freeze_norm_steps": -1}
    recipe = override(recipes.get("finetune"), {**kept, "arguments.frozen_stages": 2})
    anew, _ = resolve_start(recipe)
    assert (anew.optimizer.backbone_lr_factor, anew.optimizer.freeze_norm_steps) == (1.0, 0)
    assert anew.arguments == recipes.get("finetune").arguments
    given = override(recipe, {"arguments.backbone_weights": "w.safetensors"})
    assert resolve_start(given) == (given, None)
    own = replace(recipe, builder="my_detectors.py:build")  # may load weights by itself
    assert resolve_start(own) == (own, None)


def test_few_images_without_weights_are_worth_a_word(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"arguments": {"backbone": "resnet18", "image_size": 64}})
    data = open_data(override(recipe, {"data.path": str(tiny_voc)})).train
    (said,) = build_detector(recipe, data)[1]
    assert said.startswith("all weights are drawn anew (no --backbone-weights, no --from)")
    assert f"from {len(data)} images it would learn far more with ImageNet's" in said
    many = replace(data, records=data.records * 5000)
    assert "ImageNet" not in build_detector(recipe, many)[1][0]


def test_validating_on_what_was_learnt_is_said(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"data.path": str(tiny_voc)})
    assert not any("trained on too" in warning for warning in open_data(recipe).warnings)
    warnings = open_data(override(recipe, {"data.val_split": "train"})).warnings
    assert "4 of the 4 images to validate on are trained on too: the figures will be too good" in warnings
    assert not any("trained on too" in word for word in open_data(override(recipe, {"data.overfit": 2})).warnings)


def test_a_detector_of_which_nothing_fits(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"arguments": {"backbone": "resnet18", "image_size": 64}})
    data = open_data(override(recipe, {"data.path": str(tiny_voc)})).train
    other = ss.ssd(num_classes=2, backbone="mobilenetv2", image_size=64)
    said = build_detector(replace(recipe, builder="retinanet"), data, other)[1][0]
    assert said.endswith("nothing of it fits this detector: all weights are drawn anew")
    same = ss.ssd(num_classes=2, backbone="resnet18", image_size=64)
    assert "nothing of it fits" not in build_detector(recipe, data, same)[1][0]


def test_overfitting_trains_and_validates_on_the_same_few_images(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"data.path": str(tiny_voc), "data.overfit": 2})
    data = open_data(recipe)
    assert data.val is not None
    assert [record.name for record in data.train.records] == [record.name for record in data.val.records]
    assert len(data.train) == 2 < len(open_data(override(recipe, {"data.overfit": None})).train)
    assert data.train.split == data.val.split == "train"
    with pytest.raises(ss.UserError, match="data.overfit is 0; expected 1 or more images"):
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
    with pytest.raises(ss.UserError, match="data.limit is 0; expected 1 or more images"):
        check_values(override(recipe, {"data.limit": 0}))
