"""Augmentation: values by hand, a slow reference of the crop, and boxes that stay on what they frame."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from singleshot.data.transforms import (
    INTERPOLATIONS,
    Compose,
    Expand,
    Mirror,
    PhotometricDistortion,
    QuarterTurn,
    Resize,
    Sample,
    SamplerCrop,
    ScaleJitter,
    SSDAugmentation,
    Transform,
    VerticalFlip,
    ssd_augmentation,
)
from singleshot.data.transforms.crop import best_overlap, crop_boxes
from singleshot.data.transforms.geometric import take_window
from singleshot.data.transforms.photometric import Distortion
from singleshot.ops.fit import LongestSide, ShortSide, ShortSideRange

MEAN = (123.0, 117.0, 104.0)
PLAIN = Distortion(brightness=None, contrast=None, saturation=None, hue=None, contrast_last=False)


def make(boxes: list[list[float]], size: tuple[int, int] = (60, 80), crowd: list[bool] | None = None) -> Sample:
    """A sample of smooth noise with the given boxes, labelled 0, 1, ..."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(image, array, np.arange(len(array)), np.array(crowd or [False] * len(array), np.bool_))


def pixels(*values: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


# --- photometric


def test_brightness_saturates_on_both_sides() -> None:
    up, down = replace(PLAIN, brightness=30.4), replace(PLAIN, brightness=-30.4)
    assert up.apply(pixels((0, 100, 240))).tolist() == [[[30, 130, 255]]]
    assert down.apply(pixels((0, 100, 240))).tolist() == [[[0, 70, 210]]]


def test_contrast_multiplies_and_rounds_half_to_even() -> None:
    assert replace(PLAIN, contrast=1.5).apply(pixels((3, 5, 200))).tolist() == [[[4, 8, 255]]]
    assert replace(PLAIN, contrast=0.5).apply(pixels((3, 5, 200))).tolist() == [[[2, 2, 100]]]


def test_each_step_saturates_so_that_the_order_shows() -> None:
    both = replace(PLAIN, brightness=32.0, contrast=0.5, saturation=1.0)
    first, last = both.apply(pixels((250, 250, 250))), replace(both, contrast_last=True).apply(pixels((250, 250, 250)))
    assert first.tolist() == last.tolist() == [[[128, 128, 128]]]  # 250 + 32 is cut to 255 before it is halved
    # The hue of (200, 100, 100) is taken before the contrast cuts the red, or after.
    colour = pixels((200, 100, 100))
    turned = replace(PLAIN, contrast=1.5, saturation=0.5)
    assert turned.apply(colour).tolist() == [[[255, 203, 203]]]  # S 105 is halved to 52: 255 - 52
    assert replace(turned, contrast_last=True).apply(colour).tolist() == [[[255, 225, 225]]]


def test_saturation_and_hue_leave_grey_alone() -> None:
    grey = pixels((0, 0, 0), (77, 77, 77), (255, 255, 255))
    assert np.array_equal(replace(PLAIN, saturation=1.4, hue=15.0).apply(grey), grey)


def test_saturation_of_zero_gives_the_largest_channel() -> None:
    assert replace(PLAIN, saturation=0.0).apply(pixels((200, 100, 20))).tolist() == [[[200, 200, 200]]]


def test_hue_is_cut_below_zero_and_turns_over_above() -> None:
    red, green = pixels((255, 0, 0)), pixels((0, 255, 0))  # hue 0 and 60
    assert replace(PLAIN, hue=-10.0).apply(red).tolist() == [[[255, 0, 0]]]
    assert replace(PLAIN, hue=30.0).apply(red).tolist() == [[[255, 255, 0]]]  # 30 steps are 60 degrees: yellow
    assert replace(PLAIN, hue=60.0).apply(green).tolist() == [[[0, 0, 255]]]
    violet = pixels((255, 0, 64))  # hue 172
    hue = cv2.cvtColor(violet, cv2.COLOR_RGB2HSV)[0, 0, 0]
    turned = cv2.cvtColor(replace(PLAIN, hue=18.0).apply(violet), cv2.COLOR_RGB2HSV)[0, 0, 0]
    assert turned == (hue + 18) % 180


def test_distortion_of_a_crop_is_the_crop_of_the_distortion() -> None:
    sample = make([])
    for seed in range(20):
        distortion = PhotometricDistortion().draw(np.random.default_rng(seed))
        whole, part = distortion.apply(sample.image), distortion.apply(sample.image[10:30, 5:50])
        # OpenCV's vectorised conversions and their scalar ends round differently; contrast may double that.
        assert np.abs(whole[10:30, 5:50].astype(int) - part).max() <= 4


def test_photometric_numbers_lie_in_the_authors_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = [PhotometricDistortion().draw(rng) for _ in range(2000)]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 18),
    ):
        values = [value for d in drawn if (value := getattr(d, name)) is not None]
        assert 0.45 < len(values) / len(drawn) < 0.55
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert 0.45 < np.mean([d.contrast_last for d in drawn]) < 0.55


