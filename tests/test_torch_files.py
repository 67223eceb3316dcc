"""singleshot.torch_files: what training programs leave in PyTorch's files is read, and no code of it is run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from singleshot import torch_files
from singleshot.errors import UserError
from singleshot.source import CLASS_NAMES, Source

PALETTE = [(220, 20, 60), (119, 11, 32)]


@pytest.fixture
def frameworks() -> Iterator[types.SimpleNamespace]:
    """Classes under the names of other frameworks, which exist only while the files are written."""

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.arange(3.0)
            self._count_history = np.ones(3, np.int64)

        def mean(self) -> float:
            return 0.0

    class ConfigDict(dict[str, Any]):
        def __reduce_ex__(self, _: Any) -> Any:
            return type(self), (dict(self),)

    class OldConfigDict(dict[str, Any]):
        """As a subclass of dict is pickled by itself."""

    class Config:
        def __init__(self) -> None:
            self._cfg_dict = {"model": 1}

        def __getstate__(self) -> Any:
            return (self._cfg_dict, "config.py", "text")

    places = {
        "mmengine.logging.history_buffer": HistoryBuffer,
        "mmengine.config.config": ConfigDict,
        "mmcv.utils.config": OldConfigDict,
        "mmengine.config": Config,
    }
    found = types.SimpleNamespace()
    for place in ("mmcv", "mmcv.utils", "mmengine", "mmengine.logging", "mmengine.config", *places):
        sys.modules[place] = types.ModuleType(place)
    for place, kind in places.items():
        kind.__module__, kind.__qualname__ = place, kind.__name__
        for name, value in vars(kind).items():
            if callable(value) and not name.startswith("__"):
                value.__module__, value.__qualname__ = place, f"{kind.__name__}.{name}"
        setattr(sys.modules[place], kind.__name__, kind)
        setattr(found, kind.__name__, kind)
    yield found
    forget()


def forget() -> None:
    for place in [name for name in sys.modules if name.startswith(("mmengine", "mmcv"))]:
        del sys.modules[place]


def state() -> OrderedDict[str, torch.Tensor]:
    return OrderedDict({"backbone.conv.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)})


def trained() -> dict[str, Any]:
    """The state of an optimiser, as SGD's `state_dict` gives it."""
    groups = [{"lr": 0.1, "momentum": 0.9, "dampening": 0, "nesterov": False, "foreach": None, "params": [0, 1]}]
    return {"state": {number: {"momentum_buffer": torch.ones(2)} for number in (0, 1)}, "param_groups": groups}


def of_mmdetection_2(one: types.SimpleNamespace) -> dict[str, Any]:
    averages = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in state().items()}
    meta = {
        "env_info": "sys.platform: linux", "config": "model = dict()", "seed": None, "mmdet_version": "2.25.0+ca11860",
        "CLASSES": ("cat", "dog"), "PALETTE": PALETTE, "epoch": 12, "hook_msgs": one.OldConfigDict(last_ckpt="e.pth"),
    }  # fmt: skip
    return {"meta": meta, "state_dict": {**state(), **averages}, "optimizer": trained()}


def of_mmdetection_3(one: types.SimpleNamespace) -> dict[str, Any]:
    scalars = OrderedDict({"train/loss": one.HistoryBuffer(), "mean": one.HistoryBuffer.mean})
    runtime = {"cfg": one.Config(), "best": np.float64(0.5), "when": deque([1]), "counts": defaultdict(list, a=[1])}
    meta = {
        "cfg": "model = dict()", "dataset_meta": one.ConfigDict(classes=("cat", "dog"), palette=PALETTE),
        "mmengine_version": "0.10.7", "epoch": 12, "iter": 100,
    }  # fmt: skip
    return {
        "meta": meta, "state_dict": state(), "optimizer": trained(),
        "message_hub": {"log_scalars": scalars, "runtime_info": OrderedDict(runtime), "resumed_keys": {}},
        "param_schedulers": [{"last_step": 3, "_global_step": np.int64(3)}],
        "ema_state_dict": OrderedDict(steps=torch.tensor(3), **{f"module.{k}": v for k, v in state().items()}),
    }  # fmt: skip


