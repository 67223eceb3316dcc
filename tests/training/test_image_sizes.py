"""What a recipe's augmentation and a detector that keeps the aspect ratio make of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import tiny_detector
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import singleshot
from singleshot.data.transforms import INTERPOLATIONS, Compose, Resize, Sample, SSDAugmentation, Transform
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError
from singleshot.ops.fit import LongestSide, ShortSide, ShortSideRange
from singleshot.preprocess import KeepAspect, Pixels, Preprocess, Stretch
from singleshot.preprocess.tensors import normalised
from singleshot.training import train
from singleshot.training.recipe import Augmentation, Recipe
from singleshot.training.run import Run
from singleshot.training.setup import build_transform

FLIP = Augmentation(photometric=False, expand=False, crop=False)
ZOOM = Augmentation(expand=False, crop=False, jitter=(0.7, 1.5), vertical_flip=True, quarter_turns=True)
NONE = Augmentation(photometric=False, expand=False, crop=False, flip=False)
KEEP = KeepAspect(ShortSide(48, 96), divisor=16)
JITTER = replace(KEEP, jitter=(40, 72))
MakeRecipe = Callable[..., Recipe]


def sample(height: int = 90, width: int = 120) -> Sample:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    boxes = np.array([[10, 20, 40, 60], [0, 0, width, height]], np.float32)
    return Sample(image, boxes, np.array([0, 1]), np.zeros(2, np.bool_))


def made(settings: Augmentation, preprocess: Preprocess, seed: int, given: Sample | None = None) -> Sample:
    return build_transform(settings, preprocess)(given or sample(), np.random.default_rng(seed))


def steps(settings: Augmentation, preprocess: Preprocess) -> tuple[Transform, ...]:
    transform = build_transform(settings, preprocess)
    assert isinstance(transform, Compose)
    return transform.transforms


def resize_of(settings: Augmentation, preprocess: Preprocess) -> Resize:
    last = steps(settings, preprocess)[-1]
    assert isinstance(last, SSDAugmentation)
    return last.resize


def as_tensor(given: Sample) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(given.image.transpose(2, 0, 1)))


def test_settings_reach_the_transforms() -> None:
    stretch = Stretch((64, 48), Pixels((0.2, 0.4, 0.6)))
    assert len(steps(ZOOM, stretch)) == 5
    ssd = steps(Augmentation(expand_maximum=2.0, crop_scale=0.5), stretch)[0]
    assert isinstance(ssd, SSDAugmentation)
    assert ssd.expand is not None
    assert ssd.crop is not None
    assert (ssd.expand.maximum, ssd.crop.scale) == (2.0, (0.5, 1.0))
    assert ssd.expand.mean == pytest.approx((51, 102, 153))


@pytest.mark.parametrize(
    ("settings", "preprocess", "expected"),
    [
        (FLIP, Stretch((64, 48)), Resize((64, 48), INTERPOLATIONS)),
        (NONE, Stretch((64, 48)), Resize((64, 48))),
        (FLIP, KEEP, Resize(ShortSide(48, 96))),  # linear: RetinaNet's
        (FLIP, JITTER, Resize(ShortSideRange(40, 72, 96))),
        (Augmentation(), JITTER, Resize(ShortSideRange(40, 72, 96), INTERPOLATIONS)),
        (NONE, KeepAspect(LongestSide(80)), Resize(LongestSide(80))),
    ],
)
def test_the_last_step_has_the_rule_of_the_detector(
    settings: Augmentation, preprocess: Preprocess, expected: Resize
) -> None:
    assert resize_of(settings, preprocess) == expected


def test_flip_only_does_not_distort() -> None:
    """The image resized linearly, as it is or mirrored, with its boxes: nothing else."""
    given = sample()
    plain = cv2.resize(given.image, (64, 48), interpolation=cv2.INTER_LINEAR)
    seen = set()
    for seed in range(20):
        out = made(FLIP, KEEP, seed)
        mirrored = not np.array_equal(out.image, plain)
        seen.add(mirrored)
        assert np.array_equal(out.image, plain[:, ::-1] if mirrored else plain)
        x1, y1, x2, y2 = np.array([10, 20, 40, 60]) * 48 / 90
        expected = [64 - x2, y1, 64 - x1, y2] if mirrored else [x1, y1, x2, y2]
        assert out.boxes[0] == pytest.approx(expected, abs=1e-4)
        assert out.boxes[1].tolist() == [0, 0, 64, 48]
    assert seen == {True, False}


@pytest.mark.parametrize("settings", [FLIP, Augmentation(), ZOOM], ids=["flip", "ssd", "zoom"])
@pytest.mark.parametrize("preprocess", [KEEP, JITTER, KeepAspect(LongestSide(80), divisor=16)], ids=str)
def test_the_detector_does_not_resize_what_the_transform_made(settings: Augmentation, preprocess: KeepAspect) -> None:
    state = torch.get_rng_state()
    for seed in range(30):
        out = made(settings, preprocess, seed, sample(height=(90, 300, 20)[seed % 3]))
        batch = preprocess([as_tensor(out)], "cpu", training=True)
        assert batch.scales.tolist() == [[1, 1]]
        height, width = out.size
        assert torch.equal(batch.pixels[0, :, :height, :width], normalised(preprocess.pixels, as_tensor(out)))
    assert torch.equal(torch.get_rng_state(), state)


def test_jitter_comes_from_the_random_numbers_of_the_sample() -> None:
    sizes = [made(FLIP, JITTER, seed).size for seed in range(40)]
    assert sizes == [made(FLIP, JITTER, seed).size for seed in range(40)]
    assert len(set(sizes)) > 15
    assert all(40 <= height <= 72 and width == (height * 120 * 2 + 90) // 180 for height, width in sizes)


def test_zooms_have_the_size_of_the_whole_image() -> None:
    settings = replace(ZOOM, quarter_turns=False)
    assert {made(settings, KEEP, seed).size for seed in range(20)} == {(48, 64)}


# --- through the detector and the recipe


def detector(**changes: Any) -> Detector:
    torch.manual_seed(0)
    return tiny_detector.tiny(num_classes=2, **changes)


def test_a_plain_call_in_training_mode_jitters() -> None:
    model = detector(short_side=48, jitter=(40, 72)).train()
    sizes: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape[-2:])))
    images = [torch.rand(3, 120, 150), torch.rand(3, 200, 100)]
    targets = [{"boxes": torch.tensor([[10.0, 20.0, 60.0, 90.0]]), "labels": torch.tensor([1])} for _ in images]
    state = torch.get_rng_state()
    losses = cast(dict[str, Tensor], model(images, targets))
    assert all(value.isfinite() for value in losses.values())
    for _ in range(12):
        model(images, targets)
    assert len(set(sizes)) > 3
    assert all(height % 16 == width % 16 == 0 for height, width in sizes)
    torch.set_rng_state(state)
    again = cast(dict[str, Tensor], model(images, targets))
    assert all(torch.equal(again[name], losses[name]) for name in losses)
    sizes.clear()
    model.eval()(images)
    assert sizes == [(96, 64)]  # 48 x 60 and 96 x 48


@pytest.mark.parametrize("jitter", [None, [40, 72]])
def test_a_recipe_trains_and_its_images_come_in_their_sizes(
    jitter: list[int] | None, make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def batches(self: Run) -> Any:
        for batch in original(self):
            for image in batch.images:
                height, width = int(image.shape[-2]), int(image.shape[-1])
                seen.append((height, width))
                scales = self.detector.preprocess([image], "cpu", training=True).scales
                assert scales.tolist() == [[1, 1]]
            yield batch

    original = Run.batches
    monkeypatch.setattr(Run, "batches", batches)
    off = {f"augmentation__{name}": False for name in ("photometric", "expand", "crop")}
    recipe = make_recipe(arguments__short_side=48, arguments__jitter=jitter, schedule__steps=6, **off)
    done = train(recipe, out=tmp_path / "run")
    assert done.metrics["coco"]["AP"] is not None
    if jitter is None:
        assert set(seen) == {(48, 60)}  # of 64 x 80
    else:
        assert len(set(seen)) > 4
        assert all(40 <= height <= 72 for height, _ in seen)


def test_jitter_is_the_same_with_workers_and_when_resumed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    changes = {"arguments__short_side": 48, "arguments__jitter": [40, 72], "schedule__kind": "constant"}
    long, short = (make_recipe(**changes, schedule__steps=n, validation__every=100.0) for n in (6, 3))
    train(long, out=tmp_path / "whole")
    train(replace(short, data=replace(short.data, workers=1)), out=tmp_path / "parts")
    train(long, resume=tmp_path / "parts")
    a, b = (load_file(tmp_path / run / "state.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("model"))


def test_images_of_any_shape_are_detected_in(tmp_path: Path) -> None:
    model = detector(short_side=48).eval()
    shapes = [(64, 80), (150, 40), (1, 500), (500, 1), (7, 7)]
    for i, (height, width) in enumerate(shapes):
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{i}.png"), noise)
    found = singleshot.detect(model, tmp_path, threshold=0, batch_size=3)
    assert [one.size for one in found] == shapes
    for one, (height, width) in zip(found, shapes, strict=True):
        assert len(one)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= torch.tensor([width, height, width, height])).all()
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()


def test_predictions_do_not_depend_on_the_batch() -> None:
    """With a network that looks over no border of a cell, an image's cells say the same in a batch as alone."""
    model = detector(short_side=48).eval()
    for layer in model.head.modules():
        if isinstance(layer, nn.Conv2d):
            middle = layer.weight.detach()[:, :, 1:2, 1:2].clone()
            layer.weight.data.zero_()[:, :, 1:2, 1:2] = middle
    images = [torch.rand(3, 96, 128), torch.rand(3, 128, 96), torch.rand(3, 48, 96)]  # 48 x 64, 64 x 48, 48 x 96
    raw = model.raw(images)
    assert raw.batch.pixels.shape == (3, 3, 64, 96)
    for i, image in enumerate(images):
        alone = model.raw([image])
        h, w = (int(side) for side in alone.batch.pixels.shape[-2:])
        inner = (raw.anchors.boxes[:, 2:] + raw.anchors.boxes[:, :2] < 2 * torch.tensor([w, h])).all(-1)
        for name, values in alone.predictions.items():
            torch.testing.assert_close(values[0], raw.predictions[name][i, inner])


def test_zooms_still_refuse_crops() -> None:
    with pytest.raises(UserError, match="cannot be combined with expand and crop, which it replaces"):
        build_transform(Augmentation(jitter=(0.7, 1.5)), KEEP)
