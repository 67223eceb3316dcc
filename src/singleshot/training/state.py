"""All that a run needs to continue exactly, in one safetensors file: tensors, and JSON in its metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from singleshot.errors import UserError

VERSION = 1


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
    classes: list[str] = field(default_factory=list)  # in the order of the labels
    data: str = ""  # fingerprint of the training data


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore torch's generators to a state from `random_state`."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def pack_state(
    progress: Progress,
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
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(plain, {"version": str(VERSION), "progress": json.dumps(asdict(progress))})


@dataclass(frozen=True)
class SavedState:
    """A state as read from a file."""

    path: Path
    progress: Progress
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> SavedState:
        """Read a state; nothing in it is executed."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if metadata.get("version") != str(VERSION):
                raise UserError(
                    f"{path}: the state has version {metadata.get('version')}, but this program reads version "
                    f"{VERSION}. Continue with the program that wrote it, or start a new run with --from"
                )
            return cls(path, Progress(**json.loads(metadata["progress"])), tensors)
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(
                f"{path}: this file is not the state of a run ({error}). "
                "Start a new run; --from starts it from the weights in this folder"
            ) from None

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
                else:  # the fused optimisers count their steps on the parameter's device
                    state[key] = value.to(parameter.device, copy=True)
            if state:
                optimizer.state[parameter] = state

    def random(self, rank: int) -> dict[str, Tensor]:
        """The random states of one process; empty if fewer processes saved the state."""
        return {
            kind: self.tensors[f"random.{kind}.{rank}"]
            for kind in ("cpu", "cuda")
            if f"random.{kind}.{rank}" in self.tensors
        }

    @torch.no_grad()
    def _fill(self, module: nn.Module, prefix: str) -> None:
        own = module.state_dict()
        saved = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        if own.keys() != saved.keys() or any(own[name].shape != saved[name].shape for name in own):
            raise UserError(
                f"{self.path}: the saved weights do not fit the detector of the recipe. "
                "If recipe.yaml was edited, undo that"
            )
        for name, value in own.items():
            value.copy_(saved[name])


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    ]
