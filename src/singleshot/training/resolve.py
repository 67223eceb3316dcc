"""One final recipe, made from flags, recipe, the file of `--from` and the run that continues.

`resolve` says what counts most. Nothing else in this package changes a recipe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from singleshot.catalogue import DEFAULT_PIXELS, is_name, named_backbone, named_detector, obtain
from singleshot.detectors.detector import Detector
from singleshot.detectors.parts import store_argument
from singleshot.detectors.registry import BUILDERS, backbone_of
from singleshot.devices import find_device
from singleshot.engines import refuse_exported
from singleshot.errors import UserError
from singleshot.paths import to_path
from singleshot.training import tracking
from singleshot.training.folder import RunFolder
from singleshot.training.recipe import FromFile, Recipe, from_yaml, override
from singleshot.training.resume import Stopped, check_changes, differences
from singleshot.training.setup import choose_precision
from singleshot.training.start import named_builder
from singleshot.training.values import check_values
from singleshot.weights import checkpoint
from singleshot.weights.published import detector_file


@dataclass(frozen=True)
class Resolved:
    """What is known before the data is opened."""

    recipe: Recipe  # final, except for what depends on the built detector (see `final`)
    source: Detector | None = None  # the detector that a new run takes its weights from
    stopped: Stopped | None = None  # the run that continues
    notes: list[str] = field(default_factory=list)  # what the user should know about the recipe

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that are already known, in the order that counts; empty: they come from the data."""
        if self.stopped is not None:
            return tuple(self.stopped.state.progress.classes)
        return self.source.class_names if self.source is not None else ()

    def final(self, *, fresh: bool) -> Recipe:
        """The recipe of the run. `fresh`: the backbone of the built detector has random weights."""
        if self.stopped is not None or not fresh:
            return self.recipe
        return replace(self.recipe, optimizer=with_nothing_to_keep(self.recipe).optimizer)


def resolve(
    recipe: Recipe | None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    from_checkpoint: str | Path | None = None,
    skip_bad: bool = False,
    device: str | None = None,
    builder: str | None = None,
) -> Resolved:
    """The recipe of a run. The arguments are those of `train`.

    The other arguments count most, then `recipe`. What is still missing comes from the file of `start_from` or, when a
    run continues, from that run.

    Raises:
        UserError: a value out of range, a file that cannot be read, a change that a continued run does not allow.
    """
    stopped, out = None if resume is None else Stopped.read(resume), None if out is None else to_path(out)
    if stopped is not None and out is not None and os.path.realpath(out) != os.path.realpath(stopped.folder.path):
        raise UserError(f"--resume {resume} continues in that folder: leave out --out")
    recipe = recipe or (Recipe() if stopped is None else from_yaml(stopped.folder.recipe))
    asked = replace(
        recipe,
        builder=recipe.builder if builder is None else builder,
        data=replace(
            recipe.data,
            path=recipe.data.path if data is None else str(data),
            skip_bad=skip_bad or recipe.data.skip_bad,
        ),
        start_from=recipe.start_from if from_checkpoint is None else str(from_checkpoint),
        compute=replace(recipe.compute, device=recipe.compute.device if device is None else device),
    )
    check_values(asked)
    tracking.require(asked.log.trackers)
    if stopped is None and out is not None:
        RunFolder.must_be_new(out)  # early: before the user waits for the check of the data
    where = find_device(asked.compute.device)
    asked = absolute_paths(asked)

    source, notes = None, list[str]()
    if stopped is None:
        found, source = resolve_start(asked)
    else:
        found, notes = resolve_resumed(stopped.recipe, asked)
    precision = choose_precision(found.compute.precision, where)
    final = override(found, {"compute.precision": precision})
    if stopped is not None:
        notes += check_changes(stopped.recipe, final, stopped.folder)
    return Resolved(final, source, stopped, notes)


# --------------------------------------------------------------------------------------------------- the command line
def resume_with(resume: str | Path, named: Recipe | None, *, file: bool) -> Recipe:
    """The recipe that a command line asks for when a run continues: the run's own, or the one given by `--recipe`.

    `file`: whether `named` comes from a file. The file may have changed since the run began, so it is compared.
    """
    own = RunFolder.existing(resume).recipe
    recipe = from_yaml(own)
    check_values(recipe, own)
    if named is None:
        return recipe
    if named.name != recipe.name:
        raise UserError(f"--resume {resume} continues the recipe {recipe.name!r}; start a new run for {named.name!r}")
    if not file:
        return recipe
    return replace(named, data=recipe.data if named.data.path is None else named.data)


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with fields set by dotted keys (`override`). A published detector in `start_from` becomes its file.

    A recipe may leave builder and arguments to a file. If some are set here, these count; the others stay those of the
    file.
    """
    start = changes.get("start_from", recipe.start_from)
    if start is not None and is_name(start):
        others = {key: value for key, value in changes.items() if key != "start_from"}
        start = _named_start(replace(override(recipe, others), start_from=start))
        changes = {**others, "start_from": start}
    if start is not None and any(key == "builder" or key.startswith("arguments") for key in changes):
        recipe = _with_explicit(recipe, start, changes.get("builder"))
    return override(recipe, changes)


def _named_start(recipe: Recipe) -> str:
    """The file for the name of a published detector in `start_from`."""
    given = str(recipe.start_from)
    weights = named_detector(given, recipe.builder, backbone_of(named_builder(recipe), recipe.arguments))
    return str(detector_file(weights, may_fetch=not isinstance(recipe.start_from, FromFile)))


def _with_explicit(recipe: Recipe, start_from: str, builder: str | None) -> Recipe:
    """Prepare a recipe that leaves builder and arguments to the file for those that the user sets.

    `builder`: the one that the user chose, or None. If it is the file's builder, all arguments come from the file
    except those that are set afterwards. If it is another one, the recipe's own arguments are the starting point.
    """
    if recipe.start != "file":
        return recipe
    named = _file_builder(start_from)
    if builder is None or builder == named or (named is None and ":" in builder):
        recipe = replace(recipe, builder=named or builder or recipe.builder, arguments={})
    return replace(recipe, start="own")


# ------------------------------------------------------------------------------------------------------- what is open
def absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that it means the same from another folder.

    Names of published weights become the paths of their files, which are fetched if they are not here. A name that
    stands in a recipe's file fetches nothing (`FromFile`).
    """

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(to_path(os.path.expanduser(path)).absolute())

    arguments = dict(recipe.arguments)
    given = arguments.get("backbone_weights")
    if isinstance(given, str) and is_name(given):
        if (backbone := backbone_of(named_builder(recipe), recipe.arguments)) is None:
            raise UserError(
                f"backbone_weights: {given} says no file, since {recipe.builder} has no argument backbone: give a file "
                "(`singleshot download` lists what can be fetched)"
            )
        named = named_backbone(given, backbone)
        arguments["backbone_weights"] = str(obtain(named, may_fetch=not isinstance(given, FromFile)))
        if named.pixels != DEFAULT_PIXELS:
            arguments.setdefault("pixels", store_argument(named.pixels))
    elif isinstance(given, str):
        arguments["backbone_weights"] = absolute(given)
    named_start = recipe.start_from is not None and is_name(recipe.start_from)
    start_from = _named_start(recipe) if named_start else absolute(recipe.start_from)
    data = replace(recipe.data, path=absolute(recipe.data.path), val_path=absolute(recipe.data.val_path))
    return replace(recipe, arguments=arguments, start_from=start_from, data=data)


