"""README.md and docs/*.md: their commands and Python blocks run, as CONTRIBUTING.md describes ("Docs that run").

- `bash` and `console` blocks: lines that begin with `singleshot` are run, in a folder of their own for each page, with
  what `desk` puts there; lines that begin with `make` must name a target; other lines are left alone.
- `python` blocks: run, one namespace for each page.
- `<!-- not run: REASON -->` before a block: its commands are only parsed, recipes included. With
  `<!-- none run: REASON -->` somewhere in a page that holds for all its blocks.

`singleshot train` lines get settings that make them quick: the point is that the command is right.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from singleshot.catalogue import is_name
from singleshot.cli import _module, _verb, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists()]
QUICK = ["--schedule.epochs", "null", "--schedule.steps", "1", "--batch-size", "2"]
QUICK += ["--arguments.image_size", "64", "--data.workers", "0"]
SMALL = ["--arguments.backbone", "mobilenetv2"]  # where the line names no backbone
STRETCHED = ("--epochs", "--minutes", "--batch-size", "--schedule.", "--arguments.image_size", "--data.workers")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    everything = "<!-- none run:" not in text
    fence = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
    for match in fence.finditer(text):
        before = text[: match.start()].rstrip()
        last = before.rpartition("\n")[2].strip()
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
        skipped = last.startswith("<!-- not run:") and last.endswith("-->")
        run = everything and not skipped
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["language"], "\n".join(lines), run)


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each `singleshot` and `make` command in a block, without pipes and redirections."""
    if block.language not in ("bash", "sh", "console", "shell"):
        return
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if not line.startswith("$ "):
                continue  # what the command prints
            line = line.removeprefix("$ ")
        for part in re.split(r"&&|;|\|\|", line):
            words = shlex.split(re.split(r"[|>]", part)[0].removesuffix("&"), comments=True)
            words = words[next((i for i, word in enumerate(words) if "=" not in word), len(words)) :]  # A=1 singleshot
            if words and words[0].removeprefix(".venv/bin/") in ("singleshot", "make"):
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def quick(words: list[str]) -> list[str]:
    """The words of a `singleshot` command; those of `train` become quick."""
    if words[:1] != ["train"] or "--resume" in words:
        return words
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith(STRETCHED):
            if "=" not in word:
                rest.pop(0)
        else:
            kept.append(word)
    return [*kept, *QUICK, *([] if "--arguments.backbone" in kept or "--builder" in kept else SMALL)]


def check_only(words: list[str]) -> None:
    """Whether the command line can be understood, recipes included."""
    verb, rest = _verb(words)
    if verb is None or "--help" in rest:
        return
    module = _module(verb)
    options = module.parse(rest)
    if verb != "train" or options.resume is not None or (options.recipe or "").endswith(".yaml"):
        return
    if options["from"] is None or not is_name(options["from"]):  # the file of a known name would be fetched
        module.choose_recipe(options)


def check_make(words: list[str]) -> None:
    """Whether the Makefile has the targets; running them here would run the tests in the tests."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
    assert asked <= targets, f"no such target: {sorted(asked - targets)}"


def test_reads_blocks() -> None:
    text = "# x\n```bash\nsingleshot a\n```\n<!-- not run: long -->\n\n```python\n1\n```\n"
    text += "- x\n  ```console\n  $ make b\n  c\n  ```\n"
    found = [(block.line, block.language, block.text, block.run) for block in blocks(Path("p"), text)]
    assert found == [
        (2, "bash", "singleshot a", True),
        (7, "python", "1", False),
        (11, "console", "$ make b\nc", True),
    ]
    assert not any(block.run for block in blocks(Path("p"), text + "<!-- none run: x -->"))


def test_reads_commands() -> None:
    text = "pip install x\nA=1 singleshot detect m \\\n  'a b' | head  # said\nmake test && make lint > log\n"
    text += "# singleshot x\n"
    found = list(commands(Block(Path("p"), 1, "bash", text, True)))
    assert found == [["singleshot", "detect", "m", "a b"], ["make", "test"], ["make", "lint"]]
    console = "$ .venv/bin/singleshot models --json\nsingleshot said\n"
    assert list(commands(Block(Path("p"), 1, "console", console, True))) == [["singleshot", "models", "--json"]]


def test_makes_training_quick() -> None:
    words = quick(["train", "my_data", "--epochs", "90", "--schedule.kind=cosine", "--out", "runs/x"])
    assert words == ["train", "my_data", "--out", "runs/x", *QUICK, *SMALL]
    assert quick(["detect", "--epochs", "1"]) == ["detect", "--epochs", "1"]


@pytest.fixture
def desk(tiny_voc: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a page's blocks run: the files that pages may name, and links into the repository."""
    shutil.copytree(tiny_voc, tmp_path / "my_data")
    shutil.copytree(tiny_voc / "JPEGImages", tmp_path / "photos")
    shutil.copy(tiny_voc / "JPEGImages" / "a.jpg", tmp_path / "photo.jpg")
    shutil.copy(tiny_model, tmp_path / "model.safetensors")
    for name in ("zoo", "examples", "docs"):
        if (ROOT / name).is_dir():
            (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _provide(block: Block, desk: Path) -> None:
    """A run that the page speaks of, and that none of its commands has made, has been made before."""
    for name in re.findall(r"\bruns/[\w.-]+/(?:best|last)\.safetensors", block.text):
        path = desk / name
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            for file in ("best", "last"):
                shutil.copy(desk / "model.safetensors", path.with_name(f"{file}.safetensors"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "__docs__"}
    for block in blocks(page, page.read_text(encoding="utf-8")):
        for words in commands(block):
            if words[0] == "make":
                check_make(words)
                continue
            written = [os.path.expandvars(word) for word in words[1:]]
            if not block.run or any("$" in word for word in written):
                check_only(words[1:])
                continue
            _provide(block, desk)
            code = main(quick(written))
            said = capsys.readouterr()
            assert code == 0, f"{block.name}: {shlex.join(words)}\n{said.err}"
        if block.language == "python":
            compiled = compile(block.text, block.name, "exec")
            if block.run:
                _provide(block, desk)
                exec(compiled, namespace)
