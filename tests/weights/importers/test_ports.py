"""SSD and RefineDet of three PyTorch projects: files of their layout find what a slow form of their code finds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from singleshot.backbones import vgg
from singleshot.detectors import Detector
from singleshot.errors import UserError
from singleshot.weights.importers import class_names, import_weights

sys.path.insert(0, str(Path(__file__).parent))
import port_reference as ports

NARROW = 16


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-16 with a sixteenth of its channels, except fc6 and fc7."""
    monkeypatch.setattr(vgg, "BLOCKS", tuple(tuple(width // NARROW for width in block) for block in vgg.BLOCKS))


def picture(height: int, width: int) -> Tensor:
    """Gradients, edges and noise."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    smooth = torch.stack([x / width, y / height, (x + y) / (height + width)])
    edges = ((x // 40 + y // 30) % 2)[None] * 0.3
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return (0.5 * smooth + edges + 0.2 * noise).clamp(0, 1)


def assert_finds(detector: Detector, image: Tensor, expected: ports.Found) -> None:
    """Each of the expected, and no more: scores to 1e-4, boxes to a hundredth of a pixel."""
    with torch.no_grad():
        (found,) = detector([image])
    assert isinstance(found, dict)
    assert len(found["scores"]) == len(expected) > 20
    assert len({label for _, label, _ in expected}) > 2
    free = torch.ones(len(expected), dtype=torch.bool)
    for score, label, box in expected:
        apart = (found["boxes"] - torch.tensor(box)).abs().amax(1)
        apart[(found["labels"] != label - 1) | ~free] = torch.inf
        place = int(apart.argmin())
        free[place] = False
        assert apart[place] < 0.01
        assert abs(float(found["scores"][place]) - score) < 1e-4


def assert_ssd(project: ports.Project, size: int, outputs: int, width: int, file: Path, wrap: Any) -> Detector:
    weights = ports.ssd_weights(project, size=size, outputs=outputs, width=width, seed=outputs)
    torch.save(wrap(weights), file)
    detector = import_weights(file)
    usual = {300: ports.COCO_300 if project is ports.SSD_PYTORCH else ports.VOC_300, 512: ports.VOC_512}
    sides = ports.SIDES.get((size, outputs), usual[size])
    image = picture(240, 320)
    with torch.no_grad():
        assert_finds(detector, image, ports.ssd(weights, project, image, size=size, sides=sides))
    return detector


def plain(weights: Mapping[str, Tensor]) -> Any:
    return dict(weights)


def wrapped(weights: Mapping[str, Tensor]) -> Any:
    """As lufficc's check points are saved, trained on several GPUs."""
    return {"model": {f"module.{key}": value for key, value in weights.items()}, "iteration": 120000}


SLOW = pytest.mark.slow  # the same with more classes, or with larger images


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("outputs", [4, pytest.param(21, marks=SLOW)])
def test_ssd_pytorch(outputs: int, tmp_path: Path) -> None:
    assert_ssd(ports.SSD_PYTORCH, 300, outputs, NARROW, tmp_path / "ssd300.pth", plain)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("size", "outputs"), [(300, 4), pytest.param(512, 4, marks=SLOW), pytest.param(300, 21, marks=SLOW)]
)
def test_lufficc(size: int, outputs: int, tmp_path: Path) -> None:
    detector = assert_ssd(ports.LUFFICC, size, outputs, NARROW, tmp_path / "model_final.pth", wrapped)
    assert detector.class_names[0] == ("aeroplane" if outputs == 21 else "class 1")


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("size", "outputs"), [(320, 4), pytest.param(512, 21, marks=SLOW)])
def test_luuuyi(size: int, outputs: int, tmp_path: Path) -> None:
    weights = ports.refinedet_weights(outputs=outputs, width=NARROW, seed=1)
    torch.save(weights, tmp_path / "RefineDet.pth")
    detector = import_weights(tmp_path / "RefineDet.pth", **({} if size == 320 else {"image_size": 512}))
    assert detector.image_size == (size, size)
    image = picture(300, 260)
    with torch.no_grad():
        assert_finds(detector, image, ports.refinedet(weights, image, size=size))


@pytest.mark.slow
def test_all_at_their_full_width(tmp_path: Path) -> None:
    assert_ssd(ports.SSD_PYTORCH, 300, 21, 1, tmp_path / "a.pth", plain)
    assert_ssd(ports.LUFFICC, 300, 81, 1, tmp_path / "b.pth", wrapped)
    assert_ssd(ports.LUFFICC, 512, 21, 1, tmp_path / "c.pth", wrapped)
    weights = ports.refinedet_weights(outputs=21, width=1, seed=1)
    image = picture(300, 260)
    with torch.no_grad():
        assert_finds(import_weights(weights), image, ports.refinedet(weights, image, size=320))


def test_names_are_known_for_the_numbers_of_voc_and_coco() -> None:
    assert class_names.after_background(21)["class_names"][14] == "person"
    coco = class_names.after_background(81)
    assert dict(zip(coco["category_ids"], coco["class_names"], strict=True))[90] == "toothbrush"
    assert class_names.after_background(4) == {"num_classes": 3}


@pytest.mark.usefixtures("narrow")
def test_what_is_not_possible_is_told() -> None:
    weights = ports.ssd_weights(ports.SSD_PYTORCH, size=512, outputs=3, width=NARROW, seed=0)
    with pytest.raises(UserError, match="layers of 512 pixels, which ssd.pytorch does not have"):
        import_weights(weights)
    mobile = {
        "box_head.predictor.cls_headers.0.conv.0.weight": torch.zeros(1),
        "backbone.features.0.0.weight": torch.zeros(1),
    }
    with pytest.raises(UserError, match="lufficc/SSD are not on VGG-16"):
        import_weights({**mobile, "box_head.predictor.reg_headers.0.conv.0.weight": torch.zeros(1)})
    weights = ports.ssd_weights(ports.SSD_PYTORCH, size=300, outputs=3, width=NARROW, seed=0)
    with pytest.raises(
        UserError, match="loc.0.bias has 24 numbers and conf.0.bias 12; expected 16 and a multiple of 4"
    ):
        import_weights({**weights, "loc.0.bias": torch.zeros(24)})
    with pytest.raises(
        UserError, match="ssd.pytorch's SSD300 on its usual backbone: 1 missing: extras.5.bias; 1 unexpected: more"
    ):
        import_weights(
            {"more": torch.zeros(1), **{key: value for key, value in weights.items() if key != "extras.5.bias"}}
        )
