"""All that a run needs to continue exactly, in one safetensors file: tensors, and JSON in its metadata."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from singleshot.errors import UserError, short, some
from singleshot.plain_data import from_plain
from singleshot.tensor_files import ChecksumError, broken, may_be_infinite, packed, unpacked
from singleshot.training.made_by import MadeBy

VERSION = 1

_ADVICE = "Start a new run; --from starts it from the weights in this folder"


@dataclass
class Progress:
    """How far a run is: plain numbers, saved in the state as JSON."""

    step: int = 0  # optimiser steps done
    total: int = 0  # steps of the whole run
    validated: int = 0  # the step after which the last validation was made
    best: float | None = None  # the best value of the recipe's metric
    best_step: int | None = None
    stale: int = 0  # validations since the best one
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last validation
    sums: dict[str, float] = field(default_factory=dict)  # losses since the last line of the log
    summed: int = 0  # steps in `sums`
    finished: bool = False
    classes: tuple[str, ...] = ()  # in the order of the labels
    data: str = ""  # fingerprint of the training data
    # Of a run by the clock; in another run they stay 0, so that a state says nothing about the speed of the machine.
    seconds: float = 0.0  # that are used
    validating: float = 0.0  # of these, in validations
    validation_seconds: float = 0.0  # of the last validation
    validated_share: float = 0.0  # of the time, at the end of the last validation


_LATER = ("seconds", "validating", "validation_seconds", "validated_share")  # not in states of older programs


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore torch's generators to a state from `random_state`. Raises `UserError` if it is none."""
    try:
        if "cpu" in state:
            torch.set_rng_state(state["cpu"])
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)
        elif device.type == "mps" and "mps" in state:
            torch.mps.set_rng_state(state["mps"])
    except (RuntimeError, TypeError) as error:
        raise UserError(f"the saved state of the random numbers is damaged ({error}); start a new run") from None


