"""Reads the tensors of PyTorch's files, and the plain data beside them. No code of a file is run or imported.

PyTorch's restricted reader (`weights_only=True`) does the reading. Names that training frameworks leave in their files
are given to it as placeholders of ours, which do nothing. The file is looked through before: by which names it needs,
and whether it could take more time or memory than its size.
"""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from singleshot.errors import UserError, shown, some
from singleshot.source import CLASS_NAMES, Source

TITLE = "a PyTorch file"

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "weights", "ema")
"""Where programs put the state dict in their file; the first that is there counts."""

KNOWN = re.compile(
    r"(mmengine|mmcv|mmdet|addict|yacs|omegaconf|fvcore|detectron2|numpy|pathlib|datetime|fractions|decimal|uuid)\..*"
    r"|(pytorch_lightning|lightning|lightning_fabric|lightning_utilities|torch\.optim|torch\.torch_version)\..*"
    r"|argparse\.Namespace|types\.SimpleNamespace|collections\.(defaultdict|deque)|copyreg\._reconstructor"
    r"|builtins\.(bool|bytes|dict|float|frozenset|getattr|int|list|object|range|slice|str|tuple)"
)
"""Names in files that are read as placeholders: what training frameworks leave beside their weights."""

_PLAIN = re.compile(
    r"torch\.(cuda\.)?\w+|torch\.storage\.\w+|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)"
    r"|_codecs\.encode|builtins\.(bytearray|complex|set)"
)
"""Names that PyTorch's reader knows or refuses by itself."""

SECOND = "second weights"
"""The note that names further weights in the file, averages or those before averaging, which are not used."""

MOST_STEPS = 1_000_000
"""Steps of the pickle in a file. A file of weights has some for each tensor, one of a long training 100,000."""
MOST_LEVELS = 100
"""Levels of tuples within tuples; Python's own hash of a deeper one could end the process."""
MOST_NOTES = 100_000
"""Values of plain data that are kept as notes."""
_NOTE_LEVELS = 20
_MOST_SHARED = 10  # the values of all tensors, in sizes of the file: some programs give one tensor several names
_SPARE = 2**20  # bytes

_LOCK = threading.Lock()  # the allowed names are one set for all threads


class Placeholder:
    """Stands for an object of another program. It keeps what the file gives it, and does nothing."""

    def __init__(self, *values: Any) -> None:
        self.values = values
        self.state: Any = None

    def __new__(cls, *values: Any) -> Placeholder:
        """Any arguments: the file decides how often an object is made, and with what."""
        made = super().__new__(cls)
        Placeholder.__init__(made, *values)
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def recognises(start: bytes) -> bool:
    """A zip archive, a pickle, or the tar archive of very old versions (which is told apart when it is read)."""
    return start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"


def read(path: Path) -> Source:
    """The tensors of a PyTorch file: its state dict, by itself or in one of `CONTAINERS`.

    The notes are the plain data beside it, and `CLASS_NAMES` if it says the names of the classes.

    Raises:
        UserError: it is no such file, is damaged, holds something else, or needs code.
    """
    where = f"{path}: "
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        names = _names_in_zip(path) if zipped else _names_in_pickles(path)
    except _Refused as error:
        raise UserError(f"{where}{error}") from error
    except (zipfile.BadZipFile, pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError, RuntimeError) as e:
        raise UserError(f"{where}not a weights file, or a damaged one ({e}); {_EXPECTED}") from e
    needed = [name for name in names if not _PLAIN.fullmatch(name)]
    if refused := [name for name in needed if not KNOWN.fullmatch(name)]:
        raise UserError(
            f"{where}needs {some(refused, limit=3)}: code of a program, and no code that a file names is used here. "
            "Save the weights alone with that program: torch.save(model.state_dict(), 'weights.pth')"
        )
    content = _loaded(path, where, [(_STAND_INS[names[name]], name) for name in needed])
    return _source(content, path, where)


_EXPECTED = (
    "expected safetensors, or a PyTorch file that holds only tensors "
    "(a whole pickled model is refused: save its state_dict() instead)"
)


class _Refused(Exception):
    """The file is sound, but is not read."""


