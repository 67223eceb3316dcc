"""singleshot.backbones.mobilenet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from singleshot.backbones import build
from singleshot.backbones.mobilenet import MobileNetV2
from singleshot.errors import UserError

WEIGHTS = "weights/mobilenet_v2_imagenet.safetensors"


def test_two_choices_of_maps() -> None:
    torch.manual_seed(0)
    wide, narrow = MobileNetV2().eval(), MobileNetV2(expanded=False).eval()
    narrow.load_state_dict(wide.state_dict())
    assert wide.channels == (192, 576, 1280)
    assert narrow.channels == (32, 96, 1280)
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expanded, outputs = wide(pixels), narrow(pixels)
        features = wide.features
        for index, got, plain in ((7, expanded[0], outputs[0]), (14, expanded[1], outputs[1])):
            torch.testing.assert_close(plain, features[:index](pixels))
            torch.testing.assert_close(got, features[index].conv[0](plain))
        torch.testing.assert_close(expanded[2], features(pixels))
        torch.testing.assert_close(expanded[2], outputs[2])


@pytest.mark.parametrize(
    ("width", "channels"), [(0.35, (96, 192, 1280)), (0.5, (96, 288, 1280)), (1.4, (288, 816, 1792))]
)
def test_width(width: float, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = MobileNetV2(width=width)
        maps = network(torch.empty(2, 3, 64, 64))
    assert network.channels == channels == tuple(features.shape[1] for features in maps)


@pytest.mark.parametrize("width", [0, -1, 100])
def test_width_must_be_a_factor(width: float) -> None:
    with pytest.raises(UserError, match="width"):
        MobileNetV2(width=width)


def classify(network: MobileNetV2, head: dict[str, Tensor], path: Path) -> list[int]:
    """The five likeliest ImageNet classes of the middle square of a picture."""
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (
            image.convert("RGB")
            .crop((left, top, left + side, top + side))
            .resize((224, 224), Image.Resampling.BILINEAR)
        )
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1).float() / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        features = network(pixels[None])[-1].mean((2, 3))
    return (features @ head["classifier.1.weight"].T + head["classifier.1.bias"]).topk(5).indices[0].tolist()


def test_imagenet_weights_classify(shared: Path) -> None:
    path = shared / WEIGHTS
    network = build("mobilenetv2", weights=path).eval()
    file = load_file(path)
    assert isinstance(network, MobileNetV2)
    assert set(network.state_dict()) == {key for key in file if not key.startswith("classifier.")}
    assert torch.equal(network.features[14].conv[0][0].weight, file["features.14.conv.0.0.weight"])
    photos = shared / "images" / "coral"
    assert 652 in classify(network, file, photos / "grace_hopper.bmp")  # military uniform
    assert {281, 282, 285} & set(classify(network, file, photos / "cat_720p.jpg"))  # tabby, tiger cat, Egyptian cat
    assert classify(network, file, photos / "hot_dog.jpg")[0] == 934
    assert 88 in classify(network, file, photos / "parrot.jpg")  # macaw


def test_tensorflows_padding_changes_the_strided_layers_only() -> None:
    """At an odd size both paddings are equal, at an even one the cells move; the keys are the same."""
    torch.manual_seed(0)
    usual, same = (MobileNetV2(width=0.25, padding=kind).eval() for kind in ("symmetric", "same"))
    same.load_state_dict(usual.state_dict())
    with torch.no_grad():
        for side, equal in ((65, True), (64, False)):  # 65, 33, 17, 9, 5, 3 cells
            pixels = torch.randn(1, 3, side, side)
            for one, other in zip(usual(pixels), same(pixels), strict=True):
                assert one.shape == other.shape
                assert torch.equal(one, other) is equal


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(UserError, match="padding: expected one of symmetric, same, got 'valid'"):
        MobileNetV2(padding="valid")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="padding"):
        build("mobilenetv2", options={"padding": "valid"})
