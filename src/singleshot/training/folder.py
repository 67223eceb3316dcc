"""The run folder. It is created once and never overwritten. Its files are replaced as a whole."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from singleshot.errors import UserError, some
from singleshot.files import write_atomically
from singleshot.paths import to_path
from singleshot.training.log_lines import read_log
from singleshot.training.recipe import from_yaml, to_yaml

LOCK = ".lock"
_TEMPORARY = re.compile(r"\.(recipe\.yaml|log\.jsonl|(last|best|state|diverged-\d+-\d+)\.safetensors)\.[a-z0-9_]{8}")


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its recipe, log, weights and state."""

    path: Path

    @property
    def recipe(self) -> Path:
        """Every setting of the run, with its value."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        """One JSON document per line: the start, steps, validations."""
        return self.path / "log.jsonl"

    @property
    def last(self) -> Path:
        """The latest weights."""
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best validation. Without validation: the last weights."""
        return self.path / "best.safetensors"

    @property
    def state(self) -> Path:
        """All that is needed to continue exactly: weights, average, optimiser, random generators, progress."""
        return self.path / "state.safetensors"

    @property
    def to_resume(self) -> str:
        """The command line that continues the run, for messages."""
        return f"singleshot train --resume {_word(self.path)}{self._own_builder()}"

    def _own_builder(self) -> str:
        """The flag for a builder of the user's own: no file decides which code runs, so each command line names it."""
        try:
            name = str(from_yaml(self.recipe).builder)
        except (OSError, UserError):  # the message that needs this is about something worse
            return ""
        return f" --builder {_word(name)}" if ":" in name else ""

    @classmethod
    def create(cls, out: str | Path | None, name: str) -> RunFolder:
        """A new folder: `out`, or the next free `runs/<name>-<n>`. Two processes never get the same one."""
        try:
            if out is not None:
                return cls(_create(to_path(out)))
            Path("runs").mkdir(exist_ok=True)
            number = 1
            while True:
                try:
                    path = Path("runs") / f"{name}-{number}"
                    path.mkdir()
                    return cls(path)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise UserError(
                f"the run folder {error.filename} cannot be created: {error.strerror}; choose another with --out"
            ) from None

    @staticmethod
    def must_be_new(path: str | Path) -> None:
        """Refuse a folder in which a run cannot begin: a run is never overwritten, nor are other files.

        A run that stopped before its first state leaves a recipe and a log. Another one may begin in their place.
        """
        path, folder = Path(path), RunFolder(Path(path))
        try:
            if path.exists() and not path.is_dir():
                raise UserError(f"{path}: this is a file, but a new run folder is needed; choose another --out")
            names = {one.name for one in path.iterdir() if not _is_leftover(one)} if path.exists() else set()
        except OSError as error:
            raise UserError(f"the run folder {path} cannot be read: {error.strerror}; choose another --out") from None
        others = names - {LOCK}
        if not others or (others <= {folder.recipe.name, folder.log.name} and folder.only_began()):
            return
        if folder.recipe.name not in names:
            raise UserError(f"{path}: this folder has other files in it; choose a new run folder with --out")
        goes_on = f", or continue that run with `{folder.to_resume}`" if folder.state.exists() else ""
        raise UserError(
            f"{path}: this folder already holds a run, and runs are never overwritten; choose another --out{goes_on}"
        )

    def only_began(self) -> bool:
        """Whether the recipe here was written by a run, and not by hand, so that another run may replace it."""
        try:
            recipe = from_yaml(self.recipe)  # first: it opens nothing but a file of sensible size
            return self.recipe.read_text(encoding="utf-8") == to_yaml(recipe)
        except (OSError, UnicodeError, UserError):
            return False

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run, to continue it."""
        folder = cls(to_path(path))
        if not folder.path.is_dir():
            raise UserError(f"{path}: there is no folder of this name; give --resume the folder of a run")
        if not folder.recipe.is_file():
            raise UserError(
                f"{path}: this folder has no {folder.recipe.name}, so it is not a run folder; "
                "give --resume the folder of a run"
            )
        if not folder.state.is_file():
            weights = next((one for one in (folder.best, folder.last) if one.exists()), None)
            again = f"singleshot train --recipe {_word(folder.recipe)}{folder._own_builder()}"
            raise UserError(
                f"{path}: there is nothing to resume: the run stopped before its state was first saved. Start it again "
                + (
                    f"with `{again} --out {_word(folder.path)}`"
                    if weights is None
                    else f"with `{again}`; --from {weights} takes its weights"
                )
            )
        return folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training in this folder. Temporary files of a killed process are removed.

        Raises:
            UserError: another process trains here, or the lock is not a file.
        """
        taken = "another process is training in this run folder; wait for it, or stop it first"
        with only_one(self.path, taken) as locked:
            with suppress(OSError):  # they are in nobody's way
                for path in filter(_is_leftover, self.path.iterdir() if locked else ()):
                    path.unlink(missing_ok=True)
            yield

    def begin(self) -> str:
        """Make room for a new run, inside `alone`. Returns what to tell about a run that had stopped at once, or "".

        Raises:
            UserError: another process has used the folder meanwhile.
        """
        self.must_be_new(self.path)
        if not self.recipe.exists():
            return ""
        with saving(self.log):
            self.log.unlink(missing_ok=True)
        return f"{self.path}: the run before stopped before its state was first saved; this one begins in its place"

    def write(self, path: Path, content: bytes) -> None:
        """Write a file as a whole: readers see the old file or the new one, never a part."""
        with saving(path):
            write_atomically(path, content)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line to the log."""
        line = (json.dumps(entry) + "\n").encode()
        with saving(self.log), self.log.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # before the state that counts on it

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> list[str]:
        """Remove the lines that were written after the saved state, and those that are not of a run.

        Returns:
            What to tell about damaged lines. A last line without an end is none: the process was killed meanwhile.
        """
        lines = read_log(self.log)
        self.write(self.log, b"".join(line.content for line in lines if not line.problem and keep(line.entry)))
        damaged = [f"line {line.number}: {line.problem}" for line in lines if line.problem and not line.half]
        return [f"{self.log}: damaged lines are taken out; {some(damaged)}"] if damaged else []


@contextmanager
def only_one(folder: Path, taken: str) -> Iterator[bool]:
    """Lock the folder for this process alone. Gives whether it is locked: some network disks have no locks.

    Raises:
        UserError: another process holds the lock. The message is `taken`: what the folder is used for, what to do. Or
            the lock is not a file, or may not be opened.
    """
    path = folder / LOCK
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{path}: this must be a file, but it is a folder, a link or a device; remove it")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: {taken}") from None
    except NotImplementedError:
        pass  # no locks
    except OSError as error:
        if path.exists() and error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(f"{path}: no permission to lock the folder; remove this file, or make it yours") from None
        # No locks. A folder that is not writable is reported at the first write.
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows does not delete an open file
                Path(lock.lock_file).unlink()
            lock.release()


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failed write into one message. Files are replaced as a whole, so the old file stays intact.

    Raises:
        UserError: the disk is full, or writing is not allowed.
    """
    try:
        yield
    except OSError as error:
        folder = RunFolder(path.parent)
        old = f"; the {path.name} saved before is intact" if path.exists() else ""
        again = (
            f"continue with `{folder.to_resume}`"
            if folder.state.exists()
            else f"start the run again; --out {folder.path} may stay the same"
        )
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}){old}. Free some space, or make the folder "
            f"writable, then {again}"
        ) from None


def _create(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        RunFolder.must_be_new(path)
    return path


def _word(text: object) -> str:
    """A word of a command line, as a shell wants it."""
    return shlex.quote(str(text))


def _is_leftover(path: Path) -> bool:
    """Whether this is a temporary file of a run (`write_atomically`), as a killed process leaves it."""
    return bool(_TEMPORARY.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
