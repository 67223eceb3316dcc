"""What every detector must do, whatever it is made of: one list of rules, one list of detectors.

A new detector joins by one line in `DETECTORS` of `tests/mixtures.py`. Parts of several papers put together join in
`MIXTURES`: they keep the
rules that parts can break which do not fit each other in every run of the tests (`with_mixtures`), the others with
`-m slow`, and are spared what the one Detector class checks whatever it is made of.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import assert_exports
from mixtures import DETECTORS, MIXTURES, OWN
from safetensors.torch import load_file
from torch import Tensor

from singleshot.detectors import Detector
from singleshot.detectors.parts import store_argument
from singleshot.detectors.whole import Whole
from singleshot.errors import UserError
from singleshot.ops.boxes import pairwise_iou
from singleshot.preprocess import Stretch
from singleshot.weights.checkpoint import load, read_metadata, save

CLASSES = 3

without_mixtures = pytest.mark.parametrize("name", list(DETECTORS))
with_mixtures = pytest.mark.parametrize("name", [*DETECTORS, *MIXTURES])
with_slow_mixtures = pytest.mark.parametrize(
    "name", [*DETECTORS, *(pytest.param(name, marks=pytest.mark.slow) for name in MIXTURES)]
)
EXPORTED = ("ssd", "iou_retinanet", "refinedet")  # one of each kind in the fast suite: an export takes many seconds
exported = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EXPORTED else pytest.mark.slow) for name in DETECTORS | MIXTURES]
)


@functools.cache
def built(name: str) -> Detector:
    torch.manual_seed(0)
    detector = (DETECTORS | MIXTURES)[name](num_classes=CLASSES).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith("class_logits.bias"):
            torch.nn.init.zeros_(parameter)  # an untrained network with a prior would find nothing at all
    return detector


@pytest.fixture(params=[*DETECTORS, *(pytest.param(name, marks=pytest.mark.slow) for name in MIXTURES)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(name: str) -> Detector:
    """A fresh copy in eval mode, and the same random numbers for every test."""
    torch.manual_seed(1)
    return copy.deepcopy(built(name))


def image(height: int = 80, width: int = 60, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def in_8_bits(detector: Detector, picture: Tensor) -> Tensor:
    """A picture in 8 bits at the size that the network takes: resizing rounds it to 8 bits, and a float picture not."""
    height, width = detector.preprocess.layout([(picture.shape[1], picture.shape[2])])[0][0]
    return (image(height, width) * 255).round().to(torch.uint8)


def target(*boxes: list[float], label: int = 1) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4).float(),
        "labels": torch.full((len(boxes),), label, dtype=torch.int64),
    }


BOX = [10.0, 12.0, 40.0, 60.0]
IMAGES = [image(80, 60, 0), image(33, 121, 1), image(200, 200, 2)]
TARGETS = [target(BOX, [0.0, 0.0, 9.0, 9.0]), target([1.0, 1.0, 120.0, 30.0], label=0), target()]


def gradients_are_finite(detector: Detector) -> bool:
    return all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())


def assert_without_objects(detector: Detector, losses: dict[str, Tensor]) -> None:
    """No term but that of the classes, and that only where images without objects teach background."""
    for name, loss in losses.items():
        if name == "classification" and detector.criterion.at_least_one:
            assert loss.isfinite()
            assert loss > 0
        else:
            assert loss == 0


def assert_same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]], **tolerance: float) -> None:
    """Equal detections; those of nearly equal score may have changed places."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert len(a["scores"]) == len(b["scores"])
        if not tolerance:
            for key in a:
                assert torch.equal(a[key], b[key])
            continue
        torch.testing.assert_close(a["scores"], b["scores"], **tolerance)


class Unchanged:
    """Tests that change nothing but the mode: one detector is enough for all of them."""

    @pytest.fixture
    def detector(self, name: str) -> Iterator[Detector]:
        torch.manual_seed(1)
        yield built(name)
        built(name).eval()