def pack_state(
    progress: Progress,
    made_by: MadeBy,
    detector: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None,
    random: list[dict[str, Tensor]],
) -> bytes:
    """The state as the bytes of a safetensors file. `random` has the random states of each process."""
    tensors = {f"model.{name}": value for name, value in detector.state_dict().items()}
    if average is not None:
        tensors.update({f"average.{name}": value for name, value in average.state_dict().items()})
    for name, parameter in _named(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    for rank, state in enumerate(random):
        tensors.update({f"random.{kind}.{rank}": value for kind, value in state.items()})
    text = {"progress": json.dumps(asdict(progress)), "made_by": json.dumps(asdict(made_by))}
    return packed(tensors, {"version": str(VERSION), **text})


@dataclass(frozen=True)
class SavedState:
    """A state as read from a file."""

    path: Path
    progress: Progress
    tensors: dict[str, Tensor]
    made_by: MadeBy = field(default_factory=MadeBy)
    stamp: tuple[int, ...] = ()  # of the file (`stamp`)

    @classmethod
    def read(cls, path: Path) -> SavedState:
        """Read a state; nothing in it is executed.

        Raises:
            UserError: the file is not a state, or what it says about the run cannot be.
        """
        try:
            stamp = file_stamp(path)
            tensors, metadata = unpacked(path.read_bytes(), "")
        except ChecksumError:
            raise UserError(
                f"{path}: the saved state is damaged: the file has changed since the run wrote it. {_ADVICE}"
            ) from None
        except (OSError, UserError) as error:
            raise _no_state(path, str(error.__cause__ or error)) from None  # the cause: why it is no safetensors file
        if metadata.get("version") != str(VERSION):
            raise UserError(
                f"{path}: the state has version {short(metadata.get('version'))}, but this program reads version "
                f"{VERSION}. Continue with the program that wrote it, or start a new run with --from"
            )
        tree = _document(path, metadata, "progress")
        if missing := [one.name for one in fields(Progress) if one.name not in {*tree, *_LATER}]:
            raise _no_state(path, f"progress says nothing about {some(missing)}")
        progress = from_plain(Progress, tree, where=str(path), path="progress.")
        made_by = MadeBy()
        if "made_by" in metadata:  # not in states of older programs
            made_by = from_plain(MadeBy, _document(path, metadata, "made_by"), where=str(path), path="made_by.")
        _check_progress(path, progress)
        return cls(path, progress, tensors, made_by, stamp)

    @property
    def processes(self) -> int:
        """How many processes trained together when the state was saved."""
        return sum(name.startswith("random.cpu.") for name in self.tensors)

    def restore(
        self,
        detector: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None,
    ) -> None:
        """Fill weights, average and optimiser with the saved values."""
        self._fill(detector, "model.")
        if average is not None:
            self._fill(average, "average.")
        for name, parameter in _named(optimizer):
            state: dict[str, Any] = {}
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
                value = self.tensors.get(f"optimizer.{key}.{name}")
                if value is None:
                    continue
                if value.shape == parameter.shape and key != "step":
                    # With the parameter's strides, as the optimiser creates it: the arithmetic is then bit-identical.
                    state[key] = torch.empty_like(parameter).copy_(value)
                elif key != "step" or value.numel() != 1:
                    raise self._no_fit(f"optimizer.{key}.{name} has the shape {tuple(value.shape)}")
                else:  # the fused optimisers count their steps on the parameter's device
                    state[key] = value.to(parameter.device, copy=True)
            if state:
                optimizer.state[parameter] = state

    def random(self, rank: int) -> dict[str, Tensor]:
        """The random states of one process; empty if fewer processes saved the state."""
        return {
            kind: self.tensors[f"random.{kind}.{rank}"]
            for kind in ("cpu", "cuda", "mps")
            if f"random.{kind}.{rank}" in self.tensors
        }

    @torch.no_grad()
    def _fill(self, module: nn.Module, prefix: str) -> None:
        own = module.state_dict()
        saved = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        if different := sorted(own.keys() ^ saved.keys()):
            raise self._no_fit(some(different, "names that only one of them has", one="name that only one of them has"))
        if wrong := broken(saved, may_be_infinite(module)):
            raise self._no_fit(f"{prefix}{wrong[0]} has numbers that are NaN or infinite")
        for name, value in own.items():
            if value.shape != saved[name].shape:
                raise self._no_fit(f"{prefix}{name} has the shape {tuple(saved[name].shape)}")
            value.copy_(saved[name])

    def _no_fit(self, why: str) -> UserError:
        return UserError(
            f"{self.path}: the saved weights do not fit the detector of the recipe: {why}. If recipe.yaml or the "
            "code of the builder was changed, undo that"
        )


def file_stamp(path: Path) -> tuple[int, ...]:
    """Tells whether a file was replaced since."""
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _document(path: Path, metadata: dict[str, str], name: str) -> dict[str, Any]:
    try:
        tree = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError) as error:
        raise _no_state(path, f"no {name}: {error}") from None
    if not isinstance(tree, dict):
        raise _no_state(path, f"{name} is {short(tree)}, not a mapping")
    return tree


def _check_progress(path: Path, progress: Progress) -> None:
    """Refuse numbers that no run can have."""
    step, total, best = progress.step, progress.total, progress.best_step
    rules = (
        ("total", total, 1 <= total < 2**53, "1 or more"),
        ("step", step, 0 <= step <= total, f"0 to {total}, the steps of the whole run"),
        ("validated", progress.validated, 0 <= progress.validated <= step, f"0 to {step}, the steps done"),
        ("best_step", best, best is None or 0 <= best <= step, f"0 to {step}, the steps done"),
        ("best", progress.best, progress.best is None or math.isfinite(progress.best), "a number"),
        ("stale", progress.stale, 0 <= progress.stale <= step, f"0 to {step}, the steps done"),
        ("summed", progress.summed, 0 <= progress.summed <= step, f"0 to {step}, the steps done"),
        ("sums", progress.sums, all(map(_is_number, progress.sums.values())), "a number for each loss"),
        *(
            (name, value, math.isfinite(value) and value >= 0, "0 or more")
            for name, value in ((name, getattr(progress, name)) for name in _LATER)
        ),
        ("classes", progress.classes, len(set(progress.classes)) == len(progress.classes) > 0, "different names"),
    )
    for name, value, right, expected in rules:
        if not right:
            raise _no_state(path, f"progress.{name} is {short(value)}; expected {expected}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _no_state(path: Path, why: str) -> UserError:
    return UserError(f"{path}: this file is not the state of a run, or it is damaged ({why}). {_ADVICE}")


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    ]