def of_torchvision(_: types.SimpleNamespace) -> dict[str, Any]:
    options = argparse.Namespace(
        lr=0.02, output_dir=PurePosixPath("out"), size=torch.Size([3, 2]), share=Fraction(1, 3)
    )
    schedule = {"milestones": Counter({16: 1, 22: 1}), "gamma": 0.1}
    return {"model": state(), "optimizer": trained(), "lr_scheduler": schedule, "args": options, "epoch": 25}


def of_lufficc(_: types.SimpleNamespace) -> dict[str, Any]:
    model = {f"module.{key}": value for key, value in state().items()}
    return {
        "model": model,
        "optimizer": trained(),
        "scheduler": {"milestones": [80000], "last_epoch": 5},
        "iteration": 5,
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("program", [of_mmdetection_2, of_mmdetection_3, of_torchvision, of_lufficc])
def test_what_training_programs_leave(
    frameworks: types.SimpleNamespace, program: Callable[..., dict[str, Any]], legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "epoch.pth"
    torch.save(program(frameworks), path, _use_new_zipfile_serialization=not legacy)
    forget()
    source = torch_files.read(path)
    assert not any(name.startswith(("mmengine", "mmcv")) for name in sys.modules), "nothing of theirs is imported"
    assert [key.removeprefix("module.") for key in source.tensors] == list(state())
    for value, expected in zip(source.tensors.values(), state().values(), strict=True):
        assert type(value) is torch.Tensor
        assert torch.equal(value, expected)
    if "mmdetection" in program.__name__:
        assert source.notes[CLASS_NAMES] == ["cat", "dog"]
        assert source.notes["meta"]["epoch"] == 12
        assert len(source.notes[torch_files.SECOND]) == 1  # averaged weights, which are said to be there
    if program is of_torchvision:
        assert source.notes["args"] == {"lr": 0.02, "size": [3, 2]}
        assert CLASS_NAMES not in source.notes
    pickle.dumps(source.notes)  # plain data


def test_names_of_classes(tmp_path: Path) -> None:
    def names(beside: dict[str, Any]) -> Any:
        torch.save({"state_dict": state(), **beside}, tmp_path / "a.pth")
        return torch_files.read(tmp_path / "a.pth").notes.get(CLASS_NAMES)

    assert names({"meta": {"CLASSES": "cell"}}) == ["cell"]
    assert names({"class_names": ["a", "b"]}) == ["a", "b"]
    odd: Any
    for odd in ({"names": {0: "a"}}, {"classes": ["a", "a"]}, {"classes": ["a", 1]}, {"classes": []}, {"meta": 3}):
        assert names(odd) is None


def test_a_state_dict_alone_or_within(tmp_path: Path) -> None:
    for content in (state(), {"model": {"state_dict": state()}}, {"ema": state(), "epoch": 3}):
        torch.save(content, tmp_path / "a.pth")
        assert list(torch_files.read(tmp_path / "a.pth").tensors) == list(state())


def test_the_state_of_an_optimizer_is_named(tmp_path: Path) -> None:
    torch.save(torch.optim.Adam(nn.Linear(2, 1).parameters()).state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds the state of an optimizer, expected that of a model"):
        torch_files.read(tmp_path / "a.pth")


# ----------------------------------------------------------------------------------------------------------- hostile
class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def pickles(content: bytes) -> bytes:
    """A file of PyTorch's older format with a pickle of one's own in it."""
    start: list[Any] = [torch.serialization.MAGIC_NUMBER, 1001, {}]
    return b"".join(pickle.dumps(one, 2) for one in start) + content


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        torch_files.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Calls(os.system, "touch trap"), f"{os.name}.system" if os.name == "nt" else "posix.system"),
        (Calls(eval, "open('trap', 'w')"), "builtins.eval"),
        (Calls(subprocess.Popen, ["touch", "trap"]), "subprocess.Popen"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
)
def test_what_needs_code_is_refused_by_name(
    value: Any, named: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "extra": value}, "a.pth", _use_new_zipfile_serialization=not legacy)
    message = refusal(Path("a.pth"))
    assert f"needs {named}" in message
    assert "torch.save(model.state_dict()" in message
    assert not Path("trap").exists()


def test_other_pickles_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(Calls(os.system, "touch trap"), protocol))
        assert "a pickle that needs posix.system" in refusal(path) or os.name == "nt"
    torch.save(state(), path, pickle_protocol=4)
    refusal(path)


