"""The comparison of the two ways to suppress: the same survivors, on candidates that need suppression."""

from __future__ import annotations

import json

import pytest
import suppression
import torch

from singleshot.ops.nms import nms_sorted


def test_both_ways_have_the_same_survivors() -> None:
    boxes, valid = suppression.candidates(images=2, classes=4, number=90, seed=0)
    assert valid.sum(1).tolist() == [90, 72, 58, 47] * 2
    ours = nms_sorted(boxes, valid, 0.45)
    assert torch.equal(ours, suppression.at_once(boxes, valid, 0.45))
    assert 0 < int(ours.sum()) < int(valid.sum()) / 2


def test_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "1", "--classes", "2", "--candidates", "20", "70", "--rounds", "1"]
    assert suppression.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["20", "70"]
    assert all(value > 0 for line in found.values() for value in line.values())
    assert suppression.main(words) == 0
    assert "1 x 2 x 20 candidates: " in capsys.readouterr().out
