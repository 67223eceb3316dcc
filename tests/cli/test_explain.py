"""Which errors are the user's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from singleshot.cli.explain import explain
from singleshot.errors import UserError


def test_users_and_ours() -> None:
    assert explain(UserError("say this")) == "say this"
    assert explain(ValueError("x")) is None
    assert explain(RuntimeError("shape mismatch")) is None
    assert explain(BrokenPipeError(errno.EPIPE, "Broken pipe")) is None


def test_names_the_file(tmp_path: os.PathLike[str]) -> None:
    missing = os.path.join(tmp_path, "none.txt")
    with pytest.raises(OSError) as caught:
        Path(missing).read_text()
    assert explain(caught.value) == f"{missing}: no such file or folder: check the path"


def test_errors_of_rust_libraries() -> None:
    said = explain(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert said is not None
    assert "the disk is full" in said
    assert explain(RuntimeError("Broken pipe (os error 32)")) is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 20333496 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: ..."),
    ],
)
def test_memory(error: Exception) -> None:
    assert "--batch-size" in (explain(error) or "")


class Broken(Dataset[int]):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("img.jpg: truncated", "as a second line says"), "img.jpg: truncated\nas a second line says"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "img.jpg"), "no such file or folder"),
        (KeyError("a bug"), None),
    ],
)
def test_a_worker_of_the_loader(error: Exception, said: str | None) -> None:
    with pytest.raises(type(error)) as caught:
        list(DataLoader(Broken(error), num_workers=1))
    told = explain(caught.value)
    if said is None:
        assert told is None
    else:
        assert told is not None
        assert said in told
        assert "Traceback" not in told
