"""The fixed table of builders and named variants: what files, recipes and the command line may name."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from singleshot.detectors.builder_arguments import not_too_large
from singleshot.detectors.detector import Detector
from singleshot.errors import UserError, did_you_mean
from singleshot.signature import bound, check_types

P = ParamSpec("P")
Builder = Callable[..., Detector]

BUILDERS: dict[str, Builder] = {}
"""The builders of this package by name."""


@dataclass(frozen=True)
class Variant:
    """A builder with the arguments of a published or recorded model."""

    builder: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    published: str | None = None  # the paper's figures and their source


DEFAULT_PIXELS = "imagenet_rgb"
"""What a file uses that does not say its pixels, whatever its backbone's weights expect."""

VARIANTS: dict[str, Variant] = {}
"""The named variants, as `singleshot models` lists them."""


def remembers_arguments(build: Callable[P, Detector]) -> Callable[P, Detector]:
    """Let a builder store its name and arguments on the detector, so that the detector can be saved.

    Use it on your own builder: `singleshot.load(path, builder=your_builder)` then rebuilds the detector. The arguments
    are first checked against the builder's signature (`UserError`).
    """

    @functools.wraps(build)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Detector:
        given = bound(build, *args, **kwargs)
        check_types(build, given)
        detector = build(*args, **kwargs)
        # class_names and category_ids are stored separately in a saved file.
        detector.arguments = {
            name: value for name, value in given.items() if name not in ("class_names", "category_ids")
        }
        detector.builder = build.__name__
        return detector

    return wrapped


def register(build: Callable[P, Detector]) -> Callable[P, Detector]:
    """Enter a builder of this package into the table."""
    remembering = remembers_arguments(build)

    @functools.wraps(remembering)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Detector:
        not_too_large(bound(build, *args, **kwargs))  # first: a list of a million may take long in all other checks
        detector = remembering(*args, **kwargs)
        if detector.arguments.get("pixels") is None:
            # A file says which are used, since its reader sees no backbone's weights. Without a word it is this one.
            detector.arguments.pop("pixels", None)
            if (used := detector.preprocess.pixels.choice()) != DEFAULT_PIXELS:
                detector.arguments["pixels"] = used
        return detector

    BUILDERS[build.__name__] = checked
    return checked


def find_builder(name: str) -> Builder:
    """A builder of this package by name, or a user's own by dotted path, `my_lab.models:my_detector`.

    A dotted path imports code: pass only names that the user wrote, never names from a file.
    """
    if name in BUILDERS:
        return BUILDERS[name]
    if name in VARIANTS:
        variant = VARIANTS[name]
        words = [f"arguments.{key} {value}" for key, value in variant.arguments.items()]
        raise UserError(
            f"{name!r} is a variant, not a builder: use the builder {variant.builder} with "
            f"{', '.join(words) or 'its own arguments'}"
        )
    if ":" not in name:
        hint = did_you_mean(name, BUILDERS, otherwise=f"expected one of {', '.join(BUILDERS)}.")
        raise UserError(f"unknown builder {name!r}; {hint} Write your own as 'package.module:function'.")
    module_name, _, attribute = name.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"builder {name!r} cannot be imported: {error}") from error
    if not callable(build):
        raise UserError(f"builder {name!r}: expected a function, got a {type(build).__name__}")
    return build  # type: ignore[no-any-return]


def backbone_of(build: Builder, arguments: Mapping[str, Any]) -> str | None:
    """The name of the backbone that a builder makes of these arguments; None if it has no such argument."""
    if "backbone" in arguments:
        return str(arguments["backbone"])
    # A builder of this package without the argument passes it on to RetinaNet.
    for one in (build, *([BUILDERS["retinanet"]] if build in BUILDERS.values() else [])):
        if (parameter := inspect.signature(one).parameters.get("backbone")) is not None:
            return str(parameter.default)
    return None


def create(name: str, **arguments: Any) -> Detector:
    """Build a named variant (see `singleshot models`), or call a builder by name. Arguments override the variant's."""
    if name in VARIANTS:
        variant = VARIANTS[name]
        return BUILDERS[variant.builder](**{**variant.arguments, **arguments})
    if name in BUILDERS:
        return BUILDERS[name](**arguments)
    known = [*VARIANTS, *BUILDERS]
    hint = did_you_mean(name, known, otherwise=f"expected one of {', '.join(known)}")
    raise UserError(f"unknown detector {name!r}; {hint}")