class TestNetwork:
    def test_outputs_are_float32_of_one_length(self, detector: Detector) -> None:
        height, width = detector.image_size
        for precision in ("fp32", "bf16"):
            detector.precision = precision
            predictions = detector.network(torch.rand(2, 3, height, width))
            count = len(detector.anchors_for((height, width)).boxes)
            assert {value.shape[:2] for value in predictions.values()} == {(2, count)}
            assert {value.dtype for value in predictions.values()} == {torch.float32}
            assert {"class_logits", "box_deltas"} <= predictions.keys()

    def test_bf16_computes_in_bf16_and_stays_near(self, detector: Detector) -> None:
        pixels = torch.rand(1, 3, *detector.image_size)
        with torch.no_grad():
            exact = detector.network(pixels)["class_logits"]
            detector.precision = "bf16"
            rough = detector.network(pixels)["class_logits"]
        assert not torch.equal(exact, rough)
        assert (exact - rough).norm() < 0.1 * exact.norm()

    def test_unknown_precision_is_refused(self, detector: Detector) -> None:
        with pytest.raises(ValueError, match="fp32, bf16"):
            detector.precision = "fp8"

    def test_anchors_follow_the_real_maps_of_another_size(self, detector: Detector) -> None:
        size = (detector.image_size[0] + 21, detector.image_size[1] + 39)
        with torch.no_grad():
            predictions = detector.network(torch.rand(1, 3, *size))
        anchors = detector.anchors_for(size)
        assert len(anchors.boxes) == sum(anchors.counts) == predictions["class_logits"].shape[1]

    def test_compiles_without_graph_breaks(self, detector: Detector) -> None:
        torch._dynamo.reset()
        pixels = torch.rand(1, 3, *detector.image_size)
        compiled = torch.compile(detector.network, fullgraph=True, backend="eager")
        with torch.no_grad():
            expected, predictions = detector.network(pixels), compiled(pixels)
        for key in expected:
            torch.testing.assert_close(predictions[key], expected[key])

    @without_mixtures
    @pytest.mark.slow
    def test_compiles_with_the_default_backend(self, detector: Detector) -> None:
        torch._dynamo.reset()
        pixels = torch.rand(1, 3, *detector.image_size)
        compiled = torch.compile(detector.network, fullgraph=True)
        with torch.no_grad():
            expected, predictions = detector.network(pixels), compiled(pixels)
        for key in expected:
            torch.testing.assert_close(predictions[key], expected[key], rtol=1e-3, atol=1e-3)

    @exported
    def test_exports_with_a_free_batch_and_equals_eager(self, detector: Detector) -> None:
        assert_exports(detector)

    def test_a_replaced_network_is_used_and_can_be_taken_back(self, detector: Detector) -> None:
        own = detector(IMAGES)

        class Silent(torch.nn.Module):
            """The network's outputs, with every class unlikely."""

            def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
                predictions = inner(pixels)
                return {**predictions, "class_logits": torch.full_like(predictions["class_logits"], torch.nan)}

        inner = detector.network
        detector.network = Silent()
        assert [len(found["scores"]) for found in detector(IMAGES)] == [0, 0, 0]
        assert not any("Silent" in type(part).__name__ for part in detector.modules())
        detector.network = None
        assert_same(detector(IMAGES), own)


class TestTraining:
    @with_mixtures
    def test_gives_named_scalar_losses_with_gradients(self, detector: Detector) -> None:
        losses = detector.train()(IMAGES, TARGETS)
        assert {"classification", "box"} <= losses.keys()
        for loss in losses.values():
            assert loss.shape == ()
            assert loss.dtype == torch.float32
            assert loss.isfinite()
            assert loss > 0
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)
        assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)

    @with_mixtures
    def test_no_object_in_any_image_gives_finite_gradients_and_0_for_boxes(self, detector: Detector) -> None:
        losses = detector.train()(IMAGES, [target(), target(), target()])
        assert_without_objects(detector, losses)
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)

    def test_empty_targets_may_have_any_empty_shape(self, detector: Detector) -> None:
        empty = {"boxes": torch.zeros(0), "labels": torch.zeros(0)}
        assert_without_objects(detector, detector.train()(IMAGES[:1], [empty]))

    @with_mixtures
    def test_a_batch_of_one(self, detector: Detector) -> None:
        losses = detector.train()(IMAGES[:1], TARGETS[:1])
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)

    @with_slow_mixtures
    def test_bf16_losses_are_float32_and_near(self, detector: Detector) -> None:
        exact = detector.losses_and_detections(IMAGES, TARGETS)[0]
        exactly = detector.raw(IMAGES).predictions
        detector.precision = "bf16"
        rough = detector.losses_and_detections(IMAGES, TARGETS)[0]
        for key, prediction in detector.raw(IMAGES).predictions.items():
            assert prediction.dtype == torch.float32
            assert (prediction - exactly[key]).abs().mean() < 0.1 * exactly[key].abs().mean() + 0.01
        for key, loss in rough.items():
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, exact[key], rtol=0.1, atol=0.05)
        detector.train()
        sum(detector(IMAGES, TARGETS).values()).backward()
        assert gradients_are_finite(detector)
        assert {p.grad.dtype for p in detector.parameters() if p.grad is not None} == {torch.float32}

    def test_crowd_boxes_are_no_objects(self, detector: Detector) -> None:
        crowd = {**target(BOX), "iscrowd": torch.tensor([True])}
        assert_without_objects(detector, detector.train()(IMAGES[:1], [crowd]))

    def test_needs_targets(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="training mode needs targets"):
            detector.train()(IMAGES)

    def test_trains_after_detecting_in_inference_mode(self, detector: Detector) -> None:
        detector.predict(IMAGES[0])
        with torch.inference_mode():
            detector(IMAGES)
        losses = detector.train()(IMAGES, TARGETS)
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)

    def test_a_copy_trains_alone(self, detector: Detector) -> None:
        twin = copy.deepcopy(detector).train()
        before = {key: value.clone() for key, value in detector.state_dict().items()}
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        sum(twin(IMAGES, TARGETS).values()).backward()
        optimizer.step()
        assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())


