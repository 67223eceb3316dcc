"""What an error says of a word that is nearly right."""

from __future__ import annotations

import pickle

import pytest

from singleshot.errors import UserError, did_you_mean, in_brackets, short, shown, some


def test_the_nearest_words_are_told() -> None:
    assert did_you_mean("--batch-sise", ["--batch-size", "--seed"]) == "did you mean --batch-size?"
    assert did_you_mean("val1", ["val0", "val2", "train"]) in (
        "did you mean val0 or val2?",
        "did you mean val2 or val0?",
    )
    assert did_you_mean("val1", ["val0", "val2"], number=1).count("val") == 1
    assert did_you_mean("xyz", ["--batch-size"]) == ""
    assert did_you_mean("x", [], otherwise="there are none") == "there are none"


def test_case_does_not_matter_and_words_are_told_as_they_are_written() -> None:
    assert did_you_mean("VOEGEL", ["Voegel", "cat"], show=repr) == "did you mean 'Voegel'?"
    assert did_you_mean("cat", ["CAT", "Cat"], number=1) == "did you mean CAT?"


def test_a_hint_within_a_sentence() -> None:
    assert in_brackets(did_you_mean("ca", ["cat"], show=repr)) == " (did you mean 'cat'?)"
    assert in_brackets("") == ""


def test_what_cannot_be_seen_is_escaped() -> None:
    assert shown("a\nb\x1b[31m\u202ec\udce9\x7f\x00") == "a\\nb\\x1b[31m\\u202ec\\udce9\\x7f\\x00"
    for fine in ("Käfer", "猫 🐈", "C:\\data", "می\u200cخواهم", "👩\u200d🔬", "1\u00a0000"):
        assert shown(fine) == fine


def test_a_long_name_is_cut_in_its_middle() -> None:
    text = shown(f"first{'x' * 10_000}last")
    assert text.startswith("firstx")
    assert text.endswith("xlast")
    assert len(text) <= 200
    assert "[... 9,849 letters ...]" in text
    assert len(shown("\x00" * 10_000)) <= 200
    assert shown(shown("x" * 10_000)) == shown("x" * 10_000)


def test_lines_of_an_error_are_our_own() -> None:
    error = UserError("a\nb", "c")
    assert str(error) == "a\\nb\nc"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_it_is_an_ordinary_error() -> None:
    with pytest.raises(ValueError, match=r"^first\nsecond$"):
        raise UserError("first", "second")
    assert str(pickle.loads(pickle.dumps(UserError("first", "second")))) == "first\nsecond"  # also from other processes


def test_an_error_is_never_long() -> None:
    assert len(str(UserError("x" * 9_000_000))) <= 4_000
    text = str(UserError(*["x" * 9_000_000] * 100, "what to do"))
    assert len(text) <= 20_000
    assert text.endswith("what to do")


def test_a_value_of_any_size_and_depth_is_short() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    wide: object = "lol"
    for _ in range(30):
        wide = [wide] * 10
    for value in (
        deep,
        wide,
        {"a": wide},
        10**5000,
        [10**5000],
        "x" * 9_000_000,
        "\udce9",
        dict.fromkeys(range(10**6)),
    ):
        assert len(short(value)) <= 60
    while deep:  # without recursion
        deep = deep[0]  # type: ignore[assignment]
    assert short({"b": 1, "a": [1.5, None]}) == "{'b': 1, 'a': [1.5, None]}"
    assert short("x" * 80) == f"'{'x' * 56}..."
    assert short({}) == "{}"


def test_some_names() -> None:
    assert some(["a\nb", *"cdef"], "missing") == "5 missing: a\\nb, c, d, e and 1 more"
    assert some(["a"], "names that differ", one="name that differs") == "1 name that differs: a"
