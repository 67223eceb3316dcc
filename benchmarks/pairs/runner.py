"""Make the runs, one after the other: start or resume, train, measure, write the line, delete what is not needed."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from recorded import files
from recorded.machine import commit, machine

import singleshot as ss
from pairs import records
from pairs.experiment import Experiment, differences
from pairs.measure import measure
from singleshot.files import write_atomically
from singleshot.training import setup, start
from singleshot.training.optimizer import find_trunk
from singleshot.training.recipe import Recipe


@dataclass(frozen=True)
class Places:
    """Where the files are."""

    data: Path  # the folder that holds the experiment's folder
    weights: Path | None  # of the backbone
    out: Path  # the results file
    work: Path  # run folders

    def folder(self, experiment: Experiment, arm: str, seed: int) -> Path:
        """The run folder of one arm and seed."""
        return self.work / experiment.name / f"{arm}-{seed}"


def run_all(
    experiment: Experiment,
    places: Places,
    say: Callable[[str], None] = print,
    seeds: Collection[int] | None = None,
    arms: Collection[str] | None = None,
) -> None:
    """Make every run of these seeds and arms (None: all) that is missing in the results file.

    Other processes may make other runs for the same file, each with its own work folder. The file is read again before
    each run.

    Raises:
        UserError: an unknown seed or arm, lines or run folders with other settings, bad data, or another process in the
            work folder.
        KeyboardInterrupt: after Ctrl-C, with the state saved; the next call continues from there.
    """
    runs = experiment.runs_of(seeds, arms)
    code = commit()  # of the code that is loaded now, even if the files change during the runs
    first = experiment.recipe_of(experiment.baseline, experiment.seeds[0], places.data, places.weights)
    inputs = inputs_of(first)
    beside = "make other seeds (--seeds) in another folder (--work)"
    with files.only_one(places.work / experiment.name, beside):
        for number, (arm, seed) in enumerate(runs, 1):
            folder = places.folder(experiment, arm, seed)
            name = f"{experiment.name}: arm {arm}, seed {seed}"
            lines = records.read(places.out)
            records.check(experiment, lines, places.out, inputs)
            if (arm, seed) not in records.of(experiment, lines):
                say(f"{name} (run {number} of {len(runs)})")
                line = run_one(experiment, arm, seed, places, inputs, code)
                new = records.append(places.out, line)
                told = f"AP {100 * line['metrics']['coco']['AP']:.1f}"
                say(f"{name}: {told if new else 'another process was faster, and its result stays'}")
            clear_up(folder)


def run_one(
    experiment: Experiment, arm: str, seed: int, places: Places, inputs: dict[str, str], code: dict[str, Any]
) -> records.Line:
    """Train one run (or continue it), measure it, and return its line."""
    folder = places.folder(experiment, arm, seed)
    recipe = experiment.recipe_of(arm, seed, places.data, places.weights)
    settings = experiment.settings_of(arm, seed)
    sessions = Sessions.open(folder, {"settings": settings, "inputs": inputs})
    if (folder / "state.safetensors").exists():
        going_on: Callable[[], Any] = lambda: ss.train(resume=folder, data=recipe.data.path)  # noqa: E731
    else:
        shutil.rmtree(folder, ignore_errors=True)  # stopped before anything was saved
        start = sessions.path.with_name(f"{folder.name}.start.safetensors")
        ss.save(start_of(experiment, arm, seed, places), start)
        arguments = {key: value for key, value in recipe.arguments.items() if key != "backbone_weights"}  # in the file
        begun = replace(recipe, arguments=arguments, start_from=str(start))
        going_on = lambda: ss.train(begun, out=folder)  # noqa: E731
    with sessions.session(code):
        going_on()
    last = folder / "last.safetensors"
    metrics, views = measure(last, recipe, experiment.arms[arm].views)
    return {
        "experiment": experiment.name,
        "arm": arm,
        "seed": seed,
        "command": f"python benchmarks/paired.py run {experiment.name}",
        "commit": code["commit"],
        "dirty": code["dirty"],
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": round(sum(each["seconds"] for each in sessions.entries), 1),
        "sessions": sessions.entries,
        "metrics": metrics,
        "views": views,
        "curve": files.curve(folder),
        "settings": settings,
        "inputs": inputs,
        "fingerprint": records.fingerprint(settings, inputs),
    }


def start_of(experiment: Experiment, arm: str, seed: int, places: Places) -> ss.Detector:
    """The arm's untrained detector. Tensors that the baseline also has, by name and shape, start with its values.

    Otherwise another number of logits would shift the random numbers of everything that is drawn later, and the pairs
    of a seed would differ in more than the arm. If the arm starts from other weights of the backbone, only the tensors
    outside the backbone are copied.
    """
    built, weights = {}, {}
    for name in (experiment.baseline, arm):
        recipe = experiment.recipe_of(name, seed, places.data, places.weights)
        torch.manual_seed(seed)
        built[name] = start.build_detector(recipe, setup.open_data(recipe).train).detector
        weights[name] = recipe.arguments.get("backbone_weights")
    ours, theirs = built[arm].state_dict(), built[experiment.baseline].state_dict()
    own = find_trunk(built[arm])[0] + "." if weights[arm] != weights[experiment.baseline] else None
    same = {
        name: value
        for name, value in theirs.items()
        if name in ours and ours[name].shape == value.shape and not (own and name.startswith(own))
    }
    built[arm].load_state_dict(same, strict=False)
    return built[arm]


def inputs_of(recipe: Recipe) -> dict[str, str]:
    """The inputs that the settings do not describe: one fingerprint for each split and for the backbone's weights."""
    found = {}
    for split in (recipe.data.split, recipe.data.val_split):
        dataset = ss.open_dataset(recipe.data.path or "", split=split, format=recipe.data.format, strict=False)
        found[f"data {dataset.split}"] = records.data_fingerprint(dataset)
    if recipe.arguments.get("backbone_weights"):
        found["backbone weights"] = records.file_fingerprint(Path(recipe.arguments["backbone_weights"]))
    return found


