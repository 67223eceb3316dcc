"""Weights of other projects: recognised by their tensors, every one of which is taken, unneeded or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toy_importer
from safetensors.torch import save_file
from torch import Tensor

from singleshot.detectors import Detector, ssd
from singleshot.errors import UserError
from singleshot.source import CLASS_NAMES, Source
from singleshot.weights.importers import IMPORTERS, import_weights


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "toy", "toy_importer")


@pytest.fixture(scope="module")
def original() -> Detector:
    torch.manual_seed(0)
    return ssd(num_classes=2, backbone="mobilenetv2", image_size=64).eval()


@pytest.fixture
def foreign(original: Detector) -> dict[str, Tensor]:
    """The same weights as the toy project would name them, with a tensor that has no place here."""
    state = {f"toy/{key.replace('.', '/')}": value.clone() for key, value in original.state_dict().items()}
    return {**state, "toy/optimizer/step": torch.tensor(3.0)}


def test_the_layout_is_recognised_and_gives_the_same(
    foreign: dict[str, Tensor], original: Detector, tmp_path: Path
) -> None:
    save_file(foreign, tmp_path / "weights.safetensors")
    image = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(1))
    for source in (foreign, tmp_path / "weights.safetensors"):
        found = import_weights(source, class_names=["cat", "dog"])
        assert found.class_names == ("cat", "dog")
        assert not found.training
        with torch.no_grad():
            ours, theirs = found([image])[0], original([image])[0]
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_layout_by_name(foreign: dict[str, Tensor]) -> None:
    assert import_weights(foreign, layout="toy").num_classes == 2
    with pytest.raises(UserError, match="'tory' is not a known layout; did you mean toy"):
        import_weights(foreign, layout="tory")


def test_every_tensor_is_taken_or_named(foreign: dict[str, Tensor]) -> None:
    extra = {**foreign, "toy/more": torch.zeros(1)}
    with pytest.raises(UserError, match="not those of the toys' SSD on mobilenetv2: 1 unexpected: toy/more"):
        import_weights(extra)
    name = next(name for name in foreign if name.endswith("class_logits/weight"))
    with pytest.raises(UserError, match=f"1 missing: {name}"):
        import_weights({key: value for key, value in foreign.items() if key != name})
    with pytest.raises(UserError, match=rf"1 of another shape: {name} is \(1,\), expected"):
        import_weights({**foreign, name: torch.zeros(1)})
    with pytest.raises(UserError, match="1 tensor with NaN or infinite values"):
        import_weights({**foreign, name: foreign[name] * torch.inf})


def test_no_layout_and_several(foreign: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        UserError, match=r"other\.safetensors: these weights have no known layout .*begin with conv.weight"
    ):
        import_weights(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="nothing: there are none"):
        import_weights({})
    monkeypatch.setitem(IMPORTERS, "again", "toy_importer")
    with pytest.raises(UserError, match="fits several layouts: toy, again; name one"):
        import_weights(foreign)


def test_what_is_given_stays_as_it_is(foreign: dict[str, Tensor]) -> None:
    before = {key: value.clone() for key, value in foreign.items()}
    detector = import_weights(foreign)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in foreign.items())


def test_the_toy_says_what_it_does() -> None:
    assert toy_importer.recognises(Source({"toy/a": torch.zeros(1)}))
    assert not toy_importer.recognises(Source({"a": torch.zeros(1)}))


def test_only_ordinary_numbers_are_taken(foreign: dict[str, Tensor]) -> None:
    """Half precision is; whole and complex numbers, sparse tensors and those without values are not."""
    name = next(key for key, value in foreign.items() if value.dim() == 4)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in foreign.items()}
    assert all(parameter.dtype == torch.float32 for parameter in import_weights(halves).parameters())
    others = {
        "torch.int64": foreign[name].long(),
        "torch.complex64": foreign[name].to(torch.complex64),
        "torch.sparse_coo": foreign[name].to_sparse(),
        "on meta": foreign[name].to("meta"),
    }
    for kind, other in others.items():
        with pytest.raises(UserError, match=rf"1 that cannot be read.*{name}.*{kind}"):
            import_weights({**foreign, name: other})


def test_a_state_dict_has_names_and_tensors(foreign: dict[str, Tensor]) -> None:
    given: list[dict[Any, Any]] = [{"epoch": 3}, {3: torch.zeros(1)}]
    for more in given:
        with pytest.raises(UserError, match=r"(epoch|3).* is (int|Tensor), expected a state dict"):
            import_weights({**foreign, **more})


def test_a_text_is_no_list_of_names(foreign: dict[str, Tensor]) -> None:
    with pytest.raises(UserError, match="class_names: expected a list of names, got the text 'ab'"):
        import_weights(foreign, class_names="ab")
    noted = import_weights(Source(foreign, {CLASS_NAMES: "ab"}))
    assert noted.class_names == ("class 1", "class 2")
