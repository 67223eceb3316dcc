"""The command line, `singleshot VERB`: one small file per verb (parse, call, print). What they share is here.

Exit codes: 0 success; 2 an error of the user, with one clear message; 130 after Ctrl-C; 1 what was asked for could not
be made (an export that finds other objects), or a bug of ours, with a traceback. These files import no torch and no
other heavy library at their top, so that `--help` is fast.
"""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from singleshot.analysis import ANALYSES, find_analysis
from singleshot.cli.explain import explain
from singleshot.cli.output import Result, write
from singleshot.errors import UserError, did_you_mean, in_brackets
from singleshot.terminal import put, say
from singleshot.version import __version__

ANALYSE = "analyse"

# Every verb and its line in `singleshot --help`; `data check` is the module singleshot.cli.data_check.
VERBS = {
    "demo": "the whole tour on a generated dataset: train, evaluate, draw",
    "train": "train on your images; the format of the data is recognised",
    "evaluate": "COCO and VOC metrics of a model, or of detections in files",
    "detect": "find objects in images, folders and globs; draw them",
    "data check": "check a dataset: what would stop training, and what is corrected",
    "data show": "draw the labelled boxes, also as training sees them",
    "data formats": "list the dataset formats that are read and written, and how they look",
    "data split": "divide the images into train and val, if the dataset is not divided",
    ANALYSE: "stands for `analyse NAME`: a verb for each analysis of the table, with its own line",
    "export": "a detector as one file for ONNX Runtime, OpenVINO, PyTorch or Triton; also int8",
    "import": "weights of other programs become a detector or a backbone of this one",
    "download": "published weights of backbones and detectors, by name; none: the list",
    "benchmark": "how fast detectors are here: every engine and precision, and where the time goes",
    "models": "every detector: parameters, boxes, FLOPs, published figures",
    "recipes": "the settings that `train --recipe` knows; one of them as YAML",
}

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

ELSEWHERE = {"predict": "detect", "infer": "detect", "val": "evaluate", "test": "evaluate", "check": "data check"}
"""The names of verbs in other tools."""


def verbs() -> list[str]:
    """Every verb: those of `VERBS`, and `analyse NAME` for each analysis."""
    found = []
    for verb in VERBS:
        found += [f"{ANALYSE} {name}" for name in ANALYSES] if verb == ANALYSE else [verb]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is decided in `data.images`. One odd TIFF would fill the terminal with 40,000 lines.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.showwarning = _show_warning
            return _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as leave:  # the parser's --help
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt as interruption:
        say("\n" + "; ".join([str(interruption) or "interrupted", *_notes(interruption)]))
        return 130
    except _ReaderLeft:
        return 141  # like a program that was ended by SIGPIPE
    except BrokenPipeError:  # of a verb that writes lines on stdout itself
        _to_nowhere()
        return 141
    except Exception as error:
        message = explain(error)
        if message is None:
            say(traceback.format_exc().rstrip())
            return 1
        say("\n".join([f"singleshot: {message}", *_notes(error)]))
        return 2


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *others: Any, **named: Any
) -> None:
    """What we warn of is for the user to read; what a library warns of keeps its place in the code."""
    ours = issubclass(category, UserWarning) and os.path.dirname(filename).startswith(_PACKAGE)
    say(f"warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno).rstrip())


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way: where the results so far are, for example."""
    return getattr(error, "__notes__", [])


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _print(_help(), error=not words)
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        _print(f"singleshot {__version__}")
        return 0
    verb, rest = _verb(words)
    if verb is None:
        _print(_help(words[0]))
        return 0
    module = _module(verb)
    options = module.parse(rest)
    # With --json everything that a library prints goes to stderr: stdout holds only the document.
    with contextlib.redirect_stdout(sys.stderr) if options["json"] else contextlib.nullcontext():
        result: Result = module.run(options)
    if not result.silent:
        _print(write(result, as_json=options["json"], ascii=not _is_utf8(sys.stdout)), plain=options["json"])
    if result.fault is not None:
        raise UserError(result.fault)
    if result.failure is not None:
        say(f"singleshot: {result.failure}")
        return 1
    return 130 if result.interrupted else 0


def _verb(words: list[str]) -> tuple[str | None, list[str]]:
    """The verb at the start of the words, and the words after it. The verb is None if help on a group is asked for."""
    known = verbs()
    for length in (2, 1):
        if (verb := " ".join(words[:length])) in known:
            return verb, words[length:]
    group = [verb for verb in known if verb.startswith(f"{words[0]} ")]
    if group and words[1:2] in (["-h"], ["--help"]):
        return None, []
    if group:
        raise UserError(_second_word(words, [verb.split()[1] for verb in group]))
    meant = ELSEWHERE.get(words[0].lower())
    hint = f"did you mean {meant!r}?" if meant else did_you_mean(words[0], known, number=1, show=repr)
    raise UserError(f"{words[0]!r} is not a verb{in_brackets(hint)}. The verbs are: {', '.join(known)}")


def _second_word(words: list[str], known: list[str]) -> str:
    """What to say where a verb of two words has no right second one."""
    first, second = words[0], words[1] if len(words) > 1 and not words[1].startswith("-") else None
    if second is None:
        return f"{first!r} needs a second word, one of {', '.join(known)}: `singleshot {first} {known[0]} --help`"
    hint = did_you_mean(second, known, number=1, show=lambda word: repr(f"{first} {word}"))
    if not hint and os.path.exists(second):
        hint = f"did you mean `singleshot {first} {known[0]} {second}`?"
    came = f"{first} {second}"
    return f"{came!r} is not a verb{in_brackets(hint)}: {first!r} is followed by one of {', '.join(known)}"


def _module(verb: str) -> Any:
    """The module or object that has the `parse` and the `run` of a verb."""
    first, _, name = verb.partition(" ")
    if first == ANALYSE:
        from singleshot.cli.analyse import AnalyseVerb

        return AnalyseVerb(name)
    name = verb.replace(" ", "_")
    return importlib.import_module(f"singleshot.cli.{name}{'_' if keyword.iskeyword(name) else ''}")


def _line(verb: str) -> str:
    first, _, name = verb.partition(" ")
    return find_analysis(name).line if first == ANALYSE else VERBS[verb]


def _help(group: str | None = None) -> str:
    listed = [verb for verb in verbs() if group is None or verb.startswith(f"{group} ")]
    lines = [f"  singleshot {verb:<16}{_line(verb)}" for verb in listed]
    title = "Single-stage object detection: train on your own boxes, measure, detect."
    end = "`singleshot VERB --help` explains a verb; with `--json` it prints one JSON document."
    return "\n".join([title, "", *lines, "", end])


class _ReaderLeft(Exception):
    """The program that reads our standard output has closed it (`| head`)."""


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def _print(text: str, *, error: bool = False, plain: bool = False) -> None:
    """Print for people; `plain`: for a program, every letter as it is."""
    try:
        (put if plain else say)(text, sys.stderr if error else sys.stdout)
    except BrokenPipeError as broken:
        _to_nowhere()
        raise _ReaderLeft from broken


def _to_nowhere() -> None:
    with contextlib.suppress(OSError, ValueError):  # Python flushes its output at exit: give it a place to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
