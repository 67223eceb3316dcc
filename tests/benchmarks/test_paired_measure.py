"""What is measured of a trained detector, itself and in other views."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs import measure
from pairs.experiment import Arm, ArmView, Experiment, differences
from pairs.experiments import EXPERIMENTS
from pairs.runner import Places, start_of
from safetensors.torch import save_file
from torch import Tensor

import singleshot as ss
from singleshot import backbones
from singleshot.detectors.parts import restore_argument
from singleshot.errors import UserError
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.multiscale.detector import MultiScaleDetector
from singleshot.multiscale.views import MultiScale, View

SMALL: dict[str, Any] = {
    "image_size": (64, 64), "backbone_options": {"width": 0.25}, "channels": 8, "anchor_sizes": (24, 48, 96, 192, 384)
}  # fmt: skip
ONCE = MultiScale((View(scale=1.0),), mirror=False)
TWICE = MultiScale((View(scale=1.0), View(size=(64, 128))), merge="soft_vote")


@pytest.fixture(scope="module")
def weights(tiny_voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector whose scores differ from place to place."""
    torch.manual_seed(0)
    detector = ss.create("iou_retinanet", num_classes=2, class_names=("cell", "other"), backbone="mobilenetv2", **SMALL)
    with torch.no_grad():
        for name, parameter in detector.head.named_parameters():
            if name.endswith("bias") or "box_deltas" in name:
                parameter.zero_()  # so the boxes are the anchors, and of 100 some fit
            elif "predict" in name:
                parameter.mul_(20)
    path = tmp_path_factory.mktemp("measure") / "last.safetensors"
    ss.save(detector, path)
    return path