# ------------------------------------------------------------------------------------------------- before it is read
def _names_in_zip(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        inner = [entry.filename.partition("/")[2] for entry in entries]
        if "constants.pkl" in inner:
            raise _Refused(f"this is a TorchScript program, and no code from a file is run here; {_EXPECTED}")
        if inner.count("data.pkl") != 1 or len(set(inner)) != len(inner):
            raise _Refused(f"not a weights file: a zip archive without PyTorch's data; {_EXPECTED}")
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise _Refused("this archive was compressed after PyTorch wrote it; load it and save it again with torch")
        data = archive.read(entries[inner.index("data.pkl")])
    with io.BytesIO(data) as file:
        return _walk(file, _Budget()).kinds


def _names_in_pickles(path: Path) -> dict[str, str]:
    """PyTorch's older format: five pickles, then the numbers."""
    found: dict[str, str] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        budget = _Budget()
        for number in range(5):
            walked = _walk(view, budget)
            found |= walked.kinds
            if number == 0 and walked.value != torch.serialization.MAGIC_NUMBER:
                names = [name for name in found if not _PLAIN.fullmatch(name)]
                needs = f" (a pickle that needs {some(names, limit=3)})" if names else ""
                raise _Refused(f"not a weights file{needs}; {_EXPECTED}")
    return found


class _Budget:
    """The steps that are left for all pickles of a file."""

    def __init__(self) -> None:
        self.left = MOST_STEPS


class _Item(NamedTuple):
    """What is known of a value on the stack of a pickle."""

    levels: int = 0  # of tuples within it
    name: str = ""  # it is this global
    made: str = ""  # it is an object that this global gave
    value: Any = None  # a number or text


class _Walked(NamedTuple):
    kinds: dict[str, str]  # each global -> "mapping" or "list", if entries are put into an object of it
    value: Any  # of the pickle, if it is a number or text


_MARK = _Item(name="the mark")
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_INTO = {"SETITEM": "mapping", "SETITEMS": "mapping", "APPEND": "list", "APPENDS": "list"}


def _walk(file: Any, budget: _Budget) -> _Walked:
    """Go through one pickle, step by step, without making anything: which names it needs, and what it does to them."""
    kinds: dict[str, str] = {}
    stack: list[_Item] = []
    memo: dict[int, _Item] = {}
    value: Any = None
    for code, argument, _ in pickletools.genops(file):
        budget.left -= 1
        if budget.left < 0:
            raise _Refused(f"its pickle has more than {MOST_STEPS:,} steps, and weights need far less")
        name = code.name
        if name == "GLOBAL":
            place = _now_called(*str(argument).split(" ", 1))
            kinds.setdefault(place, "")
            stack.append(_Item(name=place))
        elif name == "STACK_GLOBAL":  # of later protocols, which PyTorch does not write: only to tell the name
            last, module = stack.pop().value, stack.pop().value
            place = _now_called(str(module), str(last))
            kinds.setdefault(place, "")
            stack.append(_Item(name=place))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(str(argument))])
        elif name in ("REDUCE", "NEWOBJ"):
            stack.pop()
            stack.append(_Item(made=stack.pop().name))
        elif name == "BUILD":
            stack.pop()
        elif name in _INTO:
            _pop(stack, code)
            if stack[-1].made:
                kinds[stack[-1].made] = _INTO[name]
        else:
            items = _pop(stack, code)
            levels = 1 + max((item.levels for item in items), default=0) if name in _TUPLES else 0
            if levels > MOST_LEVELS:
                raise _Refused(f"its pickle has more than {MOST_LEVELS} tuples within each other")
            stack += [_Item(levels=levels, value=argument if isinstance(argument, int | str) else None)] * len(
                code.stack_after
            )
        if name == "STOP":
            value = items[0].value
    return _Walked(kinds, value)


def _pop(stack: list[_Item], code: pickletools.OpcodeInfo) -> list[_Item]:
    """Take what a step takes from the stack, without the object that `_INTO` keeps."""
    if pickletools.markobject in code.stack_before:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items
    count = len(code.stack_before) - (code.name in _INTO)
    return [stack.pop() for _ in range(count)]


