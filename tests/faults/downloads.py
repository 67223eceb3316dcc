"""Answers of a web server whose bytes were changed, cut and repeated. The file arrives as published, or is refused."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from faults.answers import answer
from faults.kinds import Case, Kind
from faults.trees import damage_text

from singleshot import fetch as module
from singleshot.fetch import Wanted, fetch

CONTENT = bytes(random.Random(0).choices(b"abc", k=3000))
WORDS = (
    "HTTP/1.1 ", "200 OK", "206 Partial Content", "302 Found", "416 No", "503 Busy", "204 None", "304 Same", "401 Who",
    "407 Proxy", "\r\n", "\r\n\r\n", "Content-Length: ", "Content-Range: bytes ", "Transfer-Encoding: chunked\r\n",
    "Content-Encoding: gzip\r\n", "Location: ", "/w.pth", "http://localhost/", "https://127.0.0.1:1/", "//", "ETag: ",
    '"x"', 'W/"x"', "Connection: keep-alive\r\n", "-1", "0", "3000", "2999", "99999999999999999999", "*", "\0", "é",
    "ffff\r\n",
)  # fmt: skip


def make(rng: np.random.Generator, number: int) -> Case:
    """Which answers come: `None` is a right one. The last ones of the plan are right in half of the cases."""
    chance = random.Random(int(rng.integers(2**62)))
    plan = [None if chance.random() < 0.2 else chance.randrange(2**32) for _ in range(chance.randrange(1, 7))]
    known = chance.choice(("size and sum", "sum", "digits", "size", "nothing"))
    return Case(f"{len(plan)} answers, published: {known}", plan=(plan, known, chance.random() < 0.5))


def _right(request: str) -> bytes:
    """The file, or the rest that is asked for."""
    asked = re.search(r"^Range: bytes=(\d+)-", request, re.MULTILINE)
    begin = int(asked[1]) if asked and '"x"' in request else 0
    head = "HTTP/1.1 200 OK\r\n"
    if begin:
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {begin}-2999/3000\r\n"
    return f'{head}Content-Length: {3000 - begin}\r\nETag: "x"\r\nConnection: close\r\n\r\n'.encode() + CONTENT[begin:]


def _changed(good: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    if chance.random() < 0.3:
        return good[: chance.randrange(len(good))]
    head, _, body = good.partition(b"\r\n\r\n")
    _, head = damage_text(chance, head.decode("latin-1"), WORDS)
    if chance.random() < 0.3:
        _, body = damage_text(chance, body.decode("latin-1"), WORDS)
    return head + b"\r\n\r\n" + body


def _serve(server: socket.socket, plan: list[int | None]) -> None:
    """Answer until the server is shut down."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.settimeout(1)
            request = connection.recv(65536).decode("latin-1")
            seed = plan.pop(0) if plan else None
            connection.sendall(_right(request) if seed is None else _changed(_right(request), seed))


def check(case: Case, shared: Any, folder: Path) -> None:
    """Never another file than the published one, where anything of it is published."""
    plan, known, ends_well = case.plan
    module._PAUSE, module.SILENCE = 0.0, 0.3
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = [*plan] if ends_well else [*plan, *plan, *plan]
        serving = threading.Thread(target=_serve, args=(server, answers), daemon=True)
        serving.start()
        own = f"http://127.0.0.1:{server.getsockname()[1]}"
        least, most = (3000, 3000) if "size" in known else (1, 10_000)
        total = hashlib.sha256(CONTENT).hexdigest()
        sha256 = {"digits": total[:8], "size": "", "nothing": ""}.get(known, total)
        path = folder / "w.pth"
        for _ in range(2):  # the second time over what the first one left
            fetched = answer(lambda: fetch(Wanted(f"{own}/w.pth", least, most, sha256), path, own=own))
            assert (fetched is None) == (not path.exists())
        server.shutdown(socket.SHUT_RDWR)
        serving.join()
    held = path.read_bytes() if path.exists() else CONTENT
    assert held == CONTENT or not sha256, "another file than the published one"
    assert least <= len(held) <= most, "another size than the published one"


KIND = Kind("a web server's answers are changed", make, check, cases=3000, fast=10, seconds=20)
