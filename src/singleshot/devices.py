"""From the name of a device to one that this machine and this build of PyTorch have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singleshot.errors import UserError, short

if TYPE_CHECKING:
    import torch

METAVAR = "cpu|cuda|cuda:N|mps"
"""What the command line shows."""
_EXPECTED = "expected cpu, cuda, cuda:N (the first is cuda:0) or mps"


def fastest_precision(device: torch.device) -> str:
    """The precision bf16 if the device computes in it in hardware (AMX, AVX512-BF16, CUDA), else fp32."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return "bf16" if any(getattr(torch.cpu, test, bool)() for test in tests) else "fp32"
    return "fp32"


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name: cpu, cuda, cuda:N or mps; "auto" is CUDA if there is one, else the CPU.

    Raises:
        UserError: another name, or a device that is not here. The message says what is.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        raise UserError(f"device {short(name)} is not known; {_EXPECTED}") from None
    if device.type not in ("cpu", "cuda", "mps", "meta"):
        raise UserError(f"device {short(str(device))} is not one that detectors run on; {_EXPECTED}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {str(device)!r}: this machine, or this build of PyTorch, has no CUDA; take cpu")
        if (device.index or 0) >= (count := torch.cuda.device_count()):
            here = "one CUDA device, cuda:0" if count == 1 else f"{count} CUDA devices, cuda:0 to cuda:{count - 1}"
            raise UserError(f"device {str(device)!r}: this machine has {here}")
    if device.type == "mps" and (device.index or not torch.backends.mps.is_available()):
        raise UserError(f"device {str(device)!r}: this machine, or this build of PyTorch, does not have it; take cpu")
    return device
