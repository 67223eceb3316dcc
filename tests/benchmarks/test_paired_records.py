"""The file of results: lines of one set of settings, appended by one process or several."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from pairs import records
from pairs.experiment import Arm, Experiment

from singleshot.errors import UserError

TWO = Experiment(
    name="two",
    data="voc",
    settings={"batch_size": 2},
    arms={"mined": Arm(), "even": Arm({"arguments.classification": {"type": "SoftmaxLoss", "ratio": 1}})},
    baseline="mined",
    seeds=(0, 1),
    comparisons=(),
)


def line(arm: str, seed: int, **more: Any) -> records.Line:
    return {
        "experiment": "two", "arm": arm, "seed": seed, "metrics": {}, "views": {}, "seconds": 60, "sessions": [],
        "settings": TWO.settings_of(arm, seed), "inputs": {"data train": "abc"}, **more,
    }  # fmt: skip


def test_lines_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    one, two = line("mined", 0), line("even", 0)
    records.append(path, one)
    records.append(path, two)
    records.check(TWO, records.read(path), path, {"data train": "abc"})
    with pytest.raises(UserError, match="data train: abc -> other"):
        records.check(TWO, [one], path, {"data train": "other"})
    with pytest.raises(UserError, match="data train: def -> abc"):
        records.check(TWO, [one, {**two, "inputs": {"data train": "def"}}], path)
    with pytest.raises(UserError, match="lines.jsonl:2: .* has two lines"):
        records.check(TWO, [one, one], path)
    with pytest.raises(UserError, match="does not have this run"):
        records.check(TWO, [{**one, "seed": 7}], path)
    records.check(TWO, [{**one, "experiment": "another", "seed": 7}], path)
    path.write_text('{"experiment": 1}\n')
    with pytest.raises(UserError, match=":1: this result has no arm"):
        records.read(path)
    path.write_text("nonsense\n")
    with pytest.raises(UserError, match=":1: this line is not a result in JSON"):
        records.read(path)


def test_a_run_has_one_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    assert records.read(path) == []
    assert records.append(path, line("mined", 0, seconds=1))
    assert not records.append(path, line("mined", 0, seconds=2))
    assert records.append(path, line("mined", 1, seconds=3))
    assert records.append(path, line("mined", 0, seconds=4, experiment="another"))
    assert [each["seconds"] for each in records.read(path)] == [1, 3, 4]


def test_a_damaged_line_costs_no_result(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(line("mined", 0)) + "\n[1]\n" + json.dumps(line("mined", 1))[:40])  # cut off
    assert records.append(path, line("even", 0))
    with pytest.raises(UserError, match="jsonl:2: "):
        records.read(path)
    texts = path.read_text().splitlines()
    path.write_text("\n".join([texts[0], texts[3]]))  # mended by hand, without an end of the last line
    assert records.append(path, line("even", 1))
    assert [(each["arm"], each["seed"]) for each in records.read(path)] == [("mined", 0), ("even", 0), ("even", 1)]


def write_many(path: Path, arm: str, count: int) -> None:
    for seed in range(count):
        records.append(path, {**line("mined", 0), "arm": arm, "seed": seed, "metrics": {"filling": "x" * 20_000}})
        records.read(path)  # never sees a part of a line


def test_processes_append_to_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "lines.jsonl"
    context = multiprocessing.get_context("fork")  # quick; nothing here computes in threads
    writers = [context.Process(target=write_many, args=(path, arm, 12)) for arm in ("a", "b", "a")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = [(each["arm"], each["seed"]) for each in records.read(path)]
    assert sorted(found) == [(arm, seed) for arm in "ab" for seed in range(12)]