def measured(weights: Path, data: Path, views: dict[str, ArmView]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    recipe = Experiment("one", data.name, {"data.format": "voc"}, {"a": Arm()}, "a", ()).recipe_of("a", 0, data.parent)
    return measure.measure(weights, recipe, views)


def test_one_pass_gives_the_numbers_of_many(weights: Path, tiny_voc: Path) -> None:
    """The network once for each view, and AP at each IoU by hand: the numbers must be the same to the last bit."""
    views: dict[str, ArmView] = {"alpha=1": {"alpha": 1.0}, "few": {"threshold": 0.3, "detections": 5}}
    plain, found = measured(weights, tiny_voc, views)
    detector, dataset = ss.load(weights).eval(), ss.open_dataset(tiny_voc, split="val", format="voc")
    own: Any = detector.postprocess
    others = {
        "": own,
        "alpha=1": replace(own, scores=own.scores.with_alpha("iou_alpha", 1.0)),
        "few": replace(own, threshold=0.3, detections=5),
    }
    for name, postprocess in others.items():

        def detect(images: list[Tensor], postprocess: Any = postprocess) -> list[dict[str, Tensor]]:
            return detector.detections(detector.raw(images), postprocess)

        metrics = ss.evaluate(dataset, detect_dataset(detect, dataset))
        by_iou = {}
        for overlap, precision in zip(range(50, 100, 5), metrics.coco.precision, strict=True):
            by_iou[f"AP{overlap}"] = float(np.mean(precision[precision > -1]))
        assert (found[name] if name else plain) == {**metrics.to_json(), "coco_iou": by_iou}
    assert plain["coco"]["AP50"] > 0
    assert found["alpha=1"] != plain != found["few"]
    assert list(found) == ["alpha=1", "few"]


def test_multi_scale_views(weights: Path, tiny_voc: Path) -> None:
    plain, found = measured(weights, tiny_voc, {"twice": TWICE, "alpha=0": {"alpha": 0.0}, "once": ONCE})
    assert found["once"] == plain
    assert list(found) == ["twice", "alpha=0", "once"]
    dataset = ss.open_dataset(tiny_voc, split="val", format="voc")
    metrics = ss.evaluate(dataset, detect_dataset(MultiScaleDetector(ss.load(weights), TWICE), dataset))
    assert found["twice"]["coco"] == metrics.to_json()["coco"]
    assert found["twice"] != plain


def test_views_of_the_iou_aware_score() -> None:
    arm = EXPERIMENTS["retinanet"].arms["iou"]
    detector = ss.create("iou_retinanet", num_classes=2, backbone="mobilenetv2", **SMALL)
    view = arm.views["alpha=1"]
    assert not isinstance(view, MultiScale)
    shown = measure.viewed(detector.postprocess, view)
    before, after = vars(detector.postprocess), vars(shown)
    assert {name for name in before if before[name] != after[name]} == {"scores"}
    assert detector.postprocess.scores.alphas["iou_alpha"] == arm.changes["arguments.iou_alpha"]
    assert shown.scores.alphas == {"iou_alpha": 1.0}
    assert measure.viewed(detector.postprocess, {}) is detector.postprocess
    with pytest.raises(UserError, match="'beta' is not a number of the post-processing"):
        measure.viewed(detector.postprocess, {"beta": 1})


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_every_view_can_be_shown(experiment: Experiment) -> None:
    """Known before hours of training, not after."""
    for name, arm in experiment.arms.items():
        if not arm.views:
            continue
        recipe = experiment.recipe_of(name, 0)
        arguments = {key: value for key, value in recipe.arguments.items() if key != "backbone_weights"}
        detector = ss.create(recipe.builder, num_classes=2, **restore_argument(arguments))
        for view in arm.views.values():
            if isinstance(view, MultiScale):
                MultiScaleDetector(detector, view)
            else:
                measure.viewed(detector.postprocess, view)


def test_views_are_settings() -> None:
    scales = Experiment("one", "voc", {}, {"a": Arm(views={"twice": TWICE, "few": {"detections": 5}})}, "a", ())
    settings = scales.settings_of("a", 0)
    assert settings["views"]["few"] == {"detections": 5}
    assert settings["views"]["twice"]["views"][1]["size"] == [64, 128]
    assert settings["views"]["twice"].keys() == asdict(TWICE).keys()
    older = {key: value for key, value in settings["views"]["twice"].items() if key != "iou"}
    assert differences({**settings, "views": {**settings["views"], "twice": older}}, settings) == []
    other = {**settings["views"]["twice"], "iou": 0.6}
    changed = {**settings, "views": {**settings["views"], "twice": other}}
    assert [text.partition(":")[0] for text in differences(changed, settings)] == ["views"]


def test_an_arm_from_scratch_shares_only_what_is_not_the_backbones(tiny_voc: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    trunk = backbones.build("mobilenetv2", options={"width": 0.25}).state_dict()
    save_file(trunk, tmp_path / "trunk.safetensors")
    (tmp_path / "voc").symlink_to(tiny_voc)
    settings = {
        "builder": "ssd",
        "arguments": {"backbone": "mobilenetv2", "image_size": 64, "backbone_options": {"width": 0.25}},
        "data.format": "voc",
    }
    arms = {"plain": Arm(), "scratch": Arm({"arguments.backbone_weights": None})}
    experiment = Experiment("one", "voc", settings, arms, "plain", (), weights="trunk.safetensors")
    places = Places(tmp_path, tmp_path / "trunk.safetensors", tmp_path / "out.jsonl", tmp_path / "runs")
    started = {arm: start_of(experiment, arm, 0, places).state_dict() for arm in arms}
    inside = {name for name in started["plain"] if name.startswith("backbone.backbone.")}
    assert {name.removeprefix("backbone.backbone.") for name in inside} == trunk.keys()
    for name, value in started["plain"].items():
        same = torch.equal(value, started["scratch"][name])
        assert same or name in inside, name
    first = "backbone.backbone.features.0.0.weight"
    assert torch.equal(started["plain"][first], trunk["features.0.0.weight"])
    assert not torch.equal(started["scratch"][first], trunk["features.0.0.weight"])