class TestDetection(Unchanged):
    @with_mixtures
    def test_gives_boxes_scores_labels_best_first(self, detector: Detector) -> None:
        with torch.no_grad():
            results = detector(IMAGES)
        assert len(results) == 3
        for result, picture in zip(results, IMAGES, strict=True):
            number = len(result["scores"])
            assert number > 0
            assert result["boxes"].shape == (number, 4)
            assert result["boxes"].dtype == result["scores"].dtype == torch.float32
            assert result["labels"].dtype == torch.int64
            assert (result["scores"].diff() <= 0).all()
            assert result["labels"].min() >= 0
            assert result["labels"].max() < CLASSES
            height, width = picture.shape[1:]
            assert result["boxes"].min() >= 0
            assert result["boxes"][:, 2].max() <= width  # pixels of this image
            assert result["boxes"][:, 3].max() <= height
            assert (result["boxes"][:, 2:] >= result["boxes"][:, :2]).all()

    @with_mixtures
    def test_a_batch_of_three_equals_three_batches_of_one(self, detector: Detector) -> None:
        # Where the aspect ratio is kept, images of several shapes are padded, and what lies beside an image shows.
        stretched = isinstance(detector.preprocess, Stretch)
        pictures = IMAGES if stretched else [image(80, 60, seed) for seed in range(3)]
        with torch.no_grad():
            together = detector(pictures)
            alone = [detector([picture])[0] for picture in pictures]
        assert_same(together, alone, rtol=1e-4, atol=1e-5)
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a["boxes"][0], b["boxes"][0], rtol=1e-3, atol=0.01)

    def test_uint8_equals_float_at_the_size_of_the_network(self, detector: Detector) -> None:
        pictures = [in_8_bits(detector, picture) for picture in IMAGES]
        with torch.no_grad():
            floats = detector([picture.float() / 255 for picture in pictures])
            assert_same(detector(pictures), floats, rtol=1e-4, atol=1e-5)  # 8 bits are normalised in one step

    def test_kinds_of_images_may_be_mixed(self, detector: Detector) -> None:
        picture = in_8_bits(detector, IMAGES[0])
        kinds = [picture, picture.float() / 255, picture.double() / 255]
        with torch.no_grad():
            first, second, third = detector(kinds)
        assert_same([first, first], [second, third], rtol=1e-4, atol=1e-5)

    def test_a_tensor_of_images_is_a_list_of_them(self, detector: Detector) -> None:
        stacked = torch.stack([image(50, 70, seed) for seed in range(2)])
        with torch.no_grad():
            assert_same(detector(stacked), detector(list(stacked)))

    @pytest.mark.parametrize("shape", [(1, 1), (1, 300), (500, 2)])
    def test_degenerate_shapes(self, detector: Detector, shape: tuple[int, int]) -> None:
        with torch.no_grad():
            (result,) = detector([image(*shape)])
        assert result["boxes"].isfinite().all()

    @with_mixtures
    def test_nan_input_finds_nothing_and_harms_nobody(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="image 0: "):
            detector([torch.full((3, 64, 64), torch.nan), IMAGES[0]])
        batch = detector.preprocess([IMAGES[0], IMAGES[0]], "cpu")  # what a network may get from elsewhere
        sound = batch.pixels.clone()
        batch.pixels[0] = torch.nan
        limits = torch.tensor([batch.pixels.shape[-2:]] * 2, dtype=torch.float32)
        whole = Whole(detector)
        with torch.no_grad():
            _, scores, _ = found = whole(batch.pixels, limits)
            alone = whole(sound[1:], limits[1:])
        assert not scores[0].any()
        for got, wanted in zip(found, alone, strict=True):
            torch.testing.assert_close(got[1], wanted[0], rtol=1e-4, atol=1e-4)

    def test_infinite_input_does_not_crash(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="image 0: "):
            detector([torch.full((3, 64, 64), torch.inf)])
        pixels = torch.full((1, 3, *detector.image_size), torch.inf)
        with torch.no_grad():
            boxes, scores, _ = Whole(detector)(pixels, torch.tensor([detector.image_size], dtype=torch.float32))
        assert boxes.isfinite().all()
        assert scores.isfinite().all()

    def test_targets_are_not_looked_at(self, detector: Detector) -> None:
        with torch.no_grad():
            assert_same(detector(IMAGES, TARGETS), detector(IMAGES))

    def test_leaves_the_images_as_they_are(self, detector: Detector) -> None:
        picture = torch.rand(3, *detector.image_size)
        before = picture.clone()
        with torch.no_grad():
            detector([picture])
        assert torch.equal(picture, before)


