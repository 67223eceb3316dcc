"""Names to builders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from singleshot.detectors import BUILDERS, VARIANTS, create, find_builder, ssd
from singleshot.errors import UserError


def test_variants_name_builders_of_this_package() -> None:
    assert {"ssd300_vgg16", "ssd512_vgg16", "ssd300_mobilenetv2"} <= VARIANTS.keys()
    assert all(variant.builder in BUILDERS for variant in VARIANTS.values())
    assert BUILDERS["ssd"] is ssd


def test_create_a_variant_and_override_it() -> None:
    with torch.device("meta"):
        detector = create("ssd512_vgg16", num_classes=4, class_names=["a", "b", "c", "d"], clip=True)
    assert detector.image_size == (512, 512)
    assert detector.class_names == ("a", "b", "c", "d")
    assert detector.builder == "ssd"
    assert detector.arguments == {"num_classes": 4, "image_size": 512, "clip": True}  # enough to build it again
    with torch.device("meta"):
        assert create("ssd512_vgg16", num_classes=4, image_size=300).image_size == (300, 300)


def test_create_by_the_name_of_a_builder() -> None:
    with torch.device("meta"):
        assert create("ssd", num_classes=2, image_size=320).image_size == (320, 320)


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(UserError, match=r"unknown detector 'ssd300_vg16'; did you mean ssd300_vgg16 or"):
        create("ssd300_vg16", num_classes=2)
    with pytest.raises(
        UserError,
        match="'ssd300_mobilenetv2' is a variant, not a builder: use the builder ssd with "
        "arguments.backbone mobilenetv2",
    ):
        find_builder("ssd300_mobilenetv2")
    with pytest.raises(
        UserError, match="'retinanet_r50' is a variant, not a builder: use the builder retinanet with its own arguments"
    ):
        find_builder("retinanet_r50")
    with pytest.raises(UserError, match=r"unknown builder 'sdd'; did you mean ssd\?"):
        find_builder("sdd")
    with pytest.raises(UserError, match="Write your own as 'package.module:function'"):
        find_builder("zzz")


def test_find_builder() -> None:
    assert find_builder("ssd") is ssd
    assert find_builder("singleshot.detectors.ssd:ssd") is not None


def test_a_builder_keeps_its_name_and_documentation() -> None:
    assert ssd.__name__ == "ssd"
    assert "SSD300" in (ssd.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ssd", {"image_size": 10**18}, "image_size is 1000000000000000000; expected at most 16,384"),
        ("ssd", {"image_size": [300, 20_000]}, "image_size is 20000; expected at most 16,384"),
        ("ssd", {"image_size": 16_384}, "would be 16384x16384, 268,435,456 pixels; expected at most 64,000,000"),
        ("retinanet", {"image_size": 8_000, "max_size": 16_384}, "would be 8000x16384, 131,072,000 pixels"),
        ("retinanet", {"channels": 10**9}, "channels is 1000000000; expected at most 16,384"),
        ("refinedet", {"negatives": 1e30}, r"negatives is 1e\+30; expected at most 1,000,000"),
        ("ssd", {"classification": {"type": "SoftmaxLoss", "ratio": 1e300}}, r"classification.ratio is 1e\+300"),
        ("ssd", {"num_classes": 100_001}, "num_classes is 100001; expected at most 100,000"),
        ("ssd", {"class_names": ["a"] * 100_001}, "class_names has 100,001 entries; expected at most 100,000"),
        ("retinanet", {"anchor_sizes": [1.0] * 1_001}, "anchor_sizes has 1,001 entries; expected at most 1,000"),
        ("ssd", {"backbone": "x" * 10_001}, "backbone is a text of 10,001 letters; expected at most 10,000"),
    ],
)
def test_numbers_that_no_network_can_have(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(name, **{"num_classes": 2, **arguments})