def resolve_start(recipe: Recipe) -> tuple[Recipe, Detector | None]:
    """The recipe with its open fields filled in (`Recipe.start`), and the detector to start from, if any.

    Raises:
        UserError: a needed file is missing, the file cannot be read, or backbone weights are given beside it.
    """
    if recipe.start_from is None:
        if recipe.start == "needed":
            raise UserError(
                f"the recipe {recipe.name} starts from a trained detector: give its file with --from (start_from)"
            )
        at_random = recipe.builder in BUILDERS and recipe.arguments.get("backbone_weights") is None
        return with_nothing_to_keep(recipe) if at_random else recipe, None
    refuse_exported(recipe.start_from, wanted="training from a model")
    named = _file_builder(recipe.start_from)
    own = named_builder(recipe) if named is None and ":" in recipe.builder else None
    source = checkpoint.load(recipe.start_from, builder=own)
    if source.deep_range is not None and not recipe.data.deep_range:
        recipe = replace(recipe, data=replace(recipe.data, deep_range=tuple(source.deep_range.to_json())))
    # The file's own weights count, not the backbone weights that its training once started from.
    leave = ("num_classes", "class_names", "category_ids", "backbone_weights")
    builder = named or recipe.builder
    file_arguments = {key: store_argument(value) for key, value in source.arguments.items() if key not in leave}
    if recipe.start == "file":
        return replace(recipe, builder=builder, arguments=file_arguments, defaults={}, start="own"), source
    if recipe.arguments.get("backbone_weights") is not None:
        raise UserError(
            f"weights come either from {recipe.start_from} (--from) or from {recipe.arguments['backbone_weights']} "
            "(--backbone-weights), not from both: leave one of them out"
        )
    if recipe.builder != builder:
        return recipe, source
    return replace(recipe, arguments={**file_arguments, **recipe.arguments}, defaults={}), source


def resolve_resumed(before: Recipe, now: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with its open fields as the run first settled them, and notes about settings without effect.

    Open fields are the precision, the pixel values, the architecture of `start_from`, and settings that protect
    pretrained backbone weights when the backbone started from random ones.
    """
    if "pixels" in before.arguments and now.arguments.get("pixels") is None:
        now = replace(now, arguments={**now.arguments, "pixels": before.arguments["pixels"]})
    if now.compute.precision == "auto":
        now = replace(now, compute=replace(now.compute, precision=before.compute.precision))
    if now.start_from is not None and now.start_from == before.start_from:
        agrees = now.builder == before.builder and {**before.arguments, **now.arguments} == before.arguments
        if agrees or now.start == "file":
            now = replace(
                now,
                builder=now.builder if now.builder == before.builder else before.builder,  # `FromFile` or not
                arguments=before.arguments,
                defaults=before.defaults and now.defaults,  # empty if the file describes the network
                start=before.start,
            )
    fresh = with_nothing_to_keep(now)
    settled = replace(
        now,
        optimizer=before.optimizer if before.optimizer == fresh.optimizer else now.optimizer,
        arguments=before.arguments if before.arguments == fresh.arguments else now.arguments,
    )
    without = ", ".join(line for _, line in differences(now, settled))
    return settled, [
        f"the backbone started from random weights, so there is nothing to protect; without effect: {without}"
    ] if without else []


def with_nothing_to_keep(recipe: Recipe) -> Recipe:
    """The recipe for a backbone with random weights: all its layers learn, from the first step, at the full rate."""
    arguments = {key: value for key, value in recipe.arguments.items() if key != "frozen_stages"}
    optimizer = replace(recipe.optimizer, backbone_lr_factor=1.0, freeze_norm_steps=0)
    return replace(recipe, arguments=arguments, optimizer=optimizer)


def _file_builder(path: str | Path) -> str | None:
    """The builder of this package that a detector's file names; None: a builder of the user's own made it."""
    name = str(checkpoint.read_metadata(path)["detector"])
    return name if name in BUILDERS else None
