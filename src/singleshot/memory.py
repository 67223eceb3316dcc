"""The memory of freed tensors, on the CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_STEP = 64 << 20  # bytes by which the heap grows


def keep_freed_memory(device: torch.device) -> bool:
    """Let this process keep the memory that it frees. Returns whether this worked (it does on the CPU, with glibc).

    By default glibc returns every large block to the system at once, and asks for it again, page by page, for the next
    tensor. For an activation of some ten megabytes this takes three times as long as its computation. Each step of
    training, and each image that is detected in, needs the same memory again. No more is used than the largest needs.
    """
    return device.type == "cpu" and sys.platform == "linux" and _kept()


@cache
def _kept() -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # the C library musl does not have it
        return False
    # All blocks come from the heap, which grows in large steps and is never trimmed.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _STEP))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
