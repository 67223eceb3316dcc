"""Which errors are the user's, and the messages for them."""

from __future__ import annotations

import errno
import os
import re

from singleshot.errors import UserError

# What the system refuses, and what the user can do. Other system errors (a worker's broken pipe, for example) are bugs.
_REFUSED = {
    errno.ENOENT: "no such file or folder: check the path",
    errno.EACCES: "no permission: check the owner and the mode, or choose another place",
    errno.EPERM: "not permitted: check the owner and the mode, or choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOSPC: "the disk is full: free some space, or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another place",
    errno.EFBIG: "the file is larger than this disk allows: choose another place",
    errno.EIO: "the disk cannot be read or written: check the disk",
    errno.EISDIR: "this is a folder, but a file is needed: check the path",
    errno.ENOTDIR: "this is a file, but a folder is needed: check the path",
    errno.EEXIST: "exists already: choose another name",
    errno.ENOTEMPTY: "exists already and is not empty: choose another name",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ELOOP: "this link leads back to itself: correct the link",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or use fewer workers",
    errno.ENFILE: "too many open files on this machine: use fewer workers",
    errno.ENODEV: "no such device: check the path",
    errno.ENXIO: "no such device: check the path",
    errno.ENOTSUP: "not supported by this file system: choose another place",
}
_NO_MEMORY = ("Cannot allocate memory", "Insufficient memory")  # the system through any library; OpenCV
_BY_TYPE = {
    "FileNotFoundError": errno.ENOENT,
    "PermissionError": errno.EACCES,
    "IsADirectoryError": errno.EISDIR,
    "NotADirectoryError": errno.ENOTDIR,
    "FileExistsError": errno.EEXIST,
}


def explain(error: BaseException) -> str | None:
    """The message for a user's error; None for a bug of ours.

    The user can correct three kinds of errors: bad input (`UserError`), what the operating system refuses (a full disk,
    a missing file, no permission), and too little memory.
    """
    said = str(error)
    if worker := re.match(r"Caught (\w+) in \w+ worker process", said):
        # The loader passes on a worker's error with the whole traceback as its message. The last line is the error.
        kind, told = worker[1], said.strip().rpartition(f"{worker[1]}: ")[2]
        if kind == "UserError":  # made anew of that message, as one line
            return said.rpartition("UserError: ")[2].replace("\\n", "\n").strip()
        return f"{told} ({_REFUSED[_BY_TYPE[kind]]})" if kind in _BY_TYPE else None
    if isinstance(error, UserError):
        return said
    if isinstance(error, OSError) and error.errno in _REFUSED:
        names = " -> ".join(_name(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{names}: {_REFUSED[error.errno]}" if names else _REFUSED[error.errno]
    if (number := re.search(r"\(os error (\d+)\)", said)) and int(number[1]) in _REFUSED:  # from libraries in Rust
        return f"{said}: {_REFUSED[int(number[1])]}"
    _, of_the_cpu, told = said.partition("DefaultCPUAllocator: ")  # a line of PyTorch's source stands before it
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any((of_the_cpu, *(words in said for words in _NO_MEMORY)))
    ):
        told = (told or said or "no more memory").splitlines()[0]
        return f"{told} There is not enough memory: use a smaller --batch-size or smaller images"
    return None


def _name(path: str | bytes | int) -> str:
    return str(path) if isinstance(path, int) else os.fsdecode(path)
