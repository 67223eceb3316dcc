"""The detector that a run begins with, and where its weights come from."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from singleshot.backbones import BACKBONES
from singleshot.catalogue import IMAGENET, WITH_WEIGHTS, here, of_backbone, of_detector
from singleshot.data.dataset import Dataset
from singleshot.data.deep import DeepRange
from singleshot.detectors.detector import Detector
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.detectors.registry import BUILDERS, Builder, backbone_of, find_builder, remembers_arguments
from singleshot.detectors.transfer import transfer
from singleshot.errors import UserError, did_you_mean
from singleshot.installed_weights import PACKAGES
from singleshot.training.optimizer import find_trunk, has_first_statistics
from singleshot.training.recipe import FromFile, Recipe

FEW_IMAGES = 5_000  # with fewer images the user is told that pretrained weights help (docs/results.md: 205 and 500)
_MEASURED = (205, 23)  # images, and points of AP that ImageNet's weights gained (docs/results.md: bccd, 23.3)


class Built(NamedTuple):
    """A detector before its first step."""

    detector: Detector
    said: str  # a line that says where its weights come from
    fresh: bool  # its backbone has random weights


def build_detector(recipe: Recipe, data: Dataset, source: Detector | None = None, *, resumed: bool = False) -> Built:
    """The detector of a recipe for the classes of the data. It takes the weights of `source` that fit (`transfer`).

    `resumed`: a state will give all weights. So the file of backbone weights is not read, and may be gone.
    """
    build = named_builder(recipe)
    own = ":" in recipe.builder
    if own and not hasattr(build, "__wrapped__"):
        build = remembers_arguments(build)
    arguments: dict[str, Any] = restore_argument({**_defaults(recipe, build), **recipe.arguments})
    if source is not None:
        arguments.pop("backbone_weights", None)  # all weights come from the source
        _keep_pixels(arguments, build, source)
    if recipe.data.crowd == "ignore" and "ignore_crowd" in inspect.signature(build).parameters:
        arguments.setdefault("ignore_crowd", True)  # the loader passes the regions on; the matcher must know them
    classes = {"class_names": data.class_names, "category_ids": data.category_ids}
    weights = arguments.get("backbone_weights")
    unread = {"backbone_weights": None} if resumed and weights is not None and not own else {}
    detector = build(num_classes=len(data.class_names), **{**classes, **arguments, **unread})
    detector.deep_range = DeepRange.of(recipe.data.deep_range)
    if source is not None:
        moved = transfer(source, detector)
        fits = "" if moved.taken or moved.partly else "; none of its weights fits this detector: all start at random"
        trunk = f"{find_trunk(detector)[0]}."
        new, kept = (sum(name.startswith(trunk) for name in names) for names in (moved.new, moved.taken))
        return Built(detector, f"from {recipe.start_from}: {moved.text()}{fits}", fresh=new > kept)
    if weights is not None:  # the weights file may be shared: it gets the file's name, not its path
        detector.arguments = {**detector.arguments, "backbone_weights": Path(str(weights)).name}
    if weights:
        return Built(detector, f"backbone weights: {weights}", fresh=False)
    if own and not has_first_statistics(detector):
        return Built(detector, f"the weights that {recipe.builder} gives", fresh=False)
    said = "all weights start at random (no --backbone-weights, no --from), and the whole backbone learns"
    if len(data) < FEW_IMAGES:
        said += f"; {_advice(len(data), recipe.builder, backbone_of(build, arguments))}"
    return Built(detector, said, fresh=True)


def _keep_pixels(arguments: dict[str, Any], build: Builder, source: Detector) -> None:
    """Let another builder with the same trunk, which takes its weights, show it the same pixel values."""
    before = BUILDERS.get(source.builder or "")
    if before is None or build not in BUILDERS.values() or arguments.get("pixels") is not None:
        return
    if backbone_of(before, source.arguments) == backbone_of(build, arguments):
        arguments["pixels"] = source.preprocess.pixels.choice()


def with_pixels(recipe: Recipe, detector: Detector) -> Recipe:
    """The recipe with the pixel values that the detector has, so that a resumed run needs no file of weights for it."""
    used = detector.arguments.get("pixels")
    if used is None or recipe.builder not in BUILDERS or recipe.arguments.get("pixels") is not None:
        return recipe
    return replace(recipe, arguments={**recipe.arguments, "pixels": store_argument(used)})


def _advice(images: int, builder: str, backbone: str | None) -> str:
    """What weights would gain, and what to type for them; for a run in which all start at random."""
    number, gain = _MEASURED
    cost = (
        f"with {images} images it would find much more from weights of ImageNet, which gained {gain} points of AP on "
        f"{number} images of cells (docs/how_to/small_data.md): "
    )
    word = f"--backbone-weights {IMAGENET}"
    known = [] if backbone is None else of_backbone(backbone)
    light = [name for name in PACKAGES if name in BACKBONES]  # a package needs no other server than Python's index
    ready = [name for name in light if any(here(one) for one in of_backbone(name))]
    if not known:
        way = "give a file with --backbone-weights"
    elif here(known[0]):
        way = f"the file is here, so give the same command with {word}"
    elif known[0].url is None:
        way = f"`{WITH_WEIGHTS}`, then give the same command with {word}"
    else:
        way = f"give the same command with {word}, which fetches {known[0].about_size}"
        if ready:
            way += f", or with --arguments.backbone {ready[0]} {word}, whose file is here"
        elif light:
            way += f"; or `{WITH_WEIGHTS}`, then with --arguments.backbone {light[0]} {word}"
    if trained := of_detector(builder, backbone):
        best = next((one for one in trained if here(one)), trained[0])
        way += f". On photographs a trained detector may be a better start still: --from {best.name}"
        way += " (its file is here)" if here(best) else f" ({best.about_size})" if best.about_size else ""
    return cost + way


def named_builder(recipe: Recipe) -> Builder:
    """The builder that a recipe names.

    Raises:
        UserError: there is none of this name; or it is the user's own, and only a file names it.
    """
    if isinstance(recipe.builder, FromFile):
        raise UserError(
            f"builder: {recipe.builder!r} is code of your own, and no recipe's file decides which code runs: name it "
            f"yourself too, with --builder {recipe.builder} (in Python train(builder={str(recipe.builder)!r}))"
        )
    return find_builder(recipe.builder)


def _defaults(recipe: Recipe, build: Builder) -> dict[str, Any]:
    """Those of a recipe's defaults that its builder takes, by its signature.

    Raises:
        UserError: a default that neither this builder nor any builder of this package takes.
    """
    given = {key: value for key, value in recipe.defaults.items() if value is not None}
    parameters = inspect.signature(build).parameters
    known = {key for one in BUILDERS.values() for key in inspect.signature(one).parameters}
    for key in sorted(given.keys() - known - parameters.keys()):
        hint = did_you_mean(key, sorted(known), otherwise="docs/settings.md has those of finetune.")
        raise UserError(f"defaults.{key}: no builder has an argument of this name; {hint}")
    # Some builders of this package pass further arguments on to the builder that they are based on.
    if recipe.builder in BUILDERS and any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return given
    return {key: value for key, value in given.items() if key in parameters}