def test_placeholders_do_nothing(tmp_path: Path) -> None:
    """Even a name that frameworks need, such as getattr, gives a placeholder when it is called."""
    content = b"\x80\x02c__builtin__\ngetattr\n(X\x01\x00\x00\x00aX\x01\x00\x00\x00btRX\x01\x00\x00\x00c\x85R."
    (tmp_path / "a.pth").write_bytes(pickles(content))
    refusal(tmp_path / "a.pth")  # what a placeholder gives cannot be called


def tuples(depth: int) -> bytes:
    return b"\x80\x02})" + b"\x85" * depth + b"Ns."  # {tuple of tuples: None}


def test_deep_tuples_end_in_a_message(tmp_path: Path) -> None:
    """Their hash would end the process."""
    (tmp_path / "a.pth").write_bytes(pickles(tuples(20_000)) + pickle.dumps([], 2))
    assert f"more than {torch_files.MOST_LEVELS} tuples" in refusal(tmp_path / "a.pth")
    lists = b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
    (tmp_path / "a.pth").write_bytes(pickles(lists) + pickle.dumps([], 2))
    assert "holds list" in refusal(tmp_path / "a.pth")


def test_endless_steps_end_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "MOST_STEPS", 1_000)
    (tmp_path / "a.pth").write_bytes(pickles(b"\x80\x02" + b"N0" * 600 + b"N.") + pickle.dumps([], 2))
    assert "more than 1,000 steps" in refusal(tmp_path / "a.pth")


def test_notes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "MOST_NOTES", 100)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    torch.save({"model": state(), "many": list(range(1_000)), "deep": deep}, tmp_path / "a.pth")
    assert list(torch_files.read(tmp_path / "a.pth").tensors) == list(state())


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "a.pth")
    assert "a has more values than the file holds" in refusal(tmp_path / "a.pth")
    one = torch.zeros(2**18)
    torch.save({f"a{number}": one for number in range(30)}, tmp_path / "a.pth")
    assert "more values than the file holds" in refusal(tmp_path / "a.pth")
    torch.save({"a": one, "b": one}, tmp_path / "a.pth")  # one tensor under two names is usual
    assert len(torch_files.read(tmp_path / "a.pth").tensors) == 2
    for odd in (torch.eye(2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)):
        torch.save({"a": odd}, tmp_path / "a.pth")
        assert "a is no ordinary tensor" in refusal(tmp_path / "a.pth")
    torch.save({"a": torch.zeros(3, device="meta")}, tmp_path / "a.pth")
    refusal(tmp_path / "a.pth")


def rewritten(path: Path, change: Callable[[bytes], bytes] = bytes, kind: int = zipfile.ZIP_STORED) -> None:
    """The archive once more, with another pickle or compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_archives_that_are_not_pytorchs(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(2**16)}, path)
    rewritten(path, kind=zipfile.ZIP_DEFLATED)
    assert "compressed after PyTorch wrote it" in refusal(path)
    torch.save({"a": torch.zeros(1)}, path)
    rewritten(path, lambda _: tuples(1_000))
    assert "tuples within each other" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "x")
    assert "without PyTorch's data" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/data.pkl", "a/constants.pkl", "a/code/x.py"):
            archive.writestr(name, "x")
    assert "TorchScript" in refusal(path)
    with tarfile.open(path, "w") as archive_of_old:
        archive_of_old.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_at_any_place(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": state(), "args": argparse.Namespace(a=1)}, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for size in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:size])
        refusal(path)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    """The names that the restricted reader takes are one set for all threads of a process."""
    torch.save({"model": state(), "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    found: list[Source] = []
    before = set(torch.serialization.get_safe_globals())
    threads = [
        threading.Thread(target=lambda: found.extend(torch_files.read(tmp_path / "a.pth") for _ in range(10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert set(torch.serialization.get_safe_globals()) == before
