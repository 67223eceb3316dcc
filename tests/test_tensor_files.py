"""Safetensors files with a fixed order and a checksum."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from singleshot.errors import UserError
from singleshot.tensor_files import all_finite, broken, may_be_infinite, packed, refuse_broken, unpacked

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor(3, dtype=torch.int64),
    "half": torch.ones(3, dtype=torch.float16),
    "none": torch.zeros(0, 4),
}
TEXT = {name: json.dumps({"name": name, "letter": "é"}) for name in "zyxwvutsrqponmlkjihgfedcba"}


def test_back_and_the_library_reads_it() -> None:
    content = packed(TENSORS, TEXT)
    tensors, text = unpacked(content, "")
    assert text == TEXT
    for found in (tensors, load(content)):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
        assert all(found[name].dtype == value.dtype for name, value in TENSORS.items())


def test_the_same_content_gives_the_same_bytes() -> None:
    again = packed(dict(reversed(TENSORS.items())), dict(reversed(TEXT.items())))
    assert again == packed(TENSORS, TEXT)
    header = json.loads(again[8 : 8 + int.from_bytes(again[:8], "little")])
    assert list(header["__metadata__"])[:26] == sorted(TEXT)  # the library's own order differs in each process


def test_tensors_that_share_memory_and_parameters() -> None:
    whole = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    found = unpacked(packed({"a": whole, "b": whole, "turned": whole.T}, {}), "")[0]
    assert torch.equal(found["a"], whole)
    assert torch.equal(found["b"], whole)
    assert torch.equal(found["turned"], whole.T)


def test_every_flipped_bit_is_found() -> None:
    content = packed({"weight": torch.arange(4.0)}, {"format": "singleshot"})
    key = content.index(b"sha256")  # damage to these six letters makes a file without a checksum
    for place in sorted(set(range(len(content))) - set(range(key, key + 6))):
        for bit in (0, 6):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(UserError, match=r"^file: (damaged|not a safetensors file)"):
                unpacked(bytes(damaged), "file: ")


def test_a_file_without_a_checksum_is_read() -> None:
    tensors, text = unpacked(save(TENSORS, TEXT), "")
    assert text == TEXT
    assert tensors.keys() == TENSORS.keys()
    assert unpacked(save(TENSORS), "")[1] == {}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_values_that_are_not_finite(value: float, dtype: torch.dtype) -> None:
    tensor = torch.zeros(3, 2, dtype=dtype)
    assert all_finite(tensor)
    tensor[2, 1] = value
    assert not all_finite(tensor)
    with pytest.raises(UserError, match="^file: 1 tensor with NaN or infinite values: b; take another one$"):
        refuse_broken({"a": torch.zeros(2), "b": tensor}, "file: ", "take another one")
    with pytest.raises(UserError, match="^file: 2 tensors with NaN or infinite values: a, b; take another one$"):
        refuse_broken({"a": tensor, "b": tensor}, "file: ", "take another one")


def test_a_mask_may_be_infinite_and_what_is_learnt_may_not() -> None:
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    module = Masked()
    assert broken(module.state_dict()) == ["mask"]
    assert broken(module.state_dict(), may_be_infinite(module)) == []
    for name in ("norm.weight", "norm.running_var"):
        other = Masked()
        other.state_dict()[name][0] = torch.inf
        assert broken(other.state_dict(), may_be_infinite(other)) == [name]
    module.state_dict()["mask"][0] = torch.nan
    assert broken(module.state_dict(), may_be_infinite(module)) == ["mask"]


def test_what_is_always_finite() -> None:
    assert all_finite(torch.tensor(3))
    assert all_finite(torch.zeros(0))
    assert all_finite(torch.tensor(1e300, dtype=torch.float64))
