"""The memory of freed tensors, on the CPU."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_STEP = 64 << 20  # bytes by which the heap grows


def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep memory that it frees; whether that could be arranged (on the CPU, with glibc).

    By default glibc gives every large block back to the system at once and takes it anew for the next tensor, page by
    page, filled with zeros: an activation of some ten megabytes costs three times what its computation does. A training
    step needs the same memory again and again. Nothing is used that the largest step does not need.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    # From the heap, which grows in large steps and is never trimmed.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _STEP))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
