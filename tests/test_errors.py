"""What an error says of a word that is nearly right."""

from __future__ import annotations

from singleshot.errors import did_you_mean, in_brackets


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
