"""A loss that is not finite stops the run, and leaves what is needed to look at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_detector import OWN
from torch import Tensor

from singleshot.detectors.detector import Detector
from singleshot.files import write_atomically
from singleshot.training import DivergedError, load_batch, train
from singleshot.training.recipe import Recipe


@pytest.mark.parametrize(("poison", "term"), [(float("nan"), "box"), (float("inf"), "classification")])
def test_a_loss_that_is_not_finite(
    tmp_path: Path,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    poison: float,
    term: str,
) -> None:
    seen: list[tuple[list[Tensor], list[dict[str, Tensor]]]] = []
    original = Detector.forward

    def forward(self: Detector, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> object:
        found = original(self, images, targets)
        if targets is None:
            return found
        seen.append((images, targets))
        assert isinstance(found, dict)
        return {name: value * poison if name == term and len(seen) == 4 else value for name, value in found.items()}

    monkeypatch.setattr(Detector, "forward", forward)
    with pytest.raises(DivergedError, match=f"step 4.*term {term}.*train") as caught:
        train(make_recipe(log__save_every=2), out=tmp_path / "run")
    assert caught.value.terms == [term]
    assert caught.value.path is not None
    images, targets, names = load_batch(caught.value.path)
    assert names == caught.value.names
    assert len(names) == 2
    for image, saved in zip(seen[3][0], images, strict=True):
        assert torch.equal(image, saved)
    for target, again in zip(seen[3][1], targets, strict=True):
        assert target.keys() == again.keys()
        assert all(torch.equal(target[key], again[key]) for key in target)

    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("diverged"):
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr("singleshot.training.folder.write_atomically", full)
        with pytest.raises(
            DivergedError, match=f"term {term}.*The batch is not saved: .*No space left.*Lower"
        ) as caught:
            train(resume=tmp_path / "run", builder=OWN)
    assert caught.value.path is None
    monkeypatch.undo()
    train(resume=tmp_path / "run", builder=OWN)  # the state saved before is sound
