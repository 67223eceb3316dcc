"""The detector that a run begins with, and whether its backbone has anything to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import singleshot as ss
from singleshot import recipes
from singleshot.data.deep import DeepRange
from singleshot.errors import UserError
from singleshot.training import train
from singleshot.training.recipe import Recipe, from_yaml, override
from singleshot.training.resolve import resolve_start
from singleshot.training.setup import open_data
from singleshot.training.start import build_detector
from singleshot.training.values import check_values


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


def test_defaults_are_for_builders_that_take_them(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_lab.py").write_text(
        "import singleshot as ss\n"
        "def plain(backbone, image_size, **classes):\n"
        "    return ss.ssd(backbone=backbone, image_size=image_size, **classes)\n"
        "def voting(backbone, image_size, vote=None, **classes):\n"
        "    return ss.ssd(backbone=backbone, image_size=image_size, vote=vote, **classes)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    small = {"arguments.image_size": 64, "arguments.backbone": "resnet18", "data.path": str(tiny_voc)}
    base = override(recipes.get("finetune"), small)
    data = open_data(base).train

    def built(**changes: object) -> dict[str, object]:
        recipe = override(base, {key.replace("__", "."): value for key, value in changes.items()})
        detector = build_detector(recipe, data).detector
        assert detector.postprocess.vote == detector.arguments.get("vote")  # type: ignore[attr-defined]
        return {key: value for key, value in detector.arguments.items() if key in base.defaults}

    assert base.defaults == {"vote": 0.05, "tower_norm": "group", "channels": 128}
    assert built() == built(builder="some_lab:voting") == {"vote": 0.05}
    assert built(builder="refinedet") == {"vote": 0.05, "channels": 128}
    assert built(builder="retinanet") == built(builder="iou_retinanet") == base.defaults
    assert built(builder="some_lab:plain") == {}
    with pytest.raises(ss.UserError, match=r"defaults.vots: no builder has an argument of this name; .*vote"):
        built(defaults__vots=0.05)
    assert built(builder="retinanet", defaults__channels=None) == {"vote": 0.05, "tower_norm": "group"}
    said = built(builder="retinanet", arguments__vote=None, arguments__channels=64)
    assert said == {"vote": None, "tower_norm": "group", "channels": 64}


@pytest.mark.parametrize("changes", [{}, {"arguments.image_size": 96}, {"start": "own", "builder": "retinanet"}])
def test_defaults_are_not_for_a_network_that_a_file_describes(changes: dict[str, object], tmp_path: Path) -> None:
    detector = ss.retinanet(num_classes=2, backbone="resnet18", image_size=64, channels=32)
    ss.save(detector, tmp_path / "m.safetensors")
    recipe = override(recipes.get("finetune"), {**changes, "start_from": str(tmp_path / "m.safetensors")})
    assert not resolve_start(recipe)[0].defaults
    other, _ = resolve_start(replace(recipe, builder="refinedet", start="own"))
    assert other.defaults == recipes.get("finetune").defaults


def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(ss.UserError, match=r"refinedet320_voc_from_coco starts from a trained detector: .*--from"):
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


def test_a_resumed_run_does_not_read_the_backbone_weights(tiny_voc: Path) -> None:
    """All weights come from its state; the file may be gone."""
    arguments = {"backbone": "resnet18", "image_size": 64, "backbone_weights": "/nowhere/w.pth"}
    recipe = override(Recipe(), {"arguments": arguments})
    data = open_data(override(recipe, {"data.path": str(tiny_voc)})).train
    built = build_detector(recipe, data, resumed=True)
    assert built.detector.arguments["backbone_weights"] == "w.pth"
    assert not built.fresh
    with pytest.raises(UserError, match="no such file"):
        build_detector(recipe, data)


def test_few_images_without_weights_are_worth_a_word(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"arguments": {"backbone": "resnet18", "image_size": 64}})
    data = open_data(override(recipe, {"data.path": str(tiny_voc)})).train
    said = build_detector(recipe, data).said
    assert said.startswith("all weights start at random (no --backbone-weights, no --from)")
    assert f"with {len(data)} images it would find much more from weights of ImageNet, which gained" in said
    many = replace(data, records=data.records * 5000)
    assert "ImageNet" not in build_detector(recipe, many).said


def test_a_detector_of_which_nothing_fits(tiny_voc: Path) -> None:
    recipe = override(Recipe(), {"arguments": {"backbone": "resnet18", "image_size": 64}})
    data = open_data(override(recipe, {"data.path": str(tiny_voc)})).train
    other = ss.ssd(num_classes=2, backbone="mobilenetv2", image_size=64)
    said = build_detector(replace(recipe, builder="retinanet"), data, other).said
    assert said.endswith("none of its weights fits this detector: all start at random")
    same = ss.ssd(num_classes=2, backbone="resnet18", image_size=64)
    assert "none of its weights fits" not in build_detector(recipe, data, same).said


def test_who_has_trained_the_backbone(tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder of one's own may load weights by itself: the batch norm tells. Of another detector some has to fit."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = override(recipes.get("finetune"), {"data.path": str(tiny_voc), "arguments.image_size": 64})
    data = open_data(recipe).train
    own = build_detector(replace(recipe, builder="mine:fresh", arguments={}), data)
    assert own.fresh
    assert own.said.startswith("all weights start at random")
    own = build_detector(replace(recipe, builder="mine:trained", arguments={}), data)
    assert own.said == "the weights that mine:trained gives"
    assert not own.fresh
    own = build_detector(replace(recipe, builder="mine:without_norm", arguments={}), data)
    assert not own.fresh  # nothing tells

    source = ss.ssd(num_classes=2, backbone="resnet18", image_size=64)
    assert build_detector(recipe, data, source).fresh  # MobileNetV2 has nothing of it
    same = override(recipe, {"arguments.backbone": "resnet18"})
    assert not build_detector(same, data, source).fresh
    assert build_detector(same, data).fresh


OWN = """
import singleshot as ss

