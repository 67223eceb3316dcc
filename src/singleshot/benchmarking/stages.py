"""Into which parts the time of a call goes: the layers of a detector of PyTorch, or the one graph of an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from singleshot.necks import ExtraLevels

if TYPE_CHECKING:
    from torch import nn

LAYERS = ("read", "base network", "added layers", "heads", "post-processing")
"""The parts of a detector of PyTorch: `read` is all before the network (file, size, pixels as numbers)."""
GRAPH = ("read", "graph", "rest")
"""The parts of an engine's graph, in which the post-processing is: `rest` is the way back to the image's own pixels."""


class Stages(Protocol):
    """How calls of one model are divided."""

    def divided(self, call: Callable[[], object]) -> dict[str, float]:
        """Do a call, and give the seconds of each part. Their sum is the time of the whole call."""


class LayerStages:
    """Hooks on the parts of a detector note when each of them begins and ends."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self._cuda = detector.device.type == "cuda"

    def divided(self, call: Callable[[], object]) -> dict[str, float]:
        """Do a call, and give the seconds of each part."""
        clock = _Clock(self._now)
        with clock.hooks(self._parts()):
            start = self._now()
            call()
            end = self._now()
        if clock.first is None:  # the network was replaced as a whole (a compiled one): its layers cannot be told apart
            return {"network and all": end - start}
        network = {name: clock.took.get(name, 0.0) for name in LAYERS[1:4]}
        read = clock.first - start
        return {"read": read, **network, "post-processing": end - start - read - sum(network.values())}

    def _parts(self) -> list[tuple[nn.Module, str]]:
        parts = _modules(self._detector)
        found = [(parts["neck"], "added layers"), (parts["head"], "heads")]
        if parts.get("refiner") is not None:
            found.append((parts["refiner"], "heads"))
        backbone = parts["backbone"]
        if isinstance(backbone, ExtraLevels):  # SSD's added layers stand on the base network
            return [*found, (backbone, "added layers"), (backbone.backbone, "base network")]
        return [*found, (backbone, "base network")]

    def _now(self) -> float:
        if self._cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


class _Clock:
    """What each part takes by itself: while a part of it runs, its own time stands still."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._running: list[str] = []
        self._since = 0.0
        self.took: dict[str, float] = {}
        self.first: float | None = None  # when the first part began

    @contextmanager
    def hooks(self, parts: list[tuple[nn.Module, str]]) -> Iterator[None]:
        """Let every call of a part go by the clock."""
        handles = []
        for part, name in parts:

            def begin(*_: Any, name: str = name) -> None:
                self._pass()
                self._running.append(name)

            def end(*_: Any) -> None:
                self._pass()
                self._running.pop()

            handles += [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _pass(self) -> None:
        now = self._now()
        if self._running:
            self.took[self._running[-1]] = self.took.get(self._running[-1], 0.0) + now - self._since
        if self.first is None:
            self.first = now
        self._since = now


def _modules(detector: Any) -> Mapping[str, Any]:
    """The parts of a detector that compute when it detects: those of its faster form, if it has one."""
    parts = getattr(getattr(detector.evaluator(), "network", None), "parts", None)
    if parts is not None:
        return dict(parts.items())
    return {name: getattr(detector, name) for name in ("backbone", "neck", "head", "refiner")}


class GraphStages:
    """The engine's function is wrapped: all before it is `read`, all after it is `rest`."""

    def __init__(self, model: Any) -> None:
        self._took: list[tuple[float, float]] = []
        run = model.run

        def timed(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*given, **named)
            finally:
                self._took.append((start, time.perf_counter()))

        model.run = timed

    def divided(self, call: Callable[[], object]) -> dict[str, float]:
        """Do a call, and give the seconds of each part."""
        self._took.clear()
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        inside = sum(after - before for before, after in self._took)
        read = self._took[0][0] - start
        return {"read": read, "graph": inside, "rest": end - start - read - inside}