class TestBoth:
    def test_equal_to_the_separate_calls_in_eval_mode(self, detector: Detector) -> None:
        with torch.no_grad():
            losses, found = detector.losses_and_detections(IMAGES, TARGETS)
            assert_same(found, detector(IMAGES))
        assert not detector.training
        assert all(loss.isfinite() for loss in losses.values())

    def test_equal_to_the_separate_calls_in_training_mode(self, detector: Detector) -> None:
        twin = copy.deepcopy(detector).train()
        detector.train()
        losses, found = detector.losses_and_detections(IMAGES, TARGETS)
        for key, loss in twin(IMAGES, TARGETS).items():
            torch.testing.assert_close(losses[key], loss)
        assert not any(value.requires_grad for result in found for value in result.values())
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)
        assert detector.training


@without_mixtures
class TestDoor(Unchanged):
    @pytest.mark.parametrize("label", [-1, CLASSES, 255])
    @pytest.mark.parametrize("training", [True, False])
    def test_labels_outside(self, detector: Detector, label: int, training: bool) -> None:
        detector.train(training)
        wrong = [TARGETS[0], target([1.0, 1.0, 9.0, 9.0], label=label), TARGETS[2]]
        with pytest.raises(
            UserError, match=rf"target 1: label {label} is outside 0\.\.2; torchvision counts from 1: "
        ) as e:
            detector.losses_and_detections(IMAGES, wrong)
        assert "subtract 1, or build with num_classes=K+1" in str(e.value)

    @pytest.mark.parametrize(
        "box",
        [
            [40.0, 12.0, 10.0, 60.0],
            [10.0, 60.0, 40.0, 12.0],
            [10.0, 12.0, 10.0, 60.0],
            [10.0, 12.0, 40.0, 12.0],
            [torch.nan, 12.0, 40.0, 60.0],
            [10.0, 12.0, torch.inf, 60.0],
            [-torch.inf, 12.0, 40.0, 60.0],
        ],
    )
    def test_inverted_empty_nan_and_infinite_boxes(self, detector: Detector, box: list[float]) -> None:
        with pytest.raises(UserError, match=r"target 2: boxes must be \[N, 4\] xyxy with x1 < x2 .* \(row 1\)"):
            detector.train()(IMAGES, [TARGETS[0], TARGETS[1], target(BOX, box)])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"boxes": torch.zeros(2, 5), "labels": torch.zeros(2, dtype=torch.int64)},
            {"boxes": torch.zeros(2, 4), "labels": torch.zeros(3, dtype=torch.int64)},
            {"boxes": torch.tensor([BOX]), "labels": torch.zeros(1, 1, dtype=torch.int64)},
            {"boxes": torch.tensor([BOX, BOX]), "labels": torch.zeros(2, 1, dtype=torch.int64)},
            {"boxes": torch.tensor(BOX), "labels": torch.tensor(0)},
            {"boxes": torch.tensor(BOX), "labels": torch.tensor([0])},
            {"boxes": torch.tensor([BOX]), "labels": torch.tensor([0.5])},
            {"boxes": [BOX], "labels": [0]},
            {"boxes": torch.tensor([BOX]), "labels": torch.tensor([0]), "iscrowd": torch.tensor([True, False])},
            {"boxes": torch.tensor([BOX])},
            {},
        ],
    )
    def test_targets_of_a_wrong_form(self, detector: Detector, wrong: dict[str, Any]) -> None:
        with pytest.raises(UserError, match="target 1: expected"):
            detector.train()(IMAGES[:2], [TARGETS[0], wrong])

    def test_other_number_of_targets(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="3 images but 2 targets"):
            detector.train()(IMAGES, TARGETS[:2])

    @pytest.mark.parametrize(
        "wrong",
        [
            torch.rand(1, 40, 40),
            torch.rand(40, 40, 3),
            torch.rand(1, 3, 40, 40),
            torch.rand(3, 0, 40),
            torch.zeros(3, 40, 40, dtype=torch.int64),
            "image.jpg",
        ],
    )
    def test_images_of_a_wrong_form(self, detector: Detector, wrong: Any) -> None:
        with pytest.raises(UserError, match="image 1: expected"):
            detector([IMAGES[0], wrong])

    def test_no_images(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="no images"):
            detector([])
        with pytest.raises(UserError, match="no images"):
            detector.train()([], [])

    def test_the_first_wrong_row_of_the_first_wrong_image_is_named(self, detector: Detector) -> None:
        with pytest.raises(UserError, match="target 0: label 7"):
            detector.train()(IMAGES[:2], [target(BOX, label=7), target([5.0, 5.0, 1.0, 1.0])])


