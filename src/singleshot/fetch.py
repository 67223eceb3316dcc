"""Fetch one file over the network, because a user named it: resumed after a break, checked, then put in its place.

This is the only module that opens a connection.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from singleshot.errors import UserError, shown
from singleshot.terminal import say
from singleshot.version import __version__

LARGEST = 2 * 1024**3
"""The most bytes of a file whose size nobody has published."""
TRIES = 5
"""So many failures in a row end a transfer. A try that brings `ENOUGH` bytes starts the count anew."""
ENOUGH = 1024**2
SILENCE = 30.0
"""Seconds without a byte after which a connection counts as broken."""
SLOWEST = 1024
"""Bytes a second. Less than this over `SILENCE` seconds counts as broken too."""
SPARE = 64 * 1024**2
"""Bytes that a file must leave free on the disk."""
_PAUSE = 0.5  # seconds before the second try; each further one waits twice as long
_LONGEST_PAUSE = 8.0
_CHUNK = 256 * 1024
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # what a server answers when a later try may succeed

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Wanted:
    """A file, and what its publisher says of it."""

    url: str
    least: int = 1  # bytes: a published size may be rounded
    most: int = LARGEST
    sha256: str = ""  # in hexadecimal: all 64 digits, or those that are published; "": none

    def problem(self, path: Path) -> str | None:
        """What is wrong with a file that should be this one; None if nothing is. Reads all of it.

        Raises the `OSError` of a file that cannot be read.
        """
        size = path.stat().st_size
        if not self.least <= size <= self.most:
            return f"it has {size:,} bytes, and {self.size} were published"
        if not self.sha256:
            return None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found.startswith(self.sha256):
            return None
        return f"its SHA-256 begins with {found[: len(self.sha256)][:16]}, published is {self.sha256[:16]}"

    @property
    def size(self) -> str:
        """The published size in words."""
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


def fetch(wanted: Wanted, path: Path, *, own: str = "", progress: Progress | None = None) -> bool:
    """Fetch a file, unless it is there already. Returns whether anything was fetched.

    What has arrived stays in a part file beside it, also after Ctrl-C; the next call goes on from there, if the server
    says that the file is still the same. The file appears under its name when all of it is here and is the published
    one. Two processes fetch one file once.

    Args:
        own: the beginning of an address that the user named (a mirror). Only there http without encryption is allowed.
        progress: is told (bytes here, bytes in all or None).

    Raises:
        UserError: no connection, an answer that is no file, a file that is not the published one, a full disk.
    """
    _check_address(wanted.url, own)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if path.is_file() and wanted.problem(path) is None:
                return False
            _Transfer(wanted, path, own, progress).run()
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None
    except KeyboardInterrupt as interruption:
        interruption.add_note(f"what has arrived of {path.name} is kept: the same command goes on from there")
        raise
    return True


class _BrokenError(Exception):
    """A failure after which a further try may succeed."""


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, wanted: Wanted, path: Path, own: str, progress: Progress | None) -> None:
        self.wanted, self.path, self.progress = wanted, path, progress
        self.part = path.with_name(f".{path.name}.part")
        self.mark = path.with_name(f".{path.name}.part-of")  # which file the part is of: address and validator
        self.host = urlsplit(wanted.url).hostname
        self.opener = _opener(own)

    def run(self) -> None:
        """All tries, the check, and the move to the file's place."""
        whole = 0  # parts that were put together
        while True:
            whole += self._receive_all()
            problem = self.wanted.problem(self.part)
            if problem is None:
                break
            self._forget()
            if whole < 2:  # it came in one piece: another try would bring the same
                raise UserError(
                    f"{self.wanted.url}: this is not the published file: {problem}. Nothing was kept. Try again "
                    "later, name another --mirror, or tell the publisher"
                )
            whole = -1  # the pieces may be of two versions: once more, from the beginning
        os.replace(self.part, self.path)
        self._forget()

    def _receive_all(self) -> int:
        """Try until all bytes are here. Returns the number of pieces in which they came."""
        pieces, failures = int(self._held() > 0), 0
        if pieces and self.wanted.sha256 and self.wanted.problem(self.part) is None:
            return pieces  # a process was ended before it could move the file
        while True:
            before = self._held()
            try:
                self._receive()
                return pieces + 1
            except _BrokenError as broken:
                gained = self._held() - before
                pieces += gained > 0
                failures = 1 if gained >= ENOUGH else failures + 1
                if failures >= TRIES:
                    kept = "; the same command goes on from there" if self._held() else ""
                    raise UserError(
                        f"{self.wanted.url}: {broken}, {TRIES} times in a row. {self._held():,} bytes are here{kept}"
                    ) from None
                time.sleep(min(_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE))

    def _receive(self) -> None:
        """One connection: ask for what is missing, and append it to the part."""
        held, validator = self._held(), self._validator()
        if held and not validator:
            held = 0
        headers = {"User-Agent": f"singleshot/{__version__}", "Accept-Encoding": "identity"}
        if held:
            headers |= {"Range": f"bytes={held}-", "If-Range": validator}
        with self._open(urllib.request.Request(self.wanted.url, headers=headers)) as answer:
            if answer.status == 206:
                held = self._agree(answer, held)
            elif answer.status == 200:
                held = 0
            else:
                raise UserError(f"{self.wanted.url}: the server answers with status {answer.status}, not with a file")
            total = None if answer.length is None else held + answer.length
            self._check_answer(answer, total)
            self._check_disk((total or (self.wanted.most if self.wanted.most < LARGEST else 0)) - held)
            if not held:
                self._begin(answer)
            held = self._append(answer, held, total)
        if total is not None and held < total:
            raise _BrokenError(f"the connection ended after {held:,} of {total:,} bytes")
        if held < self.wanted.least:
            raise _BrokenError(f"the connection ended after {held:,} of {self.wanted.size} bytes")

    def _open(self, request: urllib.request.Request) -> Any:
        with self._network():
            try:
                return self.opener.open(request, timeout=SILENCE)
            except urllib.error.HTTPError as error:
                with error:
                    raise self._refused(error) from None
            except http.client.InvalidURL:
                raise
            except ValueError as error:  # our own addresses are in order
                raise UserError(
                    f"the proxy of this system cannot be used ({shown(error)}): correct https_proxy"
                ) from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        """What an answer means that is no file."""
        if error.code == 416:  # there is no such rest: the part is of another file
            self._forget()
            return _BrokenError("the server has no rest to the part that is here")
        if error.code in _PASSING:
            return _BrokenError(f"the server answers {error.code} {shown(error.reason)}")
        if 300 <= error.code < 400:
            return UserError(f"{self.wanted.url}: the server sends us on in a circle, or nowhere; try another --mirror")
        missing = " (there is no such file)" if error.code in (404, 410) else ""
        return UserError(
            f"{self.wanted.url}: the server answers {error.code} {shown(error.reason)}{missing}; name another place "
            "with --mirror, or fetch the file in a browser"
        )

    @contextmanager
    def _network(self) -> Iterator[None]:
        """Tell a failure that may pass from one that will not."""
        try:
            yield
        except (_BrokenError, UserError):
            raise
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise UserError(
                    f"{self.host}: its certificate is not trusted here ({cause.verify_message}). In a network with a "
                    "certificate of its own set SSL_CERT_FILE to it"
                ) from None
            if isinstance(cause, socket.gaierror):
                raise UserError(
                    f"{self.host}: no such address can be found ({cause.strerror}). Without a connection, fetch the "
                    f"file elsewhere ({self.wanted.url}) and lay it at {self.path}; behind a proxy set https_proxy"
                ) from None
            if isinstance(cause, TimeoutError):
                raise _BrokenError(f"nothing came for {SILENCE:g} seconds") from None
            raise _BrokenError(f"the connection failed ({shown(cause) or type(cause).__name__})") from None

    def _agree(self, answer: Any, held: int) -> int:
        """Where the rest that a server sends begins; it must begin where the part ends."""
        kind, _, told = answer.headers.get("Content-Range", "").partition(" ")
        first = told.partition("-")[0]
        if kind != "bytes" or not first.isdecimal() or int(first) != held:
            self._forget()
            raise _BrokenError("the server sent another part than was asked for")
        return held

    def _check_answer(self, answer: Any, total: int | None) -> None:
        """Refuse what cannot be the file before any of it is written."""
        if total is not None and not self.wanted.least <= total <= self.wanted.most:
            raise UserError(
                f"{self.wanted.url}: the server has a file of {total:,} bytes, and {self.wanted.size} are expected: it "
                "is another file. Nothing was fetched; try another --mirror"
            )
        kind = answer.headers.get_content_type()
        if kind == "text/html":
            raise UserError(
                f"{self.wanted.url}: a web page came in the place of the file: this network may want a login first"
            )
        if (encoding := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise UserError(
                f"{self.wanted.url}: the server packs the file ({shown(encoding)}), which was not asked for"
            )

    def _check_disk(self, missing: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < missing + SPARE:
            raise UserError(
                f"{self.path.parent}: {free:,} bytes are free, and {missing + SPARE:,} are needed: free some space, or "
                "name another folder with SINGLESHOT_CACHE"
            )

    def _append(self, answer: Any, held: int, total: int | None) -> int:
        """Write what comes; returns the bytes that are here then."""
        mark, since = held, time.monotonic()
        with self.part.open("r+b" if held else "wb") as file:
            file.seek(held)
            file.truncate()
            while True:
                with self._network():
                    chunk = answer.read1(_CHUNK)
                if not chunk:
                    break
                held += len(chunk)
                if held > self.wanted.most:
                    raise UserError(
                        f"{self.wanted.url}: more than the {self.wanted.most:,} bytes come that the file may have; "
                        "try another --mirror"
                    )
                file.write(chunk)
                if self.progress is not None:
                    self.progress(held, total)
                if (now := time.monotonic()) - since >= SILENCE:
                    if held - mark < SLOWEST * (now - since):
                        raise _BrokenError(f"only {held - mark:,} bytes came in {now - since:.0f} seconds")
                    mark, since = held, now
            file.flush()
            os.fsync(file.fileno())
        return held

    # ------------------------------------------------------------------------------------------------------- the part
    def _held(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _begin(self, answer: Any) -> None:
        """Note which file the part is of. A weak validator promises no equal bytes, so it is none."""
        etag = answer.headers.get("ETag", "")
        if not etag.startswith('"'):
            etag = answer.headers.get("Last-Modified", "")
        self.part.unlink(missing_ok=True)  # never the bytes of one file with the mark of another
        self.mark.write_text(f"{self.wanted.url}\n{etag}\n", encoding="utf-8")

    def _validator(self) -> str:
        """By what the server knows the file of which the part is; "" if it cannot be known."""
        with suppress(OSError, UnicodeError, ValueError):
            url, etag, end = self.mark.read_text(encoding="utf-8").split("\n")
            if url == self.wanted.url and not end and etag.isprintable():
                return etag
        return ""

    def _forget(self) -> None:
        for path in (self.part, self.mark):
            path.unlink(missing_ok=True)


def _check_address(url: str, own: str) -> None:
    """Refuse every address but https, and http at the place that the user named."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _place(url) == _place(own)):
        return
    raise UserError(
        f"{shown(url)}: files are fetched over https alone, and over http from a --mirror that you name (not "
        "from where it sends us on to)"
    )


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to other addresses that are allowed (`_check_address`), a few times."""

    def __init__(self, own: str) -> None:
        self.own = own

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request for the new address."""
        _check_address(newurl, self.own)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(own: str) -> urllib.request.OpenerDirector:
    """What opens http and https alone, through the system's proxy: not files, data and ftp, as `urlopen` does."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(own),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no other process fetch the same file meanwhile; wait for one that does."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with suppress(NotImplementedError):  # some network disks have no locks; the file still appears as a whole
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process fetches {path.name}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()