# --- expansion and crop


def test_expand_keeps_pixels_and_boxes_together() -> None:
    sample = make([[10, 20, 30, 40]])
    ratios = []
    for seed in range(50):
        out = Expand(MEAN, probability=1.0)(sample, np.random.default_rng(seed))
        (x1, y1, x2, y2), (height, width) = out.boxes[0].astype(int).tolist(), out.size
        assert (x2 - x1, y2 - y1) == (20, 20)
        assert np.array_equal(out.image[y1:y2, x1:x2], sample.image[20:40, 10:30])
        assert width / height == pytest.approx(80 / 60, rel=0.05)
        ratios.append(width / 80)
        canvas = out.image.copy()
        canvas[y1 - 20 : y1 + 40, x1 - 10 : x1 + 70] = MEAN
        assert (canvas == np.array(MEAN)).all()
    assert min(ratios) < 1.3
    assert 3.6 < max(ratios) <= 4.0


def test_expand_happens_half_the_time() -> None:
    sample, rng = make([]), np.random.default_rng(0)
    same = sum(Expand(MEAN)(sample, rng) is sample for _ in range(400))
    assert 160 < same < 240


def reference_draw(
    crop: SamplerCrop, rng: np.random.Generator, size: tuple[int, int], boxes: NDArray[np.float32]
) -> list[int]:
    """The authors' sampler, one trial after another, from the same random numbers."""
    height, width = size
    u = rng.random((4, len(crop.overlaps) + 1, crop.trials))
    found = [[0, 0, width, height]]
    for sampler in range(len(crop.overlaps) + 1):
        for trial in range(crop.trials):
            scale = 0.3 + 0.7 * u[0, sampler, trial]
            aspect = 0.5 + 1.5 * u[1, sampler, trial]
            aspect = min(max(aspect, scale * scale), 1 / (scale * scale))
            w = min(max(int(scale * np.sqrt(aspect) * width), 1), width)
            h = min(max(int(scale / np.sqrt(aspect) * height), 1), height)
            x = int(u[2, sampler, trial] * (width - w + 1))
            y = int(u[3, sampler, trial] * (height - h + 1))
            good = sampler == len(crop.overlaps)
            for x1, y1, x2, y2 in boxes.tolist():
                shared = max(min(x2, x + w) - max(x1, x), 0) * max(min(y2, y + h) - max(y1, y), 0)
                iou = shared / (w * h + (x2 - x1) * (y2 - y1) - shared)
                good = good or iou >= crop.overlaps[sampler]
            if good:
                found.append([x, y, x + w, y + h])
                break
    return found[int(rng.integers(len(found)))]


@pytest.mark.parametrize("boxes", [[[10, 20, 30, 40]], [[0, 0, 80, 60], [60, 40, 70, 45]], []])
def test_crop_equals_the_slow_reference(boxes: list[list[float]]) -> None:
    sample, crop = make(boxes), SamplerCrop()
    for seed in range(60):
        drawn = crop.draw(np.random.default_rng(seed), sample.size, sample.boxes, sample.crowd)
        assert list(drawn) == reference_draw(crop, np.random.default_rng(seed), sample.size, sample.boxes)