class TestFiles:
    @with_mixtures
    def test_save_and_load_give_bit_equal_outputs(self, detector: Detector, tmp_path: Path) -> None:
        save(detector, tmp_path / "model.safetensors")
        loaded = load(tmp_path / "model.safetensors", builder=OWN.get(str(detector.builder)))
        assert not loaded.training
        assert loaded.class_names == detector.class_names
        assert loaded.image_size == detector.image_size
        assert loaded.builder == detector.builder
        assert store_argument(loaded.arguments) == store_argument(detector.arguments)
        with torch.no_grad():
            assert_same(loaded(IMAGES), detector(IMAGES))
        losses = loaded.train()(IMAGES, TARGETS)
        for key, loss in detector.train()(IMAGES, TARGETS).items():
            assert torch.equal(losses[key], loss)

    def test_a_loaded_detector_is_saved_to_the_same_bytes(self, detector: Detector, tmp_path: Path) -> None:
        save(detector, tmp_path / "first.safetensors")
        own = OWN.get(str(detector.builder))
        save(load(tmp_path / "first.safetensors", builder=own), tmp_path / "second.safetensors")
        first, second = ((tmp_path / f"{name}.safetensors") for name in ("first", "second"))
        assert read_metadata(first) == read_metadata(second)
        weights = load_file(second)
        assert weights.keys() == detector.state_dict().keys()
        assert all(torch.equal(value, weights[key]) for key, value in load_file(first).items())


class TestPredict(Unchanged):
    def test_one_picture_and_a_list(self, detector: Detector) -> None:
        detector.train()
        one = detector.predict(IMAGES[1])
        assert detector.training  # as it was
        assert one.size == (33, 121)
        assert one.class_names == detector.class_names
        assert one.names == [detector.class_names[label] for label in one.labels.tolist()]
        assert len(one) == len(one.boxes) > 0
        several = detector.predict([IMAGES[0], IMAGES[1]], batch_size=1)
        assert torch.equal(several[1].boxes, one.boxes)
        detector.eval()
        with torch.no_grad():
            assert_same(detector([IMAGES[1]]), [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels}])

    @with_mixtures
    def test_a_list_is_done_in_batches_and_gives_what_its_images_give_alone(self, detector: Detector) -> None:
        """Bit for bit what a batch of the images of one input size gives; up to rounding what each gives alone."""
        wide, high = image(33, 121, 1), image(80, 60, 0)
        images = [high, high.flip(-1), wide, high.flip(-2)]
        seen: list[int] = []
        hook = detector.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
        together = detector.predict(images)
        assert seen == ([4] if isinstance(detector.preprocess, Stretch) else [3, 1])
        singles = [detector.predict(one) for one in images]  # with the hook too: all by the detector's own parts
        hook.remove()
        for one, same in zip(singles, together, strict=True):
            assert one.size == same.size
            assert len(one) == len(same) > 0
            # Each has its like in the other: of those that are equally good rounding may exchange the places.
            alike = (one.boxes[:, None] - same.boxes).abs().amax(-1) < 0.01
            alike &= (one.labels[:, None] == same.labels) & ((one.scores[:, None] - same.scores).abs() < 1e-5)
            assert alike.any(0).all()
            assert alike.any(1).all()
        if isinstance(detector.preprocess, Stretch):
            with torch.no_grad():
                exact = [{"boxes": f.boxes, "scores": f.scores, "labels": f.labels} for f in together]
                assert_same(detector(images), exact)


