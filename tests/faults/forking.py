"""Runs a function in a forked process, which may hang or be killed without harm to the test."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

LONG = 60  # seconds: far more than any of this takes


def in_child(function: Callable[[], Any], seconds: float = LONG) -> Any:
    """What the function gives in a forked process, as JSON; its exception as a text. A process that hangs is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = function()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "wb") as file:
            file.write(json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    status = None
    try:
        with os.fdopen(reader, "rb") as file:
            assert select.select([file], [], [], seconds)[0], "the forked process hangs"
            content = file.read()
        if not content:
            status = os.waitpid(child, 0)[1]
            raise AssertionError(f"the forked process was ended by {signal.Signals(os.WTERMSIG(status)).name}")
        return json.loads(content)
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