def test_patches_have_the_papers_sides() -> None:
    patches = SamplerCrop().patches(np.random.default_rng(0), (1000, 2000)).reshape(-1, 4)
    w, h = (patches[:, 2] - patches[:, 0]) / 2000, (patches[:, 3] - patches[:, 1]) / 1000
    assert patches.min() >= 0
    assert patches[:, 2].max() <= 2000
    assert patches[:, 3].max() <= 1000
    scale, aspect = np.sqrt(w * h), w / h
    assert scale.min() > 0.29
    assert scale.max() <= 1
    assert aspect.min() > 0.49
    assert aspect.max() < 2.02
    assert min(w.min(), h.min()) > 0.2


def test_a_patch_meets_the_bound_of_its_sampler_with_any_object() -> None:
    boxes = np.array([[2, 2, 6, 6], [20, 10, 60, 50]], np.float32)
    crop = SamplerCrop(overlaps=(0.7,))
    kinds = set()
    for seed in range(200):
        rect = crop.draw(np.random.default_rng(seed), (60, 80), boxes, np.zeros(2, np.bool_))
        free = crop.patches(np.random.default_rng(seed), (60, 80))[-1, 0].tolist()
        best = best_overlap(np.array([rect]), boxes.astype(np.float64))[0]
        kinds.add("whole" if rect == (0, 0, 80, 60) else "free" if list(rect) == free else "bound")
        assert rect == (0, 0, 80, 60) or list(rect) == free or best >= 0.7
    assert kinds == {"whole", "free", "bound"}


def test_a_crowd_region_is_no_object_for_the_crop() -> None:
    boxes = np.array([[20, 10, 60, 50]], np.float32)
    for seed in range(30):
        with_crowd = SamplerCrop().draw(np.random.default_rng(seed), (60, 80), boxes, np.ones(1, np.bool_))
        none = SamplerCrop().draw(np.random.default_rng(seed), (60, 80), boxes[:0], np.zeros(0, np.bool_))
        assert with_crowd == none


def test_boxes_stay_by_their_centre_bounds_included() -> None:
    boxes = [[0, 0, 20, 20], [0, 0, 21, 20], [10, 10, 30, 30], [40, 30, 60, 50], [0, 0, 80, 60], [30, 20, 51.2, 40]]
    sample = make(boxes, crowd=[False, False, False, False, False, True])
    out = crop_boxes(sample, (10, 10, 40, 40))
    # Centres (10, 10) and (10.5, 10) on the bound or just inside, (20, 20), (50, 40) outside, (40, 30), (40.6, 30).
    assert out.labels.tolist() == [0, 1, 2, 4]
    assert out.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 11, 10], [0, 0, 20, 20], [0, 0, 30, 30]]
    assert not out.crowd.any()


# --- resizing, mirrors and turns


def test_resize_scales_boxes() -> None:
    out = Resize((30, 160))(make([[10, 20, 30, 40]]), np.random.default_rng(0))
    assert out.size == (30, 160)
    assert out.boxes.tolist() == [[20, 10, 60, 20]]


def test_resize_by_a_rule_keeps_the_aspect() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    out = Resize(ShortSide(30, 50))(make([[10, 20, 30, 40]], size=(60, 80)), rng)
    assert out.size == (30, 40)
    assert out.boxes.tolist() == [[5, 10, 15, 20]]
    # the longest side decides
    assert Resize(ShortSide(30, 50))(make([], size=(80, 20)), rng).size == (50, 13)  # 12.5
    assert Resize(LongestSide(40))(make([], size=(80, 20)), rng).size == (40, 10)
    sizes = Resize((30, 40)), Resize(ShortSide(30, 50))
    after = []
    for resize in sizes:
        rng.bit_generator.state = before
        resize(make([]), rng)
        after.append(rng.bit_generator.state)
    assert after[0] == after[1]  # a rule draws nothing of its own


def test_resize_draws_the_short_side_from_a_range() -> None:
    resize = Resize(ShortSideRange(30, 34, 44))
    sizes = {resize(make([]), np.random.default_rng(seed)).size for seed in range(60)}
    assert sizes == {(30, 40), (31, 41), (32, 43), (33, 44)}  # 34 would be 45.3 wide: 44 decides, and 33 is the height


def test_all_five_interpolations_are_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {Resize((8, 8), INTERPOLATIONS).draw(rng) for _ in range(100)} == set(INTERPOLATIONS)


