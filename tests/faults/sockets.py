"""A process without internet sockets: the kernel ends it when it, or a library in C or Rust, asks for one."""

from __future__ import annotations

import ctypes
import platform
import socket
import struct

# The number of the system call `socket`.
SOCKET = {"x86_64": 41, "aarch64": 198}.get(platform.machine())


def forbid_sockets() -> None:
    """From now on the kernel kills this process when it, or a library in C or Rust, asks for an internet socket."""
    load, equal, end = 0x20, 0x15, 0x06  # of a word, compared with a constant, with a verdict
    rules = [
        (load, 0, 0, 0),  # the number of the system call
        (equal, 0, 4, SOCKET),
        (load, 0, 0, 16),  # its first argument, the family
        (equal, 1, 0, socket.AF_INET),
        (equal, 0, 1, socket.AF_INET6),
        (end, 0, 0, 0x80000000),  # kill
        (end, 0, 0, 0x7FFF0000),  # allow
    ]
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    text = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]

    program = Program(len(rules), ctypes.addressof(text))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(38, 1, 0, 0, 0) or library.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter")