@dataclass
class Sessions:
    """The sessions in which a run was trained: when, for how long, with which code. Stored beside the run folder."""

    path: Path
    state: Path
    settings: dict[str, Any]
    entries: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any]) -> Sessions:
        """The sessions of the run in `folder`; none if nothing was saved yet.

        Raises:
            UserError: the run was started with other settings or input files.
        """
        path = folder.with_name(f"{folder.name}.sessions.json")
        begun = path.exists() and (folder / "state.safetensors").exists()
        known = json.loads(path.read_text()) if begun else {**settings, "sessions": []}
        changed = differences(known["settings"], settings["settings"])
        changed += [f"{k}: {known['inputs'].get(k)} -> {v}" for k, v in settings["inputs"].items()
                    if known["inputs"].get(k) != v]  # fmt: skip
        if changed:
            raise ss.UserError(
                f"{folder}: this run was started with other settings: {'; '.join(changed)}. "
                "Restore the settings, or use another folder with --work"
            )
        sessions = cls(path, folder / "state.safetensors", settings, known["sessions"])
        sessions._close_killed()
        return sessions

    @contextlib.contextmanager
    def session(self, code: dict[str, Any]) -> Iterator[None]:
        """Record a session while the run is trained inside the `with` block."""
        entry = {**code, "date": date.today().isoformat(), "started": round(time.time(), 1), "seconds": None}
        self.entries.append(entry)
        self._write()
        begin = time.monotonic()
        try:
            yield
        finally:
            entry["seconds"] = round(time.monotonic() - begin, 1)
            self._write()

    def _close_killed(self) -> None:
        """Close the open session that a killed process has left. It counts up to the last saved state."""
        for entry in self.entries:
            if entry["seconds"] is None:
                saved = self.state.stat().st_mtime if self.state.exists() else 0.0
                entry["seconds"] = round(max(0.0, saved - entry["started"]), 1)

    def _write(self) -> None:
        write_atomically(self.path, json.dumps({**self.settings, "sessions": self.entries}, indent=1).encode())


def clear_up(folder: Path) -> None:
    """Delete the files of a finished run, except for the last weights, the log and the recipe."""
    for path in (folder / "state.safetensors", folder / "best.safetensors"):
        path.unlink(missing_ok=True)
    folder.with_name(f"{folder.name}.start.safetensors").unlink(missing_ok=True)
