"""Imports go down only.

A part of the package may import what stands below it and files of its own part: nothing beside it, nothing above.
Imports inside functions and under TYPE_CHECKING count too: a circle that is hidden is still a circle.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "singleshot"

# From the top to the bottom; the parts of one line do not know each other. A part is a module or a folder of the
# package, or one file of a folder whose files belong to several layers.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo"},
    {"recipes", "inference", "analysis", "benchmarking"},
    {"multiscale"},
    {"training", "exporting"},
    {"evaluation.detect_dataset"},
    {"evaluation"},
    {"engines"},
    {"weights"},
    {"detectors"},
    {"spec"},
    {"heads", "necks", "refiner", "preprocess", "postprocess"},
    {"outputs"},
    {"backbones"},
    {"losses", "layers"},
    {"fused"},
    {"anchors", "matchers"},
    {"near_matches"},
    {"data.loader", "data.frames"},
    {"data", "image_input"},
    {"data.limits"},
    {"structures", "signature", "plain_data", "data.images", "data.dataset", "data.normalised"},
    {"data.deep", "data.jpeg", "data.pixel_budget"},
    {"coders", "ops", "prediction", "stream", "yaml_text", "catalogue"},
    {"tensor_files", "torch_files", "devices", "memory", "installed_weights", "fetch", "cache"},
    {"files", "eval_mode", "twin", "version", "flags", "text_table", "terminal", "conversions", "paths", "ranges"},
    {"errors", "forked", "source", "reduced"},
]
LEVEL = {part: level for level, layer in enumerate(reversed(LAYERS)) for part in layer}

# Narrower than the order above: pictures and files are no business of the network, nor readers of the metrics.
NETWORK = {"detectors", "spec", "heads", "necks", "refiner", "preprocess", "postprocess", "outputs", "backbones"}
NETWORK |= {"losses", "layers", "anchors", "coders", "matchers", "near_matches", "ops", "structures", "signature"}
NETWORK |= {"prediction", "image_input", "stream", "errors", "files", "paths", "ranges", "eval_mode", "twin", "forked"}
NETWORK |= {"tensor_files", "torch_files", "source", "devices", "memory", "fused", "data.deep", "reduced"}
RECORDS = {"data.dataset", "data.images", "data.normalised", "ops", "structures", "errors", "files", "conversions"}
RECORDS |= {"forked", "paths", "data.deep", "data.limits", "reduced"}
ONLY = {
    **dict.fromkeys(NETWORK, NETWORK | {"data.images"}),
    "backbones": NETWORK | {"data.images", "catalogue"},
    "weights": NETWORK | {"version", "installed_weights", "catalogue", "cache"},
    "engines": NETWORK | {"weights", "cache", "version"},
    "evaluation.detect_dataset": RECORDS | {"data.frames", "stream", "evaluation", "eval_mode"},
    "evaluation": RECORDS,
    "data.frames": {"data.dataset", "data.images", "data.deep", "stream", "reduced", "errors"},
    "data.loader": RECORDS | {"data"},
    "data": RECORDS,
}
LAZY = "singleshot"  # the public surface: everybody's, but not for use inside


def module_name(path: Path) -> str:
    """`data.images` for singleshot/data/images.py, `data` for singleshot/data/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part that a module (without `singleshot.`) belongs to."""
    return module if module in LEVEL else module.split(".")[0]


def imported(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """All modules of this package that the code imports, without `singleshot.` in front."""
    found: set[str] = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name != "singleshot"]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "singleshot":
            names = [f"singleshot:{node.attr}"]  # after `import singleshot`
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["singleshot", *filter(None, module.split("."))]
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, *filter(None, [base])])
            # `from singleshot.data import images` imports the module data.images, `... import Dataset` the module data
            for alias in node.names:
                inner = PACKAGE.joinpath(*base.split(".")[1:], alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                names.append(f"{base}.{alias.name}" if is_module else f"{base}:{alias.name}")
        for name in names:
            package, _, rest = name.partition(".")
            if package.partition(":")[0] != "singleshot":
                continue
            if package == name:  # `singleshot.ssd`, `from singleshot import ssd`
                found.add(LAZY)
            else:
                found.add(rest.partition(":")[0])
    return found


def wrong(module: str, others: set[str]) -> list[str]:
    """The imports that a module must not have."""
    part = part_of(module)
    bad = []
    for other in sorted(others):
        its = part_of(other) if other != LAZY else LAZY
        if its == part:
            continue
        if its == LAZY:
            bad.append(f"{module} imports names from `singleshot` itself: import them from where they are defined")
        elif its not in LEVEL:
            bad.append(f"{module} imports {other}, which has no layer: add {its!r} to LAYERS in {Path(__file__).name}")
        elif part in ONLY and its not in ONLY[part]:
            bad.append(f"{module} imports {other}: {part} may know only {', '.join(sorted(ONLY[part] - {part}))}")
        elif LEVEL[its] >= LEVEL[part]:
            bad.append(
                f"{module} imports {other}, which stands {'beside' if LEVEL[its] == LEVEL[part] else 'above'} it"
            )
    return bad


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    module = module_name(path)
    assert part_of(module) in LEVEL, (
        f"{module} has no layer: add {part_of(module)!r} to LAYERS in {Path(__file__).name}"
    )
    assert not wrong(module, imported(ast.parse(path.read_text()), module, path.name == "__init__.py"))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("ops.boxes", "from singleshot.detectors.ssd import ssd"),
        ("ops.boxes", "def f():\n    import singleshot.anchors"),
        ("anchors", "from singleshot import matchers"),
        ("anchors", "from .matchers import IoUMatcher"),
        ("data.voc", "from ..training import train"),
        ("data.voc", "import singleshot\nsingleshot.open_dataset('.')"),
        ("detectors.ssd", "from singleshot.data.voc import read"),
        ("evaluation.coco", "from singleshot.data import loader"),
        ("training.loop", "from singleshot import ssd"),
        ("inference.predictor", "from singleshot.recipes import get"),
        ("stream", "from singleshot.data.images import read_image"),
        ("evaluation.detect_dataset", "from singleshot.inference.predictor import iterate"),
        ("structures", "from singleshot.data.images import read_image"),
    ],
)
def test_the_rule_catches(module: str, code: str) -> None:
    found = imported(ast.parse(code), module, is_package=False)
    assert wrong(module, found), found


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("detectors.ssd", "from singleshot.ops.boxes import iou\nfrom .detector import Detector\nimport torch"),
        ("data.voc", "from .dataset import Dataset\nfrom singleshot.errors import UserError"),
        ("detectors.detector", "from singleshot.data.images import read_image"),
        ("evaluation.coco", "from singleshot.data import dataset"),
        ("weights.checkpoint", "from singleshot.version import __version__"),
        ("evaluation.detect_dataset", "from singleshot.data.frames import dataset_frames"),
        ("cli.train", "from singleshot.training import train\nfrom singleshot import recipes"),
    ],
)
def test_the_rule_allows(module: str, code: str) -> None:
    assert not wrong(module, imported(ast.parse(code), module, is_package=False))


# ------------------------------------------------------------------------------------------------------------ the page
MAP, ORDER = re.findall(
    r"^```\n(.*?)^```", (PACKAGE.parents[1] / "docs/architecture.md").read_text("utf-8"), re.M | re.S
)
WHOLE = {"data", "detectors", "evaluation", "inference", "training"}  # folders of which the map names each file


def test_the_page_has_this_order() -> None:
    assert [set(layer.split()) for layer in ORDER.split(">")] == LAYERS[1:]


@pytest.mark.parametrize("folder", sorted(WHOLE))
def test_the_map_has_every_file_of_a_folder(folder: str) -> None:
    lines = re.search(rf"^[ \w*]{{10}} {folder}/ .*\n(?:  {{30}}.*\n)*", MAP, re.M)
    assert lines is not None
    assert not missing(lines[0], (path.name for path in (PACKAGE / folder).glob("[a-z]*.py")))


def test_the_map_has_every_module_and_folder() -> None:
    top = {path.relative_to(PACKAGE).parts for path in FILES}
    assert not missing(
        MAP, (parts[0] if len(parts) == 1 else f"{parts[0]}/" for parts in top if parts != ("__main__.py",))
    )


def missing(text: str, names: Iterable[str]) -> list[str]:
    """The names that do not stand in a text."""
    return [name for name in sorted(set(names)) if not re.search(rf"(?<![\w/]){re.escape(name)}", text)]
