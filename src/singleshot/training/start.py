"""The detector that a run begins with: what a recipe leaves to a file, where weights come from, what they change."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from singleshot.data.dataset import Dataset
from singleshot.detectors.detector import Detector
from singleshot.detectors.parts import restore_argument, store_argument
from singleshot.detectors.registry import BUILDERS, Builder, find_builder, remembers_arguments
from singleshot.detectors.transfer import transfer
from singleshot.errors import UserError, did_you_mean
from singleshot.training.optimizer import find_trunk, has_first_statistics
from singleshot.training.recipe import Recipe
from singleshot.weights import checkpoint

FEW_IMAGES = 5_000  # from fewer it is said that pretrained weights would help (docs/results.md: of 205 and 500)


def resolve_start(recipe: Recipe) -> tuple[Recipe, Detector | None]:
    """The detector to go on from, if any, and the recipe with what it leaves open filled in (`Recipe.start`).

    Raises:
        UserError: no file where one is needed, a file that cannot be read, backbone weights beside it.
    """
    if recipe.start_from is None:
        if recipe.start == "needed":
            raise UserError(f"{recipe.name} goes on from a trained detector: give its file with --from (start_from)")
        drawn_anew = recipe.builder in BUILDERS and recipe.arguments.get("backbone_weights") is None
        return with_nothing_to_keep(recipe) if drawn_anew else recipe, None
    named = file_builder(recipe.start_from)
    own = find_builder(recipe.builder) if named is None and ":" in recipe.builder else None
    source = checkpoint.load(recipe.start_from, builder=own)
    # The file's own weights count; which backbone weights it once began with does not.
    leave = ("num_classes", "class_names", "category_ids", "backbone_weights")
    builder = named or recipe.builder
    file_arguments = {key: store_argument(value) for key, value in source.arguments.items() if key not in leave}
    if recipe.start == "file":
        return replace(recipe, builder=builder, arguments=file_arguments, defaults={}, start="own"), source
    if recipe.arguments.get("backbone_weights") is not None:
        raise UserError(
            f"weights come from {recipe.start_from} (--from) or from {recipe.arguments['backbone_weights']} "
            "(--backbone-weights): leave one of them out"
        )
    if recipe.builder != builder:
        return recipe, source
    return replace(recipe, arguments={**file_arguments, **recipe.arguments}, defaults={}), source


def with_nothing_to_keep(recipe: Recipe) -> Recipe:
    """The recipe for a backbone that is drawn anew: all of it learns, from the first step, at the full rate."""
    arguments = {key: value for key, value in recipe.arguments.items() if key != "frozen_stages"}
    optimizer = replace(recipe.optimizer, backbone_lr_factor=1.0, freeze_norm_steps=0)
    return replace(recipe, arguments=arguments, optimizer=optimizer)


def file_builder(path: str | Path) -> str | None:
    """The builder of this package that a detector's file names; None: it was made by one of the user's own."""
    name = str(checkpoint.read_metadata(path)["detector"])
    return name if name in BUILDERS else None


def with_explicit(recipe: Recipe, start_from: str, builder: str | None) -> Recipe:
    """A recipe that leaves builder and arguments to the file, made ready for some that the user has chosen himself.

    `builder`: the chosen one, None for none. If it is that of the file, arguments that are set afterwards are all that
    differs from the file's; if it is another, the recipe's own arguments are what the others begin from.
    """
    if recipe.start != "file":
        return recipe
    named = file_builder(start_from)
    if builder is None or builder == named or (named is None and ":" in builder):
        recipe = replace(recipe, builder=named or builder or recipe.builder, arguments={})
    return replace(recipe, start="own")


class Built(NamedTuple):
    """A detector before its first step."""

    detector: Detector
    said: str  # where its weights come from
    fresh: bool  # nobody has trained its backbone yet


def build_detector(recipe: Recipe, data: Dataset, source: Detector | None = None) -> Built:
    """The detector of a recipe for the classes of the data; with `source`, its weights where they fit (`transfer`)."""
    build = find_builder(recipe.builder)
    own = ":" in recipe.builder
    if own and not hasattr(build, "__wrapped__"):
        build = remembers_arguments(build)
    arguments: dict[str, Any] = restore_argument({**_defaults(recipe, build), **recipe.arguments})
    if source is not None:
        arguments.pop("backbone_weights", None)  # all weights come from the source
    if recipe.data.crowd == "ignore" and "ignore_crowd" in inspect.signature(build).parameters:
        arguments.setdefault("ignore_crowd", True)  # the loader passes the regions on; the matcher has to know them
    classes = {"class_names": data.class_names, "category_ids": data.category_ids}
    detector = build(num_classes=len(data.class_names), **classes, **arguments)
    if source is not None:
        moved = transfer(source, detector)
        fits = "" if moved.taken or moved.partly else "; nothing of it fits this detector: all weights are drawn anew"
        trunk = f"{find_trunk(detector)[0]}."
        new, kept = (sum(name.startswith(trunk) for name in names) for names in (moved.new, moved.taken))
        return Built(detector, f"from {recipe.start_from}: {moved.text()}{fits}", fresh=new > kept)
    weights = arguments.get("backbone_weights")
    if weights is not None:  # in a weights file that is passed on, the name says what there is to say
        detector.arguments = {**detector.arguments, "backbone_weights": Path(str(weights)).name}
    if weights:
        return Built(detector, f"backbone weights: {weights}", fresh=False)
    if own and not has_first_statistics(detector):
        return Built(detector, f"the weights that {recipe.builder} gives", fresh=False)
    said = "all weights are drawn anew (no --backbone-weights, no --from), and all of the backbone learns"
    if len(data) < FEW_IMAGES:
        said += f"; from {len(data)} images it would learn far more with ImageNet's (docs/how_to/small_data.md)"
    return Built(detector, said, fresh=True)


def _defaults(recipe: Recipe, build: Builder) -> dict[str, Any]:
    """Those of a recipe's defaults that its builder takes, by its signature.

    Raises:
        UserError: one that neither it nor any builder of this package takes.
    """
    given = {key: value for key, value in recipe.defaults.items() if value is not None}
    parameters = inspect.signature(build).parameters
    known = {key for one in BUILDERS.values() for key in inspect.signature(one).parameters}
    for key in sorted(given.keys() - known - parameters.keys()):
        hint = did_you_mean(key, sorted(known), otherwise="docs/settings.md has those of finetune.")
        raise UserError(f"defaults.{key}: no builder takes an argument of this name; {hint}")
    # A builder of this package passes others on to one that it is a kind of.
    if recipe.builder in BUILDERS and any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return given
    return {key: value for key, value in given.items() if key in parameters}
