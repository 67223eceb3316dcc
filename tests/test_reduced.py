"""Large JPEG files are decoded smaller where the network sees as much, and boxes are those of the image itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import singleshot as ss
from singleshot.data.frames import file_frames
from singleshot.data.images import read_image, read_reduced
from singleshot.engines.exported import ExportedDetector
from singleshot.errors import UserError
from singleshot.inference.sources import Source
from singleshot.ops.fit import LongestSide, ShortSide
from singleshot.preprocess import KeepAspect, Stretch
from singleshot.reduced import Reduced, Seen, reduced_for, seen_by
from singleshot.spec import Rule, Spec

SMALL = Stretch((30, 40))
EXIF_ORIENTATION = 0x0112


def seen(rule: Rule) -> Seen:
    return lambda size: rule.layout([size])[0][0]


def jpeg(height: int, width: int, orientation: int = 1, **how: object) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95, exif=exif.tobytes(), **how)
    return file.getvalue()


@pytest.mark.parametrize(
    ("rule", "size", "factor"),
    [
        (SMALL, (60, 80), 2),
        (SMALL, (58, 80), 1),  # less than twice
        (SMALL, (59, 79), 2),  # its half is not smaller than what the network sees
        (SMALL, (480, 80), 2),  # both sides count
        (SMALL, (119, 300), 4),
        (SMALL, (5000, 5000), 8),
        (SMALL, (3, 4), 1),
        (KeepAspect(LongestSide(40)), (80, 60), 2),
        (KeepAspect(LongestSide(40)), (158, 61), 1),  # 40 x 16 would be seen in place of 40 x 15
        (KeepAspect(ShortSide(40, 60)), (320, 400), 8),
    ],
)
def test_the_smallest_picture_in_which_the_network_sees_as_much(rule: Rule, size: tuple[int, int], factor: int) -> None:
    assert reduced_for(seen(rule), size) == Reduced(size, factor)
    assert reduced_for(None, size) == Reduced(size)


def test_a_network_never_sees_another_size_and_nothing_is_enlarged() -> None:
    rng = np.random.default_rng(0)
    for rule in (KeepAspect(ShortSide(64, 100)), KeepAspect(LongestSide(57)), Stretch((33, 71))):
        for height, width in rng.integers(1, 900, (200, 2)).tolist():
            found = reduced_for(seen(rule), (height, width))
            wanted = seen(rule)((height, width))
            assert seen(rule)(found.picture) == wanted
            assert found.factor == 1 or all(a >= b for a, b in zip(found.picture, wanted, strict=True))


def test_boxes_are_those_of_the_image() -> None:
    boxes = np.array([[0, 1, 10, 26]], np.float32)
    for given in (boxes, torch.from_numpy(boxes)):
        assert Reduced((101, 79), 4).boxes(given).tolist() == [[0, 4, 40, 101]]
        assert Reduced((101, 79)).boxes(given) is given
    assert boxes.tolist() == [[0, 1, 10, 26]]  # they are not changed in place


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", [{}, {"progressive": True}])
def test_a_turned_file_gives_the_whole_image_in_small(orientation: int, how: dict[str, object]) -> None:
    content = jpeg(240, 320, orientation, **how)
    whole, (small, reduced) = read_image(content), read_reduced(content, seen(Stretch((28, 30))))
    assert reduced == Reduced(whole.shape[:2], 8)
    assert small.shape[:2] == reduced.picture
    mean = whole.reshape(small.shape[0], 8, small.shape[1], 8, 3).mean((1, 3))
    assert np.abs(mean - small).mean() < 1.5


def test_sides_that_a_factor_does_not_divide() -> None:
    small, reduced = read_reduced(jpeg(243, 322), seen(SMALL))
    assert reduced == Reduced((243, 322), 8)
    assert small.shape == (31, 41, 3)
    # Mirrored, what reaches beyond the image would come first and move all boxes: another factor, or none.
    for orientation in (2, 3, 6):
        assert read_reduced(jpeg(244, 324, orientation), seen(SMALL))[1].factor == 4
        assert read_reduced(jpeg(243, 322, orientation), seen(SMALL))[1].factor == 1


def test_grey_and_cmyk_files_too_and_other_formats_are_whole(tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(jpeg(240, 320)))
    for mode in ("L", "CMYK"):
        image.convert(mode).save(tmp_path / "a.jpg")
        small, reduced = read_reduced(tmp_path / "a.jpg", seen(SMALL))
        assert (small.shape, reduced) == ((30, 40, 3), Reduced((240, 320), 8))
    image.save(tmp_path / "a.png")
    whole, reduced = read_reduced(tmp_path / "a.png", seen(SMALL))
    assert reduced == Reduced((240, 320))
    assert np.array_equal(whole, read_image(tmp_path / "a.png"))


def test_what_is_refused_stays_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (jpeg(240, 320), jpeg(240, 320, 6)):
        for broken in (content[: len(content) // 2], content[:200], b""):
            with pytest.raises(UserError):
                read_reduced(broken, seen(SMALL))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # of the image, not of its picture
    for orientation in (1, 6):
        with pytest.raises(UserError, match="more than the limit"):
            read_reduced(jpeg(240, 320, orientation), seen(SMALL))


def looks_for_white(batch: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An engine that finds the white part of each picture."""
    boxes = []
    for picture in batch:
        rows, columns = np.nonzero((picture > 127).all(2))
        boxes.append([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    number = len(batch)
    return np.array(boxes, np.float32), np.ones((number, 1), np.float32), np.zeros((number, 1), np.int64)


@pytest.mark.parametrize("rule", [Stretch((60, 80)), KeepAspect(LongestSide(80))])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_way_to_detect_gives_boxes_of_the_image(rule: Rule, orientation: int, tmp_path: Path) -> None:
    picture = np.zeros((482 - 2 * (orientation > 1), 644 - 4 * (orientation > 1), 3), np.uint8)
    picture[80:240, 160:480] = 255
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95, exif=exif.tobytes())
    height, width = size = read_image(tmp_path / "a.jpg").shape[:2]
    expected = [160, 80, 480, 240] if orientation == 1 else [width - 240, 160, width - 80, 480]
    model = ExportedDetector(Spec(("white",), (1,), rule, None, input="image"), looks_for_white)
    frames = list(file_frames([Source(tmp_path / "a.jpg", "a.jpg")], seen=seen_by(model)))
    assert frames[0].size == size
    assert frames[0].pixels.shape[1] < height  # or the test shows nothing
    single = model.predict(tmp_path / "a.jpg")
    plain = ss.detect(model, tmp_path / "a.jpg")[0]
    drawn = ss.detect(model, tmp_path / "a.jpg", out=tmp_path / "out")[0]
    for found in (single, plain, drawn):
        assert found.size == size
        assert np.abs(found.boxes_array - expected).max() <= 8  # a pixel of the network's input
        assert found.boxes_array.tolist() == single.boxes_array.tolist()
    assert read_image(tmp_path / "out" / "a.jpg").shape[:2] == size  # the whole picture is drawn on


def test_a_detector_and_its_dataset(tiny_voc: Path, tiny_model: Path, tmp_path: Path) -> None:
    detector = ss.load(tiny_model)
    side = detector.image_size
    content = jpeg(side[0] * 4, side[1] * 4)
    (tmp_path / "a.jpg").write_bytes(content)
    assert seen_by(detector) is not None
    assert seen_by(lambda images: []) is None
    found = detector.predict(tmp_path / "a.jpg")
    small, reduced = read_reduced(content, detector.seen_size)
    assert reduced.factor == 4
    expected = detector.predict(small)
    assert found.size == reduced.size
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.boxes.tolist() == (expected.boxes * 4).tolist()