def _now_called(module: str, name: str) -> str:
    """The whole name of a global, as Python 3 has it."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


# -------------------------------------------------------------------------------------------------------- reading it
class _Mapping:
    """Stands for a class of mappings. The restricted reader puts entries into plain ones only."""

    def __new__(cls, *values: Any) -> Any:
        return OrderedDict(values[0] if values and isinstance(values[0], dict) else ())


class _List:
    """Stands for a class of lists."""

    def __new__(cls, *values: Any) -> Any:
        return list(values[0]) if values and isinstance(values[0], list | tuple) else []


_STAND_INS: Mapping[str, type] = {"": Placeholder, "mapping": _Mapping, "list": _List}


def _loaded(path: Path, where: str, allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]]) -> Any:
    try:
        with _LOCK, torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about newer pickles: the reader refuses what it cannot read
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # with damaged bytes the reader may raise any exception
        said = str(error).strip().splitlines() or [""]
        why = next((line for line in said if "WeightsUnpickler error" in line), said[0])
        raise UserError(f"{where}not a weights file, or a damaged one ({why}); {_EXPECTED}") from error


def _source(content: Any, path: Path, where: str) -> Source:
    weights = content
    beside: dict[Any, Any] = {}
    while isinstance(weights, Mapping):
        name = next((name for name in CONTAINERS if isinstance(weights.get(name), Mapping | Placeholder)), None)
        if name is None:
            break
        beside |= {key: value for key, value in weights.items() if key != name}
        weights = weights[name]
    if isinstance(weights, Placeholder):
        raise UserError(f"{where}holds a whole model of another program, expected its state dict; {_EXPECTED}")
    if not isinstance(weights, Mapping) or not weights:
        raise UserError(
            f"{where}holds {type(weights).__name__}, expected a state dict (name -> tensor); save state_dict() instead"
        )
    if {"state", "param_groups"} <= set(weights):
        raise UserError(
            f"{where}holds the state of an optimizer, expected that of a model; save the model's state_dict() instead"
        )
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{where}{shown(key)!r} is {type(value).__name__}, expected a state dict that holds only tensors; "
                "save state_dict() instead"
            )
    tensors = dict(weights)
    averages = [name for name in (f"ema_{key.replace('.', '_')}" for key in weights) if name in tensors]
    for name in averages:
        del tensors[name]
    _check_sizes(tensors, path.stat().st_size, where)
    plain = _Plain()
    notes = {str(key): kept for key, value in beside.items() if (kept := plain.of(value)) is not None}
    if (names := _class_names(notes)) is not None:
        notes[CLASS_NAMES] = names
    if second := [*averages[:1], *(key for key, value in beside.items() if _is_second(key, value))]:
        notes[SECOND] = second
    return Source({key: Tensor.detach(value) for key, value in tensors.items()}, notes, where)


def _is_second(key: Any, value: Any) -> bool:
    return "ema" in str(key) and isinstance(value, Mapping) and any(isinstance(one, Tensor) for one in value.values())


def _check_sizes(tensors: Mapping[str, Tensor], size: int, where: str) -> None:
    """Refuse tensors that hold no values, or more than the file does."""
    storages: dict[int, int] = {}
    total = 0
    for name, tensor in tensors.items():
        ordinary = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not ordinary or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{where}{shown(name)} is no ordinary tensor (it is sparse, quantised or empty)")
        storage, bytes_of_it = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        storages[storage.data_ptr()] = storage.nbytes()
        total += bytes_of_it
        if bytes_of_it > storage.nbytes():
            raise UserError(f"{where}damaged: {shown(name)} has more values than the file holds for it")
    if sum(storages.values()) > size + _SPARE or total > _MOST_SHARED * size + _SPARE:
        raise UserError(f"{where}damaged: its tensors have more values than the file holds")


class _Plain:
    """Makes plain data of what a file says, `MOST_NOTES` values of it at most."""

    def __init__(self) -> None:
        self.left = MOST_NOTES

    def of(self, value: Any, level: int = 0) -> Any:
        """Text, numbers, lists and mappings with text as keys; None for everything else."""
        self.left -= 1
        if self.left < 0 or level > _NOTE_LEVELS:
            return None
        if isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, Placeholder):
            inner = value.state if value.state is not None else next(iter(value.values), None)
            return self.of(inner, level + 1) if isinstance(inner, Mapping) else None
        if isinstance(value, Mapping):
            kept = {key: self.of(one, level + 1) for key, one in value.items() if isinstance(key, str)}
            return {key: one for key, one in kept.items() if one is not None} or None
        if isinstance(value, list | tuple):
            return [self.of(one, level + 1) for one in value]
        return None


_NAMES_AT = (
    ("meta", "CLASSES"),
    ("meta", "dataset_meta", "classes"),
    ("meta", "dataset_meta", "CLASSES"),
    ("dataset_meta", "classes"),
    ("class_names",),
    ("classes",),
    ("CLASSES",),
    ("names",),
)
"""Where programs note the names of the classes."""


def _class_names(notes: Mapping[str, Any]) -> list[str] | None:
    for place in _NAMES_AT:
        found: Any = notes
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, str):  # ("cell") in place of ("cell",), a slip that many make
            found = [found]
        if isinstance(found, Sequence) and found and all(isinstance(one, str) and one for one in found):
            return list(found) if len(set(found)) == len(found) else None
    return None