def fresh(backbone="resnet18", **classes):
    return ss.ssd(backbone=backbone, image_size=64, **classes)

def trained(**classes):
    detector = fresh(**classes)
    for name, value in detector.backbone.named_buffers():
        if name.endswith("running_mean"):
            value += 1
    return detector

def without_norm(**classes):
    return fresh("vgg16", **classes)
"""


def test_a_backbone_that_nobody_has_trained_learns_as_the_rest(
    tmp_path: Path, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"optimizer__backbone_lr_factor": 0.3, "optimizer__freeze_norm_steps": -1}
    recipe = make_recipe(arguments__norm=True, schedule__steps=2, **kept)
    result = train(recipe, out=tmp_path / "anew")
    settled = from_yaml(result.run / "recipe.yaml")
    assert (settled.optimizer.backbone_lr_factor, settled.optimizer.freeze_norm_steps) == (1.0, 0)
    assert "the whole backbone learns" in capsys.readouterr().err
    train(override(recipe, {"schedule.steps": 3}), resume=result.run)  # the same recipe goes on
    changes = "optimizer.backbone_lr_factor 0.3 -> 1.0, optimizer.freeze_norm_steps -1 -> 0"
    said = f"there is nothing to protect; without effect: {changes}"
    assert said in capsys.readouterr().err

    after = train(replace(recipe, start_from=str(result.last)), out=tmp_path / "after")
    assert from_yaml(after.run / "recipe.yaml").optimizer == recipe.optimizer


def test_the_range_of_deep_images_comes_from_the_recipe_or_from_the_file(tiny_voc: Path, tmp_path: Path) -> None:
    small = {"arguments.image_size": 64, "data.path": str(tiny_voc), "data.deep_range": [0, 4095]}
    recipe = override(recipes.get("finetune"), small)
    detector = build_detector(recipe, open_data(recipe).train).detector
    assert detector.deep_range == DeepRange(0, 4095)
    ss.save(detector, tmp_path / "deep.safetensors")
    later = override(recipes.get("finetune"), {"start_from": str(tmp_path / "deep.safetensors")})
    assert resolve_start(later)[0].data.deep_range == (0, 4095)
    own = override(later, {"data.deep_range": [0, 1023]})
    assert resolve_start(own)[0].data.deep_range == (0, 1023)
    for wrong in ([5, 1], [5], [0, 1e300]):
        with pytest.raises(UserError, match="deep_range"):
            check_values(override(recipe, {"data.deep_range": wrong}))
