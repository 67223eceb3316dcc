"""singleshot.fetch, against a server that breaks off, lies, corrupts, stalls and sends in circles."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_server import CONTENT, SUM, Act, Handler, Server, send, status

from singleshot import fetch as module
from singleshot.errors import UserError
from singleshot.fetch import LARGEST, TRIES, Wanted, fetch

HALF = len(CONTENT) // 2


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server.running() as one:
        yield one


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    running.plan, running.asked = [], []
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "w.pth"


def get(server: Server, path: Path, *, sha256: str = SUM[:8], size: int | None = len(CONTENT), **more: Any) -> bool:
    least, most = (1, LARGEST) if size is None else (size, size)
    return fetch(Wanted(f"{server.address}/w.pth", least, most, sha256), path, own=server.address, **more)


def others(path: Path) -> list[str]:
    """The files beside the fetched one."""
    return sorted(one.name for one in path.parent.iterdir() if one.name != path.name and one.suffix != ".lock")


# ----------------------------------------------------------------------------------------------------------- arrives
def test_a_file_is_fetched_once(server: Server, path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    assert get(server, path, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert not get(server, path)
    assert len(server.asked) == 1
    assert others(path) == []


def test_a_transfer_that_breaks_goes_on(server: Server, path: Path) -> None:
    server.plan = [send(first=HALF), send(first=100)]
    assert get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 100}-"]
    assert server.asked[1][1]["If-Range"] == '"one"'


def test_ctrl_c_keeps_what_is_here(server: Server, path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        get(server, path, progress=stop)
    assert "the same command goes on" in caught.value.__notes__[0]
    assert not path.exists()
    held = path.with_name(".w.pth.part").stat().st_size
    if held == len(CONTENT):  # all of it came at once
        assert get(server, path)
        assert len(server.asked) == 1
    assert get(server, path) is (held != len(CONTENT))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'], ids=["none", "weak"])
def test_without_a_validator_it_begins_anew(etag: str | None, server: Server, path: Path) -> None:
    server.plan = [send(first=HALF, etag=etag)]
    assert get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_date_is_a_validator(server: Server, path: Path) -> None:
    date = "Sat, 28 Nov 2026 15:00:00 GMT"
    server.plan = [send(first=HALF, etag=None, Last_Modified=date)]
    assert get(server, path)
    assert server.asked[1][1]["If-Range"] == date
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "second",
    [
        send(ranges=False),
        status(416),
        send(Content_Range="bytes 7-9/10"),
        status(206),
        status(206, Content_Range=f"bytes {HALF - 1}-9/10"),
    ],
    ids=["ignores ranges", "416", "odd header", "no range", "another range"],
)
def test_a_server_that_cannot_go_on(second: Act, server: Server, path: Path) -> None:
    server.plan = [send(first=HALF), second]
    assert get(server, path)
    assert path.read_bytes() == CONTENT
    assert others(path) == []


def test_the_file_changed_meanwhile(server: Server, path: Path) -> None:
    server.plan = [send(b"x" * len(CONTENT), first=HALF, etag='"old"')]
    assert get(server, path)
    assert path.read_bytes() == CONTENT


def test_pieces_that_do_not_fit_are_fetched_once_more(server: Server, path: Path) -> None:
    server.plan = [send(b"x" * len(CONTENT), first=HALF)]  # the same mark, other bytes
    assert get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_part_of_another_address_is_not_continued(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name(".w.pth.part").write_bytes(b"x" * 10)
    path.with_name(".w.pth.part-of").write_text('https://elsewhere.org/w.pth\n"one"\n')
    assert get(server, path)
    assert server.ranges == [None]
    assert path.read_bytes() == CONTENT


def test_a_damaged_file_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1] + b"x")
    assert get(server, path)
    assert path.read_bytes() == CONTENT


def test_a_file_of_unknown_size(server: Server, path: Path) -> None:
    server.plan = [send(told=-1)]
    assert get(server, path, size=None)
    assert path.read_bytes() == CONTENT


def test_a_server_that_recovers(server: Server, path: Path) -> None:
    server.plan = [status(503), status(500), status(429)]
    assert get(server, path)
    assert len(server.asked) == 4


def test_relative_redirects_are_followed(server: Server, path: Path) -> None:
    server.plan = [status(302, Location="/elsewhere/w.pth")]
    assert get(server, path)
    assert [asked for asked, _ in server.asked] == ["/w.pth", "/elsewhere/w.pth"]


def test_two_at_once_fetch_one_file_once(server: Server, path: Path) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.1)
        send()(handler)

    server.plan = [slowly]
    results: list[bool] = []
    both = [threading.Thread(target=lambda: results.append(get(server, path))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(results) == [False, True]
    assert len(server.asked) == 1


def test_the_proxy_of_the_system_is_asked(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    url = "http://files.invalid/w.pth"
    assert fetch(Wanted(url, sha256=SUM), path, own="http://files.invalid")
    assert [asked for asked, _ in server.asked] == [url]


# --------------------------------------------------------------------------------------------------------- is refused
REFUSED: dict[str, tuple[list[Act], int, str]] = {  # what the server does, how often it is asked, what is said
    "404": ([status(404)], 1, r"the server answers 404 Not Found \(there is no such file\)"),
    "403": ([status(403)], 1, "the server answers 403 Forbidden"),
    "500": ([status(500)] * TRIES, TRIES, f"the server answers 500 Internal Server Error, {TRIES} times in a row"),
    "204": ([status(204)], 1, "status 204"),
    "circle": ([status(302, Location="/w.pth")] * 20, 5, "sends us on in a circle"),
    "nowhere": ([status(302)], 1, "sends us on in a circle, or nowhere"),
    "to http elsewhere": ([status(302, Location="http://localhost:1/w.pth")], 1, "fetched over https alone"),
    "to a file": ([status(302, Location="file:///etc/passwd")], 1, "in a circle, or nowhere"),
    "to ftp": ([status(302, Location="ftp://127.0.0.1/w.pth")], 1, "fetched over https alone"),
    "corrupt": ([send(CONTENT[:-1] + b"x")], 1, "not the published file: its SHA-256 begins with"),
    "shorter": ([send(CONTENT[:-1])], 1, "the server has a file of 10,239 bytes, and 10,240 are expected"),
    "longer": ([send(CONTENT + b"x")], 1, "the server has a file of 10,241 bytes"),
    "longer, unsaid": ([send(CONTENT + b"x", told=-1)], 1, "more than the 10,240 bytes"),
    "shorter, unsaid": ([send(CONTENT[:9], told=-1, ranges=False)] * TRIES, TRIES, "ended after 9 of 10,240 bytes"),
    "always breaks": ([send(first=9, ranges=False)] * TRIES, TRIES, "the connection ended after 9 of 10,240 bytes"),
    "a page": ([send(Content_Type="text/html; charset=utf-8")], 1, "a web page came"),
    "packed": ([send(Content_Encoding="gzip")], 1, r"packs the file \(gzip\)"),
    "no http": ([lambda handler: handler.wfile.write(b"SSH-2.0\r\n")] * TRIES, TRIES, "the connection failed"),
    "hangs up": ([lambda handler: handler.connection.close()] * TRIES, TRIES, "the connection failed"),
}


@pytest.mark.parametrize(("plan", "times", "said"), REFUSED.values(), ids=list(REFUSED))
def test_refused(plan: list[Act], times: int, said: str, server: Server, path: Path) -> None:
    server.plan = list(plan)
    with pytest.raises(UserError, match=said):
        get(server, path)
    assert len(server.asked) == times
    assert not path.exists()


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_a_connection_that_stalls(drips: bool, server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.05)
    over = threading.Event()

    def act(handler: Handler) -> None:
        send(first=100)(handler)
        while drips and not over.wait(0.02):
            handler.wfile.write(b".")
        over.wait(2)

    server.plan = [act] * TRIES
    said = "bytes came in 0 seconds" if drips else "nothing came for 0.05 seconds"
    with pytest.raises(UserError, match=said):
        get(server, path)
    over.set()


def test_no_connection(path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"the connection failed .*, {TRIES} times"):
        fetch(Wanted("http://127.0.0.1:9/w.pth"), path, own="http://127.0.0.1:9")

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"nowhere.invalid: no such address .* lay it at .*w.pth"):
        fetch(Wanted("https://nowhere.invalid/w.pth"), path)


@pytest.mark.parametrize("url", ["http://e.org/w", "file:///etc/passwd", "ftp://e.org/w", "data:,x", "w.pth"])
def test_only_https(url: str, path: Path) -> None:
    with pytest.raises(UserError, match="over https alone"):
        fetch(Wanted(url), path, own="https://e.org")
    assert not path.parent.exists()


def test_a_proxy_that_is_none(path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://")
    with pytest.raises(UserError, match="proxy|connection failed"):
        get(server, path)


# --------------------------------------------------------------------------------------------------------- the disk
def test_too_little_room(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", 2**60)
    with pytest.raises(UserError, match="bytes are free, and .* are needed"):
        get(server, path)
    assert not path.exists()


def test_a_full_disk(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserError, match=r"w.pth: cannot be written \(No space left on device\)"):
            get(server, path)
    assert not path.exists()
    assert get(server, path)


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        get(server, tmp_path / "file" / "w.pth")
