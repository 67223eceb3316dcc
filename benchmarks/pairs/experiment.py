"""The definition of an experiment: arms that differ in one thing, seeds, comparisons, and what a paper claims."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from singleshot import recipes
from singleshot.errors import UserError
from singleshot.multiscale.views import MultiScale
from singleshot.plain_data import from_plain, to_plain
from singleshot.training.recipe import Recipe, override

BASE = Path(__file__).with_name("base.yaml")  # the recipe that every experiment starts from
METRICS = ("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90")


@dataclass(frozen=True)
class Claim:
    """What a paper claims about a difference; figures in AP points. "none": no paper claims anything."""

    direction: Literal["higher", "lower", "same", "none"]
    figure: str = "-"  # the published difference
    source: str = ""
    margin: float = 1.0  # "same" means closer to 0 than this, in AP points


@dataclass(frozen=True)
class Comparison:
    """The difference `arm` - `against` in a metric, between runs of the same seed.

    Each of the two is an arm, or `ARM:VIEW` for a view of it (see `Arm`).
    """

    arm: str
    metric: str
    claim: Claim
    against: str | None = None  # None: the experiment's baseline
    beyond: str | None = None  # a metric: the claim is that `metric` gains more than this one

    @property
    def measured(self) -> str:
        """The name of the quantity in the table."""
        return self.metric if self.beyond is None else f"{self.metric} - {self.beyond}"


# The same network measured differently: with other numbers of its post-processing (see `measure.viewed`), or with
# multi-scale testing.
ArmView = Mapping[str, float | None] | MultiScale


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    changes: Mapping[str, Any] = field(default_factory=dict)  # dotted keys of the recipe
    views: Mapping[str, ArmView] = field(default_factory=dict)  # of the trained network, by name


@dataclass(frozen=True)
class Experiment:
    """Runs that share everything except their arm's changes and the seed. All is fixed before the first run."""

    name: str
    data: str  # a folder inside the data's folder
    settings: Mapping[str, Any]  # dotted keys, on top of base.yaml
    arms: Mapping[str, Arm]
    baseline: str
    comparisons: tuple[Comparison, ...]
    weights: str | None = None  # the backbone's file in the data's folder, for the arms that do not set another
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metrics: tuple[str, ...] = METRICS  # columns of the table

    def __post_init__(self) -> None:
        sides = {self.baseline}
        for comparison in self.comparisons:
            sides |= {comparison.arm, comparison.against or self.baseline}
        known = set(self.arms) | {f"{name}:{view}" for name, arm in self.arms.items() for view in arm.views}
        if sides - known:
            raise ValueError(f"{self.name}: compares {sorted(sides - known)}, but has {sorted(known)}")

    @property
    def runs(self) -> tuple[tuple[str, int], ...]:
        """(arm, seed) in the order of the runs. After each seed the comparison is complete."""
        return tuple((arm, seed) for seed in self.seeds for arm in self.arms)

    def runs_of(
        self, seeds: Collection[int] | None = None, arms: Collection[str] | None = None
    ) -> tuple[tuple[str, int], ...]:
        """The runs of some of the seeds and arms, in the same order; None: of all.

        Raises:
            UserError: a seed or an arm that the experiment does not have.
        """
        for word, asked, known in (("seed", seeds, self.seeds), ("arm", arms, tuple(self.arms))):
            unknown = [str(each) for each in asked or () if each not in known]
            if unknown:
                raise UserError(
                    f"{self.name} has no {word} {', '.join(unknown)}; choose from {', '.join(map(str, known))}"
                )
        return tuple(
            (arm, seed) for arm, seed in self.runs if (seeds is None or seed in seeds) and (arms is None or arm in arms)
        )

    def recipe_of(self, arm: str, seed: int, data: Path | None = None, weights: Path | None = None) -> Recipe:
        """The recipe of one run. Without folders, paths are only names, which is enough to compare settings."""
        changes: dict[str, Any] = {**self.settings, **self.arms[arm].changes, "seed": seed}
        changes["name"] = f"{self.name}-{arm}"
        changes["data.path"] = self.data if data is None else str(data / self.data)
        changes = {"data.split": "train", "data.val_split": "val", **changes}
        if self.weights is not None:
            changes.setdefault("arguments.backbone_weights", self.weights if weights is None else str(weights))
        return override(recipes.load(BASE), changes)

    def settings_of(self, arm: str, seed: int) -> dict[str, Any]:
        """All settings that affect what a run computes and measures: dotted key -> plain value, without paths."""
        views = {
            name: to_plain(view) if isinstance(view, MultiScale) else dict(view)
            for name, view in self.arms[arm].views.items()
        }
        return {**settings_of(self.recipe_of(arm, seed)), "views": json.loads(json.dumps(views))}


# Settings of places and logs, and `start`, which has no effect because every run has a file to start from.
NOT_SETTINGS = ("name", "expected", "data.path", "data.val_path", "data.workers", "log.")


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as dotted key -> plain value; for the backbone's weights the name of the file."""
    tree = to_plain(recipe)
    if tree["arguments"].get("backbone_weights"):
        tree["arguments"]["backbone_weights"] = Path(tree["arguments"]["backbone_weights"]).name
    found = _flat(json.loads(json.dumps(tree)))
    return {key: value for key, value in found.items() if not key.startswith(NOT_SETTINGS) and key != "start"}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        # The builder's arguments are compared one by one, each as a whole.
        if isinstance(value, dict) and value and not prefix.startswith("arguments."):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


# The values of these fields for losses that were recorded before the fields existed.
_FORMER = {"OHEMLoss": {"keep_positives": True, "candidates": 10_000}}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines `key: before -> now` for two settings. A key that one of them lacks has the recipe's default.

    `before` is a record. If one of its losses has new fields since then, they have the values of its behaviour then.
    """
    default = settings_of(Recipe())
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = (_with_defaults(side.get(key, default.get(key)), key) for side in (before, now))
        if isinstance(old, dict):
            old = {**_FORMER.get(old.get("type", ""), {}), **old}
        if old != new:
            found.append(f"{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found


def _with_defaults(value: Any, key: str) -> Any:
    """The same for multi-scale views: a missing field has its default."""
    if key != "views" or not isinstance(value, dict):
        return value
    found = {}
    for name, view in value.items():
        found[name] = view
        if "views" in view:
            with contextlib.suppress(UserError):  # not a valid view any more: the two are compared as they are
                found[name] = json.loads(json.dumps(to_plain(from_plain(MultiScale, view))))
    return found


def get(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """An experiment by name.

    Raises:
        UserError: there is no experiment of this name.
    """
    if name not in experiments:
        raise UserError(f"unknown experiment {name!r}; choose one of {', '.join(experiments)}")
    return experiments[name]
