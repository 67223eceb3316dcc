"""The range of deep images: by hand, and from a recipe to the detector's files and all that reads images for it."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch
from PIL import Image

import singleshot as ss
from singleshot.data import deep
from singleshot.data.deep import DeepRange, range_of
from singleshot.data.frames import file_frames
from singleshot.data.images import read_image
from singleshot.engines.exported import ExportedDetector
from singleshot.errors import UserError
from singleshot.image_input import to_picture, to_tensor
from singleshot.inference.sources import Source
from singleshot.spec import Spec
from singleshot.weights import checkpoint

TWELVE = DeepRange(0, 4095)


def test_the_range_by_hand() -> None:
    values = np.array([0, 100, 200, 300, 65535], np.uint16)
    assert DeepRange(100, 300).to_8_bits(values).tolist() == [0, 0, 128, 255, 255]
    assert DeepRange(100, 300).to_8_bits(values.astype(np.float32)).tolist() == [0, 0, 128, 255, 255]
    assert DeepRange.of([0, 4095]) == DeepRange.of((0.0, 4095.0)) == DeepRange.of(TWELVE) == TWELVE
    assert DeepRange.of(None) is DeepRange.of(()) is DeepRange.of([]) is None
    assert DeepRange.of(TWELVE.to_json()) == TWELVE


INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("wrong", [[1], [1, 1], [2, 1], [0, NAN], [0, INFINITE], "09", [0, "9"], 5, [0, 10**400]])
def test_no_range(wrong: object) -> None:
    with pytest.raises(UserError, match="deep_range is .*expected two numbers.*such as"):
        DeepRange.of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_files_of_every_deep_mode(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0, 2048, 4095, 9000]], dtype)).save(path)
    assert read_image(path, deep_range=(0, 4095))[0, :, 0].tolist() == [0, 128, 255, 255]
    assert read_image(path.read_bytes(), deep_range=TWELVE)[0, :, 2].tolist() == [0, 128, 255, 255]


def test_images_of_8_bits_do_not_change(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", deep_range=TWELVE), picture)
    assert to_tensor(picture, TWELVE).pixels.dtype == torch.uint8


def test_a_picture_that_is_nearly_black_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(array: np.ndarray, deep_range: DeepRange | None = None, *, again: bool = False) -> list[str]:
        if not again:
            monkeypatch.setattr(deep, "_first_warning", Lock())
        caplog.clear()
        Image.fromarray(array).save(tmp_path / "deep.tif")
        to_tensor(tmp_path / "deep.tif", deep_range)
        list(file_frames([Source(tmp_path / "deep.tif", "deep.tif")], deep_range=deep_range))
        return [record.getMessage() for record in caplog.records]

    dark = np.array([[0, 2048, 4095]], np.uint16)
    (warning,) = said(dark)
    assert warning.startswith(f"{tmp_path / 'deep.tif'} has values up to 4095 of 65535 and is nearly black as read; ")
    assert "data.deep_range, or set detector.deep_range" in warning
    assert said(dark, again=True) == []
    assert said(dark, TWELVE) == []  # it was chosen so
    assert said(dark * 16) == []
    assert said(np.zeros((2, 2), np.uint16)) == []
    assert said((dark // 4096).astype(np.uint8)) == []
    assert len(said(dark.astype(np.float32))) == 1
    (tmp_path / "deep.tif").unlink()
    monkeypatch.setattr(deep, "_first_warning", Lock())
    caplog.clear()
    to_picture(Image.fromarray(dark))
    assert caplog.records[0].getMessage().startswith("a PIL image of mode I;16 has values up to 4095")
    Image.fromarray(dark).save(tmp_path / "a.png")
    monkeypatch.setattr(deep, "_first_warning", Lock())
    caplog.clear()
    read_image(tmp_path / "a.png")  # for a person's own use, nothing is said
    assert not caplog.records


def test_arrays_and_tensors_of_16_bits() -> None:
    deep = np.array([[0, 2048, 4095]], np.uint16)
    expected = [0, 128, 255]
    for source in (deep, deep[..., None], deep[..., None].repeat(3, 2), torch.from_numpy(deep), Image.fromarray(deep)):
        assert to_picture(source, TWELVE).pixels[0, :, 1].tolist() == expected
        assert to_tensor(source, TWELVE).pixels[1, 0].tolist() == expected
    for source in (deep, torch.from_numpy(deep)):
        with pytest.raises(UserError, match=r"detector\.deep_range = \(0, 4095\)"):
            to_tensor(source)


@pytest.fixture
def detector() -> ss.Detector:
    torch.manual_seed(0)
    return ss.ssd(num_classes=1, backbone="mobilenetv2", image_size=64).eval()


def test_the_range_is_kept_in_the_file_and_used_by_all_that_reads(detector: ss.Detector, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (40, 50), np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    shallow = Image.fromarray(TWELVE.to_8_bits(deep))
    expected = detector.predict(shallow)
    plain = detector.predict(tmp_path / "a.png")
    assert not np.array_equal(plain.scores_array, expected.scores_array)  # too dark
    detector.deep_range = (0, 4095)
    ss.save(detector, tmp_path / "model.safetensors")
    loaded = ss.load(tmp_path / "model.safetensors")
    exported = ExportedDetector(detector.spec, None)  # type: ignore[arg-type]
    assert loaded.deep_range == range_of(loaded) == checkpoint.read_spec(tmp_path / "model.safetensors").deep_range
    assert loaded.deep_range == exported.deep_range == TWELVE
    (detected,) = ss.detect(loaded, tmp_path / "a.png", threshold=0.0)
    for found in (loaded.predict(tmp_path / "a.png"), loaded.predict(deep), detected):
        np.testing.assert_array_equal(found.scores_array, expected.scores_array)


def test_files_of_before_say_no_range(detector: ss.Detector) -> None:
    spec = detector.spec.to_json()
    assert spec.pop("deep_range") is None
    assert Spec.from_json(spec).deep_range is None
    with pytest.raises(UserError, match="deep_range"):
        Spec.from_json({**spec, "deep_range": [5]})
