"""Multi-scale testing."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import singleshot as ss
from singleshot.detectors.detector import Detector, Raw
from singleshot.errors import UserError
from singleshot.eval_mode import evaluating
from singleshot.evaluation.detect_dataset import detect_dataset
from singleshot.inference.predictor import detect
from singleshot.multiscale import published as tta
from singleshot.multiscale.detector import Found, MultiScaleDetector, mirror, preprocess_for
from singleshot.multiscale.views import MultiScale, View
from singleshot.ops.boxes import pairwise_iou
from singleshot.ops.fit import LongestSide, ShortSide, TorchvisionShortSide
from singleshot.ops.voting import box_vote, soft_box_vote
from singleshot.postprocess import vary
from singleshot.preprocess import KeepAspect, Pixels, Preprocess, Stretch

ONE = MultiScale((View(scale=1),), mirror=False)
NAMES = ("boxes", "scores", "labels")


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    """A wide one, a high one and a square, of noise."""
    random = torch.Generator().manual_seed(3)
    sizes = ((40, 60), (70, 50), (50, 50))
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=random) for size in sizes]


def small(name: str, **arguments: Any) -> Detector:
    """An untrained detector that finds something."""
    torch.manual_seed(0)
    detector = ss.create(name, num_classes=2, backbone="mobilenetv2", **arguments).eval()
    detector.postprocess = vary(detector.postprocess, "threshold", 0.001)
    return detector


@pytest.fixture(scope="module")
def ssd() -> Detector:
    return small("ssd", image_size=64)


@dataclass
class Spot:
    """Detector-like: finds the bright rectangle of an image, of class 1, and notes what it is shown."""

    size: tuple[int, int] = (32, 32)
    smallest: int = 1

    def __post_init__(self) -> None:
        self.preprocess: Preprocess = Stretch(self.size)
        self.postprocess = SimpleNamespace(threshold=0.05)
        self.class_names, self.category_ids, self.image_size = ("a", "b"), (1, 2), self.size
        self.shown: list[list[tuple[int, int]]] = []

    def map_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        return ((min(size) // self.smallest,) * 2,)

    def raw(self, images: Sequence[Tensor], *, preprocess: Preprocess) -> Any:
        self.shown.append([preprocess.size] * len(images))
        return images

    def detections(self, raw: Sequence[Tensor], postprocess: Any) -> list[Found]:
        found = []
        for image in raw:
            ys, xs = torch.nonzero(image[0] > 127, as_tuple=True)
            boxes = torch.stack([xs.amin(), ys.amin(), xs.amax() + 1, ys.amax() + 1]).float()[None]
            found.append({"boxes": boxes, "scores": torch.tensor([0.5]), "labels": torch.tensor([1])})
        return found


def spotted(recipe: MultiScale, images: Sequence[Tensor], spot: Spot | None = None) -> list[Found]:
    return MultiScaleDetector(cast(Detector, spot or Spot()), recipe)(images)


def picture(box: tuple[int, int, int, int], size: tuple[int, int] = (50, 80)) -> Tensor:
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, box[1] : box[3], box[0] : box[2]] = 255
    return image


# ---------------------------------------------------------------------- exactness
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ssd", {"image_size": 64}),
        ("ssd", {"image_size": (64, 96), "iou_head": True}),
        ("retinanet", {"image_size": (64, 64)}),
        ("iou_retinanet", {"image_size": 64, "max_size": 100}),
        ("refinedet", {"image_size": 64}),
    ],
)
def test_one_view_is_plain_testing_bit_for_bit(name: str, arguments: dict[str, Any], images: list[Tensor]) -> None:
    detector = small(name, **arguments)
    with torch.no_grad(), evaluating(detector) as used:  # the network that every detection runs through
        plain = cast(list[Found], used(images))
    assert all(len(own["scores"]) for own in plain)
    recipes = [replace(ONE, merge="soft_vote"), ONE]
    if isinstance(detector.preprocess, Stretch):
        recipes.append(replace(ONE, views=(View(size=detector.image_size),)))
    for recipe in recipes:
        found = MultiScaleDetector(detector, recipe)(images)
        for a, b in zip(plain, found, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in NAMES)


def test_a_mirrored_view_is_the_mirrored_result_of_the_mirrored_image(ssd: Detector, images: list[Tensor]) -> None:
    with torch.no_grad(), evaluating(ssd) as used:
        plain, turned = cast(Any, used(images)), cast(Any, used([image.flip(-1) for image in images]))
    found = MultiScaleDetector(ssd, MultiScale((View(scale=1),), merge="nms", iou=1.0))(images)
    for image, a, b, both in zip(images, plain, turned, found, strict=True):
        x1, y1, x2, y2 = b["boxes"].unbind(1)
        width = image.shape[-1]
        boxes = torch.cat([a["boxes"], torch.stack([width - x2, y1, width - x1, y2], 1)])
        scores = torch.cat([a["scores"], b["scores"]])
        order = scores.argsort(descending=True, stable=True)
        assert torch.equal(both["boxes"], boxes[order])
        assert torch.equal(both["scores"], scores[order])


def test_mirroring_by_hand() -> None:
    boxes = torch.tensor([[0.0, 1, 10, 5], [90, 0, 100, 8]])
    assert mirror(boxes, 100).tolist() == [[90, 1, 100, 5], [0, 0, 10, 8]]
    assert torch.equal(mirror(mirror(boxes, 100), 100), boxes)
    # A detector that is right finds the same box in both.
    (found,) = spotted(MultiScale((View(scale=1),), merge="nms", iou=0.99), [picture((3, 4, 13, 44))])
    assert found["boxes"].tolist() == [[3, 4, 13, 44]]


# ---------------------------------------------------------------------- sizes
def test_a_turned_view_follows_the_image() -> None:
    spot, recipe = Spot(), MultiScale((View(size=(32, 20), turn=True),), mirror=False)
    sizes = [(50, 80), (80, 50), (50, 50), (50, 51)]  # wide, high, square, barely wide
    found = spotted(recipe, [picture((3, 4, 13 + k, 44), size) for k, size in enumerate(sizes)], spot)
    assert spot.shown == [[(32, 20)] * 2, [(20, 32)] * 2]
    assert [own["boxes"][0, 2].item() for own in found] == [13, 14, 15, 16]  # each image has its own
    # Given the other way round it is the same view.
    spotted(replace(recipe, views=(View(size=(20, 32), turn=True),)), [picture((3, 4, 13, 44), (80, 50))], spot)
    assert spot.shown[2] == [(32, 20)]
    spotted(replace(recipe, views=(View(size=(20, 32)),)), [picture((3, 4, 13, 44), (80, 50))], spot)
    assert spot.shown[3] == [(20, 32)]


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (View(side=48), (48, 48)),
        (View(scale=1.5), (96, 48)),
        (View(scale=1), (64, 32)),
        (View(size=(10, 20)), (10, 20)),
    ],
)
def test_sizes_of_a_detector_that_stretches(view: View, size: tuple[int, int]) -> None:
    pixels = Pixels.named("caffe_bgr")
    assert preprocess_for(view, Stretch((64, 32), pixels)) == Stretch(size, pixels)


def test_sizes_of_a_detector_that_keeps_the_aspect_ratio() -> None:
    own = KeepAspect(ShortSide(800, 1333), divisor=64, jitter=(640, 800))
    assert preprocess_for(View(scale=1), own) is own
    assert preprocess_for(View(side=400), own) == KeepAspect(ShortSide(400, 666), divisor=64)
    assert preprocess_for(View(scale=1.5), own) == KeepAspect(ShortSide(1200, 2000), divisor=64)
    rounded = KeepAspect(TorchvisionShortSide(800, 1333))
    assert preprocess_for(View(side=1200), rounded) == KeepAspect(TorchvisionShortSide(1200, 2000))
    assert preprocess_for(View(scale=0.5), KeepAspect(LongestSide(640))) == KeepAspect(LongestSide(320))
    assert preprocess_for(View(side=320), KeepAspect(LongestSide(640))) == KeepAspect(LongestSide(320))
    assert preprocess_for(View(size=(300, 400)), own) == Stretch((300, 400))


def test_an_unknown_rule_takes_what_needs_no_rule() -> None:
    class Own(Stretch):
        pass

    class Rule:
        nominal = (64, 64)

        def __call__(self, height: int, width: int) -> tuple[int, int]:
            return height, width

    kept = KeepAspect(Rule())
    assert preprocess_for(View(scale=1), kept) is kept
    assert preprocess_for(View(side=48), Own((64, 64))) == Own((48, 48))  # its own kind
    with pytest.raises(UserError, match="here: a detector with Rule takes views with size, or of scale 1"):
        preprocess_for(View(side=48), kept, "here")


@pytest.mark.parametrize(
    ("name", "arguments", "sides"),
    [
        ("refinedet", {}, (320, 192, 704)),
        ("ssd", {}, (300, 512)),
        ("ssd", {"backbone": "mobilenetv2", "image_size": 64}, (64, 96, 160)),
        ("retinanet", {}, (320, 640)),
    ],
)
def test_anchors_keep_their_sizes_and_steps(name: str, arguments: dict[str, Any], sides: tuple[int, ...]) -> None:
    """Where the maps of two inputs have common cells, these have the same anchors."""
    with torch.device("meta"):
        detector = ss.create(name, num_classes=2, **arguments)

    def levels(side: int) -> list[Tensor]:
        """[rows, columns, anchors, 4] of each level."""
        made, shapes = detector.anchors_for((side, side)), detector.map_shapes((side, side))
        cut = made.boxes.split_with_sizes(made.counts)
        return [boxes.reshape(*shape, -1, 4) for boxes, shape in zip(cut, shapes, strict=True)]

    own = levels(sides[0])
    for side in sides[1:]:
        for a, b in zip(own, levels(side), strict=True):
            rows = min(len(a), len(b))
            assert torch.equal(a[:rows, :rows], b[:rows, :rows])


# ---------------------------------------------------------------------- refused views
@pytest.mark.parametrize("name", tta.names())
def test_refinedet_takes_the_published_views(name: str) -> None:
    with torch.device("meta"):
        detector = ss.create("refinedet", num_classes=2, image_size=int(name[9:12]))
    assert MultiScaleDetector(detector, tta.get(name)).recipe.name == name


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (
            View(side=192),
            r"mine, view 2 \(side 192\): .* input of 192x192: it is too small for the last maps \(.*\); .* 257x257",
        ),
        (View(size=(320, 192), turn=True), r"size 320x192, turned with the image\): .* 320x192: .* 257x257"),
        (View(scale=0.5), r"mine, view 2 \(scale 0.5\): .* input of 150x150"),
    ],
)
def test_a_view_that_is_too_small_is_refused_by_name(view: View, said: str) -> None:
    with torch.device("meta"):
        detector = ss.create("ssd", num_classes=2)
    with pytest.raises(UserError, match=said):
        MultiScaleDetector(detector, MultiScale((View(scale=1), view), "mine"))
    MultiScaleDetector(detector, MultiScale((View(side=257),)))  # the smallest is right


@pytest.mark.parametrize(("name", "side", "fits"), [("refinedet", 32, 33), ("retinanet", 64, 65)])
def test_last_maps_of_one_size_mean_that_a_view_is_too_small(name: str, side: int, fits: int) -> None:
    with torch.device("meta"):
        size = {"image_size": 320} if name == "refinedet" else {"image_size": 320, "resize": "stretch"}
        detector = ss.create(name, num_classes=2, backbone="mobilenetv2", **size)
    with pytest.raises(UserError, match=f"several of them would have the same size; .* {fits}x{fits}. Change the size"):
        MultiScaleDetector(detector, MultiScale((View(side=side),)))
    MultiScaleDetector(detector, MultiScale((View(side=fits),)))
    # Sizes that are no multiple of the coarsest stride are taken: what a map has too much is cut off.
    MultiScaleDetector(detector, MultiScale((View(side=200), View(scale=1.3), View(size=(333, 517)))))


def test_maps_without_cells_and_sizes_that_no_square_mends() -> None:
    recipe = MultiScale((View(side=16),), "mine")
    with pytest.raises(UserError, match="next larger square that it can take is 20x20. Change the size of the view"):
        spotted(recipe, [], Spot(smallest=20))
    with pytest.raises(UserError, match="too small for the last maps. Change the size of the view"):
        spotted(recipe, [], Spot(smallest=10_000))


# ---------------------------------------------------------------------- what counts, and merging
@pytest.mark.parametrize(
    ("view", "counts"),
    [
        (View(scale=1, long_side_above=40), False),
        (View(scale=1, long_side_above=39.9), True),
        (View(scale=1, short_side_below=10), False),
        (View(scale=1, short_side_below=10.1), True),
        (View(side=8, long_side_above=9, short_side_below=41), True),  # in pixels of the image, not of the view
        (View(scale=1, long_side_above=9, short_side_below=10), False),
    ],
)
def test_filters_at_their_edges(view: View, counts: bool) -> None:
    """A box of 10 x 40."""
    for mirrored in (False, True):
        (found,) = spotted(MultiScale((view,), mirror=mirrored), [picture((3, 4, 13, 44))])
        assert found["boxes"].tolist() == ([[3, 4, 13, 44]] if counts else [])


def test_one_view_may_find_what_another_leaves_out() -> None:
    views = (View(scale=1, long_side_above=100), View(scale=2), View(scale=3, short_side_below=5))
    (found,) = spotted(MultiScale(views), [picture((3, 4, 13, 44))])
    assert found["boxes"].tolist() == [[3, 4, 13, 44]]
    (found,) = spotted(MultiScale(views[:1]), [picture((3, 4, 13, 44))])
    assert {name: len(found[name]) for name in NAMES} == dict.fromkeys(NAMES, 0)
    assert found["boxes"].shape == (0, 4)


def test_merging_is_that_of_all_views_together(ssd: Detector, images: list[Tensor]) -> None:
    views = (View(scale=1), View(side=96))
    passes = [MultiScaleDetector(ssd, MultiScale((view,), mirror=False))(images) for view in views]
    together = [{name: torch.cat([found[k][name] for found in passes]) for name in NAMES} for k in range(len(images))]
    for merge, iou in (("vote", 0.45), ("soft_vote", 0.6), ("nms", 0.5)):
        recipe = MultiScale(views, mirror=False, merge=merge, iou=iou)  # type: ignore[arg-type]
        for own, found in zip(together, MultiScaleDetector(ssd, recipe)(images), strict=True):
            assert list(found) == list(NAMES)
            assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)
            if merge == "nms":
                for label in range(2):
                    boxes = found["boxes"][found["labels"] == label]
                    assert not (pairwise_iou(boxes, boxes).triu(1) > iou).any()
                continue
            boxes, scores, labels = (own[name] for name in NAMES)
            if merge == "vote":
                expected = box_vote(boxes, scores, labels, iou)
            else:
                expected = soft_box_vote(boxes, scores, labels, iou, 0.001)
            for name, part in zip(NAMES, expected, strict=True):
                assert torch.equal(found[name], part)
            assert merge == "soft_vote" or len(found["scores"]) < len(own["scores"])


def test_the_numbers_of_each_view(images: list[Tensor]) -> None:
    detector = small("refinedet", image_size=64, soft_nms=0.3)
    seen: list[Any] = []
    first = detector.detections

    def noted(raw: Raw, postprocess: Any = None) -> list[Found]:
        seen.append(postprocess)
        return first(raw, postprocess)

    detector.detections = noted  # type: ignore[method-assign]
    MultiScaleDetector(detector, replace(ONE, threshold=0.2, candidates=7, detections=5))(images)
    assert (seen[-1].threshold, seen[-1].candidates, seen[-1].detections, seen[-1].soft) == (0.2, 7, 5, 0.3)
    MultiScaleDetector(detector, replace(ONE, nms=0.4))(images)
    assert (seen[-1].threshold, seen[-1].iou, seen[-1].soft) == (0.001, 0.4, None)


def test_a_soft_vote_leaves_nothing_below_the_threshold_of_the_views(ssd: Detector, images: list[Tensor]) -> None:
    recipe = MultiScale((View(scale=1), View(side=96)), merge="soft_vote", iou=0.3, threshold=0.2)
    found = MultiScaleDetector(ssd, recipe)(images)
    assert all(len(own["scores"]) and own["scores"].min() >= 0.2 for own in found)


# ---------------------------------------------------------------------- how it is called
def test_images_may_come_alone_or_together() -> None:
    recipe = MultiScale((View(scale=1), View(size=(32, 20), turn=True)))
    pictures = [picture((3, 4, 13 + k, 44), size) for k, size in enumerate([(50, 80), (80, 50), (50, 90)])]
    for image, found in zip(pictures, spotted(recipe, pictures), strict=True):
        (alone,) = spotted(recipe, [image])
        assert all(torch.equal(alone[name], found[name]) for name in NAMES)


def test_counts_images_times_passes() -> None:
    done: list[int] = []
    recipe = MultiScale((View(scale=1), View(size=(32, 20), turn=True)))
    many = MultiScaleDetector(cast(Detector, Spot()), recipe, progress=done.append)
    wide, high = picture((3, 4, 13, 44)), picture((3, 4, 13, 44), (80, 50))
    many([wide, high])
    many([wide])
    assert done == [2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert done[-1] == 3 * recipe.passes


def test_no_more_pixels_at_once_than_in_plain_testing(ssd: Detector, images: list[Tensor]) -> None:
    own = ssd.image_size[0] * ssd.image_size[1]
    shapes: list[torch.Size] = []
    many = MultiScaleDetector(ssd, MultiScale((View(scale=1), View(scale=1.5), View(scale=3)), mirror=False))
    four = (images * 4)[:4]
    many(four)  # so that all sizes of maps are known
    handle = ssd.backbone.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    many(four)
    handle.remove()
    assert [shape[0] for shape in shapes] == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert all(shape[0] == 1 or shape.numel() <= 4 * 3 * own for shape in shapes)


def test_predictions_of_one_view_at_a_time_are_in_memory(ssd: Detector, images: list[Tensor]) -> None:
    alive: list[weakref.ref[Tensor]] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(ssd, name)

        def raw(self, images: Sequence[Tensor], *, preprocess: Preprocess) -> Raw:
            assert all(tensor() is None for tensor in alive)
            raw = ssd.raw(images, preprocess=preprocess)
            alive.extend(weakref.ref(tensor) for tensor in (*raw.predictions.values(), raw.batch.pixels))
            return raw

    MultiScaleDetector(cast(Detector, Watched()), MultiScale((View(scale=1), View(side=96))))(images)
    assert len(alive) == (2 * 1 + 2 * len(images)) * 3  # the larger view shows one image at a time


def test_the_mode_is_put_back(ssd: Detector, images: list[Tensor]) -> None:
    recipe = MultiScale((View(scale=1), View(side=96)))
    expected = MultiScaleDetector(ssd, recipe)(images)
    ssd.train()
    try:
        found = MultiScaleDetector(ssd, recipe)(images)
        assert ssd.training
    finally:
        ssd.eval()
    for a, b in zip(expected, found, strict=True):  # norms are not folded while the detector trains
        torch.testing.assert_close(a["scores"], b["scores"], rtol=1e-3, atol=1e-3)
    assert not found[0]["boxes"].requires_grad


def test_no_images(ssd: Detector) -> None:
    with pytest.raises(UserError, match="no images"):
        MultiScaleDetector(ssd, ONE)([])


def test_evaluation_and_prediction_take_it_as_a_detector(ssd: Detector, tiny_voc: Path) -> None:
    many = MultiScaleDetector(ssd, MultiScale((View(scale=1), View(side=96))))
    many.class_names = ("cell", "other")
    dataset = ss.open_dataset(tiny_voc, split="val")
    found = detect_dataset(many, dataset, batch_size=2)
    assert len(found) == 2
    assert all(len(own.scores) for own in found)
    (prediction,) = detect(many, tiny_voc / "JPEGImages" / "e.jpg", threshold=0)
    assert len(prediction) == len(found[0].scores)
    assert prediction.class_names == ("cell", "other")
