"""The scripts that measure a GPU and matching run; what they measure needs a quiet machine, or a GPU."""

from __future__ import annotations

import argparse

import gpu
import matching
import pytest


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_processor() -> None:
    options = argparse.Namespace(device="cpu", models=["ssd300_vgg16"], rounds=1, steps=1, tiny=True)
    found = gpu.measure(options)
    for work in ("training", "inference"):
        row = found[f"ssd300_vgg16, {work}, singleshot"]
        assert row["images_per_second"] > 0
        assert row["share_of_peak"] > 0


def test_matching_gives_a_row_for_each_number_of_objects() -> None:
    found = matching.measure([1, 3], rounds=1, dense=True)
    assert list(found) == ["1", "3"]
    assert all(row["near"] > 0 and row["dense"] > 0 for row in found.values())
