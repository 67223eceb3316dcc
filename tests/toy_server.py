"""A web server of one small file, which does for each request what a test has planned."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(256)) * 40
SUM = hashlib.sha256(CONTENT).hexdigest()

Act = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the next act of the server's plan; without one it sends the file, or the rest that is asked for."""

    protocol_version = "HTTP/1.0"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        act = self.server.plan.pop(0) if self.server.plan else send()
        act(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """What was asked, and what to do next."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[Act] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Server]:
        """A server at work, until the block ends."""
        with cls() as one:
            threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
            yield one
            one.shutdown()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.asked]


def send(
    content: bytes = CONTENT,
    *,
    first: int | None = None,
    told: int | None = None,
    etag: str | None = '"one"',
    ranges: bool = True,
    **more: str,
) -> Act:
    """Send a file, or its rest. `first`: break off after so many bytes; `told`: the length that is claimed."""

    def act(handler: Handler) -> None:
        begin = 0
        asked = handler.headers.get("Range")
        if ranges and asked and handler.headers.get("If-Range") == etag:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
        body = content[begin:]
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if told != -1:
            handler.send_header("Content-Length", str(len(body) if told is None else told))
        if etag:
            handler.send_header("ETag", etag)
        for key, value in more.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body if first is None else body[:first])

    return act


def status(code: int, **headers: str) -> Act:
    def act(handler: Handler) -> None:
        handler.send_response(code)
        for key, value in headers.items():
            handler.send_header(key.replace("_", "-"), value)
        handler.end_headers()

    return act