def test_flips_and_turns_by_hand_and_twice() -> None:
    sample, rng = make([[10, 20, 30, 25]]), np.random.default_rng(0)
    for transform, box in (
        (Mirror(1.0), [50, 20, 70, 25]),
        (VerticalFlip(1.0), [10, 35, 30, 40]),
        (QuarterTurn(1.0), [20, 10, 25, 30]),
    ):
        once = transform(sample, rng)
        assert once.boxes.tolist() == [box]
        twice = transform(once, rng)
        assert np.array_equal(twice.image, sample.image)
        assert np.array_equal(twice.boxes, sample.boxes)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_window_is_the_cut_of_a_canvas(interpolation: int) -> None:
    image = make([]).image
    for rect in ((-30, -20, 90, 100), (-30, 10, 40, 50), (20, 30, 200, 61), (5, 6, 50, 59), (-300, 0, -100, 9)):
        x1, y1, x2, y2 = rect
        canvas = np.empty((700, 900, 3), np.uint8)
        canvas[:] = MEAN
        canvas[300:360, 400:480] = image
        cut = canvas[y1 + 300 : y2 + 300, x1 + 400 : x2 + 400]
        expected = cv2.resize(cut, (50, 40), interpolation=interpolation).astype(int)
        difference = np.abs(take_window(image, rect, (40, 50), interpolation, MEAN) - expected)
        # INTER_AREA places whole pixels; the others differ by rounding, and at most at the image's edge by more.
        assert difference.mean() < (6 if interpolation == cv2.INTER_AREA else 1.5), (rect, difference.mean())
        assert np.median(difference) <= 1


def test_scale_jitter_by_a_rule_has_the_size_of_the_whole_image() -> None:
    zoom = ScaleJitter(ShortSide(30, 50), MEAN)
    assert {zoom(make([]), np.random.default_rng(seed)).size for seed in range(20)} == {(30, 40)}


# --- everything together


def fast(size: tuple[int, int] = (48, 64), mean: tuple[float, float, float] = MEAN) -> SSDAugmentation:
    last = ssd_augmentation(size, mean=mean).transforms[-1]
    assert isinstance(last, SSDAugmentation)
    return last


def test_the_fast_path_gives_the_boxes_of_the_exact_one_and_nearly_its_pixels() -> None:
    sample = make([[10, 20, 30, 40], [0, 0, 79, 60], [50.5, 3.25, 75, 9]], crowd=[False, True, False])
    differences = []
    for seed in range(100):
        a = fast()(sample, np.random.default_rng(seed))
        b = fast().exact()(sample, np.random.default_rng(seed))
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.crowd, b.crowd)
        assert a.size == b.size == (48, 64)
        differences.append(np.abs(a.image.astype(int) - b.image).mean())
    assert np.median(differences) < 0.5
    assert np.quantile(differences, 0.95) < 6


def test_without_expansion_and_distortion_the_fast_path_is_exact() -> None:
    sample = make([[10, 20, 30, 40]])
    for seed in range(50):
        augmentation = replace(fast(), expand=None, photometric=None)
        a = augmentation(sample, np.random.default_rng(seed))
        b = augmentation.exact()(sample, np.random.default_rng(seed))
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)


@pytest.mark.parametrize("rule", [ShortSide(40, 64), LongestSide(50), ShortSideRange(30, 48, 64)])
def test_the_fast_path_gives_the_sizes_of_the_exact_one(rule: ShortSide | LongestSide | ShortSideRange) -> None:
    sample = make([[10, 20, 30, 40], [0, 0, 79, 60]])
    augmentation = replace(fast(), resize=Resize(rule, INTERPOLATIONS))
    sizes = set()
    for seed in range(60):
        a = augmentation(sample, np.random.default_rng(seed))
        b = augmentation.exact()(sample, np.random.default_rng(seed))
        assert np.array_equal(a.boxes, b.boxes)
        assert a.size == b.size
        sizes.add(a.size)
    assert len(sizes) > 15


def test_a_crop_keeps_its_aspect() -> None:
    sample, crop, rule = make([[10, 20, 30, 40], [0, 0, 79, 60]]), SamplerCrop(), ShortSide(40, 64)
    augmentation = SSDAugmentation(Resize(rule), crop=crop)
    for seed in range(20):
        x1, y1, x2, y2 = crop.draw(np.random.default_rng(seed), sample.size, sample.boxes, sample.crowd)
        assert augmentation(sample, np.random.default_rng(seed)).size == rule(y2 - y1, x2 - x1)