@pytest.mark.gpu
@with_mixtures
class TestGpu:
    def test_the_same_losses_and_detections(self, detector: Detector) -> None:
        images, targets = [picture.cuda() for picture in IMAGES], TARGETS  # targets may stay on the CPU
        expected, found = detector.losses_and_detections(IMAGES, TARGETS)
        detector.cuda()
        losses, on_gpu = detector.losses_and_detections(images, targets)
        for key, loss in losses.items():
            torch.testing.assert_close(loss.cpu(), expected[key], rtol=1e-2, atol=1e-2)
        for a, b in zip(on_gpu, found, strict=True):
            assert a["boxes"].is_cuda
            number = min(20, len(a["scores"]))
            torch.testing.assert_close(a["scores"][:number].cpu(), b["scores"][:number], rtol=1e-2, atol=1e-2)

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_a_training_step(self, detector: Detector, precision: str) -> None:
        detector.cuda().train()
        detector.precision = precision
        losses = detector(IMAGES, TARGETS)  # images on the CPU are moved
        sum(losses.values()).backward()
        assert gradients_are_finite(detector)
        assert all(loss.dtype == torch.float32 for loss in losses.values())


def scene(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Two coloured rectangles side by side on a noisy ground."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(3, 96, 96, generator=generator) * 0.2 + 0.3
    boxes, labels = [], []
    for number in range(2):
        width, height = (int(n) for n in torch.randint(24, 46, (2,), generator=generator))
        left = 48 * number + int(torch.randint(0, 48 - width, (1,), generator=generator))
        top = int(torch.randint(0, 96 - height, (1,), generator=generator))
        label = (seed + number) % 2
        colour = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.3, 0.9]][label])
        picture[:, top : top + height, left : left + width] = colour[:, None, None]
        boxes.append([left, top, left + width, top + height])
        labels.append(label)
    return picture, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


@pytest.mark.parametrize(
    "name",  # the detectors with RetinaNet's towers take half a minute: one of them is enough for the fast tests
    [
        *(name for name in DETECTORS if name != "retinanet"),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("retinanet", *MIXTURES)),
    ],
)
def test_overfits_four_images(name: str) -> None:
    """The two best findings of each image are its two objects."""
    pictures, targets = (list(part) for part in zip(*(scene(seed) for seed in range(4)), strict=True))
    torch.manual_seed(0)
    detector = (DETECTORS | MIXTURES)[name](num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    wrong: list[str] = []
    for _ in range(5):  # 100 steps at most: after 60 the one without norms is about to learn it
        for _ in range(20):
            optimizer.zero_grad()
            sum(detector(pictures, targets).values()).backward()
            optimizer.step()
        # In training mode, as learnt: after so few steps the running statistics are not those of these images yet.
        found = detector.losses_and_detections(pictures, targets)[1]
        if not (wrong := [text for pair in zip(found, targets, strict=True) if (text := what_is_wrong(*pair))]):
            break
    assert not wrong


def what_is_wrong(found: dict[str, Tensor], truth: dict[str, Tensor]) -> str:
    """What the two best findings of an image are, unless they are its two objects."""
    best, where = pairwise_iou(truth["boxes"], found["boxes"][:2]).max(1)
    right = bool(best.min() > 0.7) and torch.equal(found["labels"][:2][where], truth["labels"])
    scores = found["scores"][:2].tolist()
    return "" if right and scores[1] > 0.5 else f"IoU {best.tolist()}, scores {scores}"
