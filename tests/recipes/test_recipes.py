"""Every recipe stands, says where its figures are from, and builds a detector."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from singleshot import recipes
from singleshot.detectors import find_builder
from singleshot.errors import UserError
from singleshot.training import from_yaml, to_yaml
from singleshot.training.schedule import rate_factor, scaled_rate

SSD = [name for name in recipes.names() if name.startswith("ssd")]
RETINANET = [name for name in recipes.names() if name.startswith("retinanet")]
IOU_AWARE = [name for name in recipes.names() if name.startswith("iou_retinanet")]


def test_the_published_settings_are_there() -> None:
    families = ("voc07", "voc", "voc12", "coco", "voc_from_coco", "voc12_from_coco")
    wanted = {f"ssd{size}_{family}{form}" for size in (300, 512) for family in families for form in ("", "_noexpand")}
    wanted |= {"ssd300_ilsvrc", "finetune", "by_heart", "retinanet_r101_jitter_coco"}
    wanted |= {f"retinanet_{depth}_{size}_coco" for depth in ("r50", "r101") for size in (400, 500, 600, 700, 800)}
    wanted |= {f"iou_retinanet_{name}_coco" for name in ("r50", "r101", "x101", "r50_600")}
    wanted |= {f"iou_retinanet_{name}_voc" for name in ("r50", "r101")}
    families = ("voc", "voc12", "coco", "r101_coco", "voc_from_coco", "voc12_from_coco")
    wanted |= {f"refinedet{size}_{family}" for size in (320, 512) for family in families}
    assert set(recipes.names()) == wanted


@pytest.mark.parametrize("name", recipes.names())
def test_what_goes_on_from_coco_needs_a_file(name: str) -> None:
    expected = "file" if name in ("finetune", "by_heart") else "needed" if "_from_coco" in name else "own"
    assert recipes.get(name).start == expected


@pytest.mark.parametrize(
    ("name", "value", "steps", "milestones", "rate", "batch"),
    [
        ("refinedet320_voc", 80.0, 120_000, (80_000, 100_000), 1e-3, 32),
        ("refinedet512_voc12", 80.1, 240_000, (160_000, 200_000), 1e-3, 32),
        ("refinedet320_coco", 29.4, 400_000, (280_000, 360_000), 1e-3, 32),
        ("refinedet320_r101_coco", 32.0, 400_000, (280_000, 360_000), 1e-3, 32),
        ("refinedet512_r101_coco", 36.4, 540_000, (400_000, 480_000), 1e-3, 20),
        ("refinedet512_voc_from_coco", 85.2, 120_000, (80_000,), 5e-5, 32),
        ("refinedet320_voc12_from_coco", 82.7, 160_000, (120_000,), 5e-5, 32),
    ],
)
def test_refinedet(name: str, value: float, steps: int, milestones: tuple[int, ...], rate: float, batch: int) -> None:
    recipe = recipes.get(name)
    (figure,) = recipe.expected
    assert (figure.value, "1711.06897" in figure.source) == (value, True)
    assert (recipe.schedule.steps, recipe.schedule.milestones) == (steps, milestones)
    assert recipe.schedule.gamma == (0.2 if "from_coco" in name else 0.1)
    assert (scaled_rate(recipe.optimizer, recipe.batch_size), recipe.batch_size) == (rate, batch)
    assert recipe.builder == "refinedet"
    assert recipe.arguments["backbone"] == ("resnet101" if "r101" in name else "vgg16")
    assert recipe.augmentation.expand
    assert (recipe.arguments.get("soft_nms") == 0.3) == ("coco" in name and "from" not in name)


@pytest.mark.parametrize("name", [name for name in recipes.names() if "voc" in name])
def test_voc2012_is_measured_by_the_area(name: str) -> None:
    """VOC2007 has a metric of 11 points, VOC2010 and later challenges the area under the curve."""
    metric = recipes.get(name).validation.metric
    assert metric == ("coco.AP" if name.startswith("iou") else "voc10.mAP" if "voc12" in name else "voc07.mAP")


@pytest.mark.parametrize("name", SSD)
def test_published(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.name == name
    (figure,) = recipe.expected
    assert 20 < figure.value < 90
    assert "1512.02325" in figure.source
    assert recipe.augmentation.expand is not (name.endswith("_noexpand") or name == "ssd300_ilsvrc")
    assert recipe.arguments["box_sizes"] == ("coco" if "coco" in name or "ilsvrc" in name else "voc")
    assert recipe.arguments["image_size"] == int(name[3:6])
    assert (recipe.optimizer.lr, recipe.batch_size, recipe.schedule.warmup_steps) == (1e-3, 32, 0)
    assert not recipe.data.drop_difficult


@pytest.mark.parametrize(
    ("name", "value", "steps", "milestones"),
    [
        ("ssd300_voc", 77.2, 120_000, (80_000, 100_000)),
        ("ssd512_voc_noexpand", 76.8, 60_000, (40_000, 50_000)),
        ("ssd512_voc12", 78.5, 160_000, (120_000,)),
        ("ssd300_voc12_noexpand", 72.4, 80_000, (60_000,)),
        ("ssd512_coco", 28.8, 400_000, (280_000, 360_000)),
        ("ssd300_coco_noexpand", 23.2, 240_000, (160_000, 200_000)),
        ("ssd512_voc_from_coco", 83.2, 120_000, (80_000, 100_000)),
        ("ssd300_ilsvrc", 43.4, 440_000, (320_000, 400_000)),
    ],
)
def test_schedules_of_the_paper(name: str, value: float, steps: int, milestones: tuple[int, ...]) -> None:
    recipe = recipes.get(name)
    assert recipe.expected[0].value == value
    assert (recipe.schedule.steps, recipe.schedule.milestones) == (steps, milestones)
    assert rate_factor(recipe.schedule, steps - 1, steps) == pytest.approx(0.1 ** len(milestones))


@pytest.mark.parametrize("name", recipes.names())
def test_builds_and_round_trips(name: str, tmp_path: Path) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        detector = find_builder(recipe.builder)(num_classes=3, **recipe.arguments)
    side, longest = recipe.arguments["image_size"], recipe.arguments.get("max_size")
    assert detector.image_size == ((side, side) if longest is None else (_padded(side), _padded(longest)))
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    assert from_yaml(path) == recipe


def _padded(side: int) -> int:
    return (side + 31) // 32 * 32


@pytest.mark.parametrize("name", [*RETINANET, *IOU_AWARE])
def test_pyramids_train_as_published(name: str) -> None:
    recipe = recipes.get(name)
    assert all(20 < figure.value < 60 and figure.source and figure.metric for figure in recipe.expected)
    assert ("1708.02002" if name in RETINANET else "1912.05992") in recipe.expected[0].source
    optimizer, augmentation = recipe.optimizer, recipe.augmentation
    assert (optimizer.lr, optimizer.base_batch_size, optimizer.weight_decay, optimizer.clip_norm) == (
        0.01,
        16,
        1e-4,
        35,
    )
    assert (optimizer.bias_lr_factor, optimizer.bias_decay, recipe.schedule.warmup_steps) == (1.0, True, 500)
    assert rate_factor(recipe.schedule, 0, 90_000) == pytest.approx(1 / 3, abs=1e-6)
    assert augmentation.flip
    assert not any((augmentation.photometric, augmentation.expand, augmentation.crop, augmentation.jitter))
    assert recipe.data.crowd == "drop"
    assert recipe.validation.metric == "coco.AP"


@pytest.mark.parametrize(
    ("name", "value", "backbone", "sides"),
    [
        ("retinanet_r50_400_coco", 30.5, "resnet50", (400, 667)),
        ("retinanet_r50_600_coco", 34.3, "resnet50", (600, 1000)),
        ("retinanet_r101_500_coco", 34.4, "resnet101", (500, 833)),
        ("retinanet_r101_800_coco", 37.8, "resnet101", (800, 1333)),
        ("retinanet_r101_jitter_coco", 39.1, "resnet101", (800, 1333)),
    ],
)
def test_retinanet_of_the_paper(name: str, value: float, backbone: str, sides: tuple[int, int]) -> None:
    recipe = recipes.get(name)
    arguments, schedule, jitter = recipe.arguments, recipe.schedule, "jitter" in name
    assert recipe.expected[0].value == value
    assert (arguments["backbone"], arguments["image_size"], arguments["max_size"]) == (backbone, *sides)
    assert arguments.get("jitter") == ([640, 800] if jitter else None)
    assert (arguments["p6"], arguments["relu_before_p7"], arguments["beta"]) == ("c5", True, 0.11)
    assert recipe.batch_size == 16
    assert schedule.steps == (135_000 if jitter else 90_000)
    assert schedule.milestones == ((90_000, 120_000) if jitter else (60_000, 80_000))


@pytest.mark.parametrize(
    ("name", "figures", "batch", "rate", "epoch"),
    [
        ("r50_coco", (36.9, 35.9), 16, 0.01, 7_330),
        ("r101_coco", (39.2, 38.1), 8, 0.005, 14_659),
        ("x101_coco", (40.6, 39.0), 8, 0.005, 14_659),
        ("r50_600_coco", (35.5, 34.3), 12, 0.0075, 9_773),
        ("r50_voc", (53.6, 51.4), 12, 0.0075, 1_380),
        ("r101_voc", (56.2, 55.1), 12, 0.0075, 1_380),
    ],
)
def test_iou_aware_of_the_paper(name: str, figures: tuple[float, float], batch: int, rate: float, epoch: int) -> None:
    """Rates and batches are the authors' configurations', and 12 epochs drop the rate after 8 and 11."""
    recipe = recipes.get(f"iou_retinanet_{name}")
    assert tuple(figure.value for figure in recipe.expected) == figures
    assert recipe.batch_size == batch
    assert scaled_rate(recipe.optimizer, batch) == pytest.approx(rate)
    assert (recipe.schedule.steps, recipe.schedule.milestones) == (12 * epoch, (8 * epoch, 11 * epoch))
    assert recipe.data.drop_difficult is name.endswith("voc")
    assert recipe.arguments["relu_before_p7"] is False
    assert recipe.arguments["image_size"] == (800 if name in ("r50_coco", "r101_coco", "x101_coco") else 600)


def test_what_trains_of_the_backbone() -> None:
    """Stem and first stage do not; of batch norm nothing does for RetinaNet, scale and shift for IoU-aware."""
    for name, norms in (("retinanet_r50_800_coco", False), ("iou_retinanet_r50_coco", True)):
        recipe = recipes.get(name)
        with torch.device("meta"):
            detector = find_builder(recipe.builder)(num_classes=3, **recipe.arguments).train()
        trains = {key: parameter.requires_grad for key, parameter in detector.backbone.named_parameters()}
        assert not any(value for key, value in trains.items() if key.startswith(("conv1.", "bn1.", "layer1.")))
        assert trains["layer2.0.conv1.weight"]
        assert trains["layer2.0.bn1.weight"] is trains["layer4.2.bn3.bias"] is norms
        assert not any(module.training for key, module in detector.backbone.named_modules() if ".bn" in key)


def test_the_iou_head_is_the_papers_and_the_baseline_has_none() -> None:
    recipe = recipes.get("iou_retinanet_r50_voc")
    with torch.device("meta"):
        detector = find_builder(recipe.builder)(num_classes=20, **recipe.arguments)
        baseline = find_builder("retinanet")(num_classes=20, **recipe.arguments)
    assert (detector.criterion.terms["iou"].loss, detector.criterion.terms["iou"].detach) == ("bce", True)  # type: ignore[attr-defined]
    assert detector.postprocess.scores.alphas == {"iou_alpha": 0.5}  # type: ignore[attr-defined]
    assert "iou" not in baseline.criterion.terms
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (detector, baseline)]
    assert counts[0] - counts[1] == 20_745


def test_names_are_looked_up() -> None:
    with pytest.raises(UserError, match="did you mean ssd300_voc"):
        recipes.get("ssd300_vok")
    with pytest.raises(UserError, match="unknown recipe"):
        recipes.load("nothing")


def test_a_file_builds_on_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "cells.yaml").write_text("recipe: finetune\nschedule: {epochs: 3}\n")
    recipe = recipes.load(tmp_path / "cells.yaml")
    assert recipe.name == "cells"
    assert recipe.schedule.epochs == 3
    assert recipe.optimizer == recipes.get("finetune").optimizer
    (tmp_path / "more.yaml").write_text("recipe: cells.yaml\nname: more\nseed: 5\n")
    more = recipes.load(str(tmp_path / "more.yaml"))
    assert (more.name, more.seed, more.schedule.epochs) == ("more", 5, 3)
    for wrong in (
        "batch_size: 0",
        "data: {deep_range: [9, 3]}",
        "validation: {metric: none}",
        "schedule: {epochs: -1}",
    ):
        (tmp_path / "cells.yaml").write_text(f"recipe: finetune\n{wrong}\n")
        with pytest.raises(UserError, match=r"cells\.yaml: "):
            recipes.load(tmp_path / "more.yaml")  # the file that says it is named, not the one that builds on it
    (tmp_path / "loop.yaml").write_text("recipe: loop.yaml\n")
    with pytest.raises(UserError, match="this recipe builds on itself; change its line `recipe:`"):
        recipes.load(tmp_path / "loop.yaml")


def test_recipes_need_no_torch() -> None:
    program = "import sys, singleshot.recipes as r; r.names(); print([m for m in ('torch', 'cv2') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