def test_switches() -> None:
    sample = make([[10, 20, 30, 40]])
    off = ssd_augmentation((60, 80), mean=MEAN, photometric=False, expand=False, crop=False, flip=False)
    out = off(sample, np.random.default_rng(0))
    assert np.array_equal(out.image, sample.image)
    assert np.array_equal(out.boxes, sample.boxes)
    flips = ssd_augmentation((60, 80), mean=MEAN, photometric=False, expand=False, crop=False)
    seen = {tuple(flips(sample, np.random.default_rng(seed)).boxes[0].tolist()) for seed in range(20)}
    assert seen == {(10, 20, 30, 40), (50, 20, 70, 40)}
    turns = ssd_augmentation((60, 80), mean=MEAN, first=(VerticalFlip(1.0),), expand=False, crop=False, flip=False)
    assert turns(sample, np.random.default_rng(0)).boxes.tolist() == [[10, 20, 30, 40]]


DARK = (20.0, 20.0, 20.0)
EVERY: list[Transform] = [
    PhotometricDistortion(probability=1.0),
    Expand(DARK, probability=1.0),
    SamplerCrop(),
    Resize((40, 50), INTERPOLATIONS),
    Mirror(1.0),
    VerticalFlip(1.0),
    QuarterTurn(1.0),
    Resize(ShortSide(40, 50), INTERPOLATIONS),
    Resize(ShortSideRange(30, 45, 70)),
    ScaleJitter((40, 50), DARK),
    ScaleJitter(ShortSideRange(40, 50, 66), DARK),
    fast(mean=DARK),
    Compose((QuarterTurn(), VerticalFlip(), fast(mean=DARK))),
    replace(fast(mean=DARK), resize=Resize(ShortSideRange(40, 50, 66), INTERPOLATIONS)),
]


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: type(transform).__name__)
class TestEveryTransform:
    def test_repeats_itself_and_spares_its_input(self, transform: Transform) -> None:
        sample = make([[10, 20, 30, 40], [5, 5, 75, 55]])
        image, boxes = sample.image.copy(), sample.boxes.copy()
        for seed in range(10):
            a, b = transform(sample, np.random.default_rng(seed)), transform(sample, np.random.default_rng(seed))
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.boxes, b.boxes)
            assert a.image.dtype == np.uint8
            assert a.boxes.dtype == np.float32
            assert a.labels.dtype == np.int64
            assert a.boxes.shape == (len(a.labels), 4)
            assert len(a.crowd) == len(a.labels)
            height, width = a.size
            assert (a.boxes >= 0).all()
            assert (a.boxes <= [width, height, width, height]).all()
            assert (a.boxes[:, 2:] > a.boxes[:, :2]).all()
        assert np.array_equal(sample.image, image)
        assert np.array_equal(sample.boxes, boxes)

    def test_takes_images_without_objects(self, transform: Transform) -> None:
        for seed in range(10):
            out = transform(make([]), np.random.default_rng(seed))
            assert out.boxes.shape == (0, 4)
            assert out.boxes.dtype == np.float32

    def test_takes_the_smallest_image(self, transform: Transform) -> None:
        for seed in range(10):
            out = transform(make([[0, 0, 1, 1]], size=(1, 1)), np.random.default_rng(seed))
            assert out.image.size

    def test_boxes_stay_on_what_they_frame(self, transform: Transform) -> None:
        image = np.zeros((120, 160, 3), np.uint8)
        image[30:90, 40:120] = 255
        sample = Sample(image, np.array([[40, 30, 120, 90]], np.float32), np.zeros(1, np.int64), np.zeros(1, np.bool_))
        checked = 0
        for seed in range(15):
            out = transform(sample, np.random.default_rng(seed))
            if not len(out.boxes):
                continue
            bright = out.image.min(axis=2) >= 80  # distortion gives black at most 48, white at least 111
            rows, columns = np.flatnonzero(bright.mean(axis=1) > 0.02), np.flatnonzero(bright.mean(axis=0) > 0.02)
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(out.boxes[0] - seen).max() <= 1.6, (seed, out.boxes, seen)
            checked += 1
        assert checked > 5
