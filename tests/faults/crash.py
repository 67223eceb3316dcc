"""Kills and disk errors at every change that a command makes to the disk.

After it every file is the old one or the new one as a whole, and the same command again (for a run: `--resume`) gives
what it gives undisturbed. A disk that is full or broken gives one message and exit code 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from faults.kinds import Case, Kind
from faults.points import MODES, Points
from faults.programs import (
    BUILDER,
    Ended,
    Files,
    assert_same_run,
    contents,
    made_once,
    next_words,
    resume_words,
    run,
    small_data,
    train_words,
    write_contents,
    write_recipe,
)
from safetensors.torch import load_file

from singleshot.data.shapes import write_shapes

Do = Sequence[str] | Callable[[], object]


@dataclass(frozen=True)
class Shared:
    """What the cases of one command share."""

    data: Path
    model: Path
    images: Path
    whole: Path  # the result undisturbed
    old: Files  # what stands there before
    points: list[str]  # the changes, in their order


def make(command: str, rng: np.random.Generator, number: int) -> Case:
    """Every mode at every point: neighbouring numbers are far apart, so that a few cases see much."""
    mode = list(MODES)[number % len(MODES)]
    return Case(
        f"{command}: change {number // len(MODES)} of the disk: {MODES[mode]}", plan=(mode, number // len(MODES))
    )


def point_of(number: int, count: int) -> int:
    """The point of a number, from 1; a step by the golden ratio reaches far-apart points first, and each once."""
    step = max(1, round(count * 0.618))
    while np.gcd(step, count) != 1:
        step += 1
    return number * step % count + 1


def disturb(do: Do, folder: Path, case: Case, shared: Shared, said: Path) -> Ended:
    """Run a command that is killed or refused at the point of a case."""
    mode, number = case.plan
    at = point_of(number, len(shared.points))
    print(f"{shared.points[at - 1]!r}, change {at} of {len(shared.points)}: {MODES[mode]}", flush=True)
    ended = run(do, said, Points(folder, at, mode).install)
    print(ended.said)
    if mode in ("full", "error"):
        if ended.refused():
            assert said_of_disk(ended.said), ended.said
    else:
        assert ended.code == -9, ended
    return ended


def said_of_disk(text: str) -> bool:
    """Whether a message says what the disk refused."""
    return any(word in text for word in ("No space left", "disk is full", "Input/output error", "disk cannot be"))


def prepare_data(folder: Path) -> tuple[Path, Path, Path]:
    """The data, the weights and the finished run that the cases start from, with the recipe beside the run."""
    place = made_once(folder, "trained", _train)
    return place / "data" / "voc", place / "run" / "best.safetensors", place / "data" / "voc" / "JPEGImages"


def _train(place: Path) -> None:
    write_recipe(place / "recipe.yaml", small_data(place / "data"))
    run(train_words(place / "recipe.yaml", place / "run"), place / "said.txt").succeeded()


# --- a training run


def prepare_train(folder: Path) -> Shared:
    data, model, images = prepare_data(folder)
    whole = model.parent

    def count_it(place: Path) -> None:
        count(train_words(whole.parent / "recipe.yaml", place / "run"), place / "run", place)
        assert_same_run(whole, place / "run")

    points = (made_once(folder, "counted", count_it) / "points.txt").read_text().splitlines()
    return Shared(data, model, images, whole, {}, points)


def prepare_resume(folder: Path) -> Shared:
    shared = prepare_train(folder)
    stopped, counted = folder / "stopped", folder / "resumed"
    half = len(shared.points) // 2
    recipe = shared.whole.parent / "recipe.yaml"
    run(train_words(recipe, stopped), folder / "said.txt", Points(stopped, half).install)
    old = contents(stopped)
    write_contents(counted, old)
    points = count(resume_words(counted), counted, folder)
    assert_same_run(shared.whole, counted)
    return replace(shared, old=old, points=points)


def count(do: Do, folder: Path, shared: Path) -> list[str]:
    """The changes of a folder that a command makes."""
    told = shared / "points.txt"

    def install() -> None:
        file = told.open("w", buffering=1)
        Points(folder, told=lambda line: print(line, file=file)).install()

    run(do, shared / "said.txt", install).succeeded()
    return told.read_text().splitlines()


def check_train(case: Case, shared: Shared, folder: Path) -> None:
    recipe, here, said = shared.whole.parent / "recipe.yaml", folder / "run", folder / "said.txt"
    write_contents(here, shared.old)
    ended = disturb(next_words(recipe, here), here, case, shared, said)
    if ended.code == 0:  # only what it tidies up was disturbed
        (here / ".lock").unlink(missing_ok=True)
        assert_same_run(here, shared.whole)
        return
    for path in here.glob("[!.]*") if here.exists() else []:
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".yaml":
            assert path.read_bytes() == (shared.whole / path.name).read_bytes()
    run(next_words(recipe, here), said).succeeded()
    assert_same_run(here, shared.whole)


# --- commands that write results


@dataclass(frozen=True)
class Command:
    """A command whose results are files."""

    do: Callable[[Shared, Path], Do]
    whole_folder: bool = False  # all of its files appear at once
    old: bool = True  # the results of another call stand there before
    keeps: bool = True  # the old files stay until the new ones are there
    once: bool = False  # refuses to do again what is done
    lay: Callable[[Shared, Path], object] = lambda shared, out: None  # lays out what the command works on

    def prepare(self, folder: Path) -> Shared:
        data, model, images = prepare_data(folder)
        whole, counted = folder / "whole", folder / "counted"
        shared = Shared(data, model, images, whole, {}, [])
        self.lay(shared, whole)
        run(self.do(shared, whole), folder / "said.txt").succeeded()
        old = {}
        if self.old:
            old = {name: content + b"\n" * (name[0] != ".") for name, content in contents(whole).items()}
        write_contents(counted, old)
        self.lay(shared, counted)
        points = count(self.do(shared, counted), counted, folder)
        assert contents(counted) == contents(whole), "the same command, the same files"
        return Shared(data, model, images, whole, old, points)

    def check(self, case: Case, shared: Shared, folder: Path) -> None:
        here, said = folder / "out", folder / "said.txt"
        write_contents(here, shared.old)
        self.lay(shared, here)
        ended = disturb(self.do(shared, here), here, case, shared, said)
        new = results(shared.whole)
        if ended.code == 0:
            assert contents(here) == contents(shared.whole)
            return
        found = results(here)
        for name, content in found.items():
            assert content in (new[name], shared.old.get(name)), f"{name} is neither the old nor the new file"
        if self.keeps:
            assert found.keys() >= shared.old.keys()
        if self.whole_folder:
            assert found in (shared.old, new)
        if self.once and found == new:
            return
        self.repair(here)
        run(self.do(shared, here), said).succeeded()
        assert results(here) == new

    def repair(self, here: Path) -> None:
        """What the message of the command says: a division that was stopped may leave one list."""
        lists = [here / "ImageSets" / "Main" / f"{part}.txt" for part in ("train", "val")]
        if [path.exists() for path in lists] == [True, False]:
            lists[0].unlink()


def results(folder: Path) -> Files:
    """The files of a folder without those that are only there while a command runs; a kill leaves these."""
    found = contents(folder) if folder.exists() else {}
    return {
        name: content
        for name, content in found.items()
        if not any(part.startswith(".") for part in Path(name).parts) and ".partial" not in name
    }


def detect(shared: Shared, out: Path) -> Do:
    pictures = sorted(map(str, shared.images.glob("val*")))
    return [
        "detect",
        str(shared.model),
        *pictures,
        "--builder",
        BUILDER,
        "--threshold",
        "0.01",
        "--out",
        str(out),
        "--overwrite",
    ]


def evaluate(shared: Shared, out: Path) -> Do:
    words = ["evaluate", str(shared.model), str(shared.data), "--builder", BUILDER]
    return [*words, "--save-detections", str(out), "--overwrite"]


def analyse(shared: Shared, out: Path) -> Do:
    page = ["--html", str(out / "page.html")]
    return ["analyse", "run", str(shared.model.parent), "--out", str(out), *page, "--overwrite"]


def show(shared: Shared, out: Path) -> Do:
    return ["data", "show", str(shared.data), "--out", str(out / "sheet.png"), "--number", "2"]


def shapes(shared: Shared, out: Path) -> Do:
    return partial(write_shapes, out / "made", train=2, val=1, size=160)


def split(shared: Shared, out: Path) -> Do:
    return ["data", "split", str(out)]


def lay_split(shared: Shared, out: Path) -> None:
    out.mkdir()
    for part in ("JPEGImages", "Annotations"):
        (out / part).symlink_to(shared.data / part)


def kind(name: str, line: str, command: Command, *, cases: int, fast: int) -> Kind:
    return Kind(line, partial(make, name), command.check, cases, fast, prepare=command.prepare, seconds=60)


_LINE = "kills and disk errors at every change of the disk: old or new files, never a part; then it works again"
TRAIN = Kind(
    "a run killed, or refused by the disk, at every change that it makes: continued, it is bit-equal",
    partial(make, "train"), check_train, 380, 7, prepare=prepare_train, seconds=60,
)  # fmt: skip
RESUME = Kind(
    "a run that continues, killed or refused by the disk at every change that it makes: bit-equal",
    partial(make, "train --resume"), check_train, 285, 3, prepare=prepare_resume, seconds=60,
)  # fmt: skip
DETECT = kind("detect --out", _LINE, Command(detect, keeps=False), cases=195, fast=3)
EVALUATE = kind("evaluate --save-detections", _LINE, Command(evaluate), cases=150, fast=2)
ANALYSE = kind("analyse run --out", _LINE, Command(analyse), cases=75, fast=0)
SHAPES = kind("write_shapes", _LINE, Command(shapes, whole_folder=True, old=False), cases=205, fast=4)
SPLIT = kind("data split", _LINE, Command(split, old=False, once=True, lay=lay_split), cases=65, fast=5)
SHOW = kind("data show --out", _LINE, Command(show, old=False, once=True), cases=30, fast=2)
