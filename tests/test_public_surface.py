"""The names that users may rely on. A change here is a change of the promise: write it into CHANGELOG.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import singleshot

NAMES = [
    "Dataset",
    "Detections",
    "Detector",
    "ImageDetections",
    "Metrics",
    "NotTheSame",
    "Prediction",
    "Recipe",
    "Targets",
    "TrainResult",
    "UserError",
    "__version__",
    "analysis",
    "benchmark",
    "check",
    "create",
    "detect",
    "download",
    "draw",
    "evaluate",
    "export",
    "import_weights",
    "iou_retinanet",
    "load",
    "open_dataset",
    "read_image",
    "recipes",
    "refinedet",
    "retinanet",
    "save",
    "settle_norm",
    "ssd",
    "torchvision_labels",
    "train",
]


def test_names() -> None:
    assert sorted(singleshot.__all__) == NAMES
    assert dir(singleshot) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name: str) -> None:
    value = getattr(singleshot, name)
    assert value is getattr(singleshot, name)
    if callable(value):
        assert value.__module__.startswith("singleshot."), "public names are our own"
        assert value.__doc__, "public names are documented"


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sdd'"):
        singleshot.sdd  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(singleshot.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    where = {name: module or "singleshot" for name, module in singleshot._WHERE.items()}
    assert seen == where
    assert sorted([*where, "__version__"]) == NAMES


def test_import_is_lazy() -> None:
    code = (
        "import sys, singleshot; print(*sorted(m for m in sys.modules if m.split('.')[0] in {'torch', 'numpy', 'cv2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_typed() -> None:
    assert (Path(singleshot.__file__).parent / "py.typed").exists()
