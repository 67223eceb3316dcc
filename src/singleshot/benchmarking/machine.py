"""The machine that something is measured on: its processor, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "asimddp": "neon_dot",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
"""The instructions of a processor that decide how fast networks run: the kernel's word, and ours."""

_SECONDS = 0.3  # for which a rate is measured
_SIDES = (256, 512, 1024, 2048)  # of the matrices: the first whose product takes long enough to be measured well
_ENOUGH = 0.02  # seconds


@dataclass(frozen=True)
class Machine:
    """What decides the numbers of a measurement."""

    processor: str
    cores: int  # that this process may use
    threads: int  # that compute
    flags: tuple[str, ...]  # of `FLAGS`, those that the processor has
    system: str
    python: str
    torch: str

    def line(self) -> str:
        """For people, in one line."""
        flags = ", ".join(self.flags) or "none of the wide instructions"
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{self.processor}, {cores}, {self.threads} thread{'s' if self.threads > 1 else ''} ({flags})"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def this_machine() -> Machine:
    """The machine that this runs on, with the number of threads that PyTorch computes with now."""
    import torch

    text = _cpuinfo()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor() or platform.machine(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        flags=flags_in(text),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
    )


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def flags_in(text: str) -> tuple[str, ...]:
    """The flags of the first processor of /proc/cpuinfo, in our words."""
    for line in text.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            there = set(words.split())
            return tuple(ours for word, ours in FLAGS.items() if word in there)
    return ()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def matmul_rate(precision: str, device: str = "cpu") -> float | None:
    """Operations a second (a multiply and an add are two) in products of large matrices; None if PyTorch cannot.

    It is the best of several products with PyTorch's present number of threads: what a network could reach at most.
    """
    import torch

    try:
        for side in _SIDES:
            took = _best(_product(precision, side, device), device)
            if took > _ENOUGH:
                break
    except (RuntimeError, AttributeError):  # PyTorch was built without these products, or no longer has them
        return None
    finally:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    return 2.0 * side**3 / took


def _product(precision: str, side: int, device: str) -> Callable[[], object]:
    import torch

    if precision != "int8":
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        return lambda: a @ b
    if device.startswith("cuda"):
        c, d = (torch.randint(-9, 9, (side, side), dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(c, d)
    # On processors PyTorch's quantised linear layer is the fast form (100 times as fast as `_int_mm`).
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they will leave PyTorch one day: then there is no rate for int8
        weight = torch.quantize_per_tensor(torch.randn(side, side), 0.1, 0, torch.qint8)
        pixels = torch.quantize_per_tensor(torch.randn(side, side), 0.1, 128, torch.quint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return lambda: torch.ops.quantized.linear(pixels, packed, 0.1, 128)


def _best(product: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of several calls."""
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else None
    best, turn, end = float("inf"), 0, time.perf_counter() + _SECONDS
    with torch.inference_mode():
        while turn < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            product()
            if wait is not None:
                wait()
            if turn:  # the first one prepares
                best = min(best, time.perf_counter() - start)
            turn += 1
    return best
