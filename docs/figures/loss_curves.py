"""Draws the curves of Figures 1, 5, 6 and 7 of the focal loss paper, from the losses of this package.

    python docs/figures/loss_curves.py [--output docs/images]

Writes loss_gammas.png (Figure 1), loss_variants.png (5), loss_slopes.png (6) and loss_settings.png (7). Values and
slopes are those that training uses, not formulas of their own.
"""

from __future__ import annotations

import argparse
import io
import itertools
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from singleshot.losses.focal import FocalLoss, FocalStarLoss
from singleshot.losses.sigmoid import BalancedCrossEntropy, SigmoidLoss

# Okabe and Ito's colours, told apart by the colour-blind too; the dashes do it without any colour.
BLUE, ORANGE, GREEN, RED, PURPLE, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000"
CROSS_ENTROPY = BalancedCrossEntropy(alpha=None)
VARIANTS: list[tuple[str, SigmoidLoss, str, str]] = [
    ("CE", CROSS_ENTROPY, BLACK, "-"),
    ("FL, γ = 2", FocalLoss(alpha=None, gamma=2.0), BLUE, "-"),
    ("FL*, γ = 2, β = 1", FocalStarLoss(2.0, 1.0, alpha=None), ORANGE, "--"),
    ("FL*, γ = 4, β = 0", FocalStarLoss(4.0, 0.0, alpha=None), GREEN, "-."),
]
STYLE: Any = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.9,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


def curve(loss: SigmoidLoss, x_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope in x of an example with y = 1, without alpha."""
    value, slope = loss.curve(-torch.from_numpy(x_t))
    return value.numpy(), -slope.numpy()


def canvas() -> tuple[Figure, Axes]:
    """An empty plot of the size that all these figures have."""
    figure, axes = plt.subplots(figsize=(5.6, 3.5), dpi=120, layout="constrained")
    return figure, axes


def over_probability() -> Figure:
    """Figure 1: the loss over the probability of the true class."""
    figure, axes = canvas()
    p_t = np.linspace(0.004, 0.999, 600)
    colours = zip(
        (0.0, 0.5, 1.0, 2.0, 5.0), (BLACK, BLUE, ORANGE, GREEN, RED), ("-", "--", "-.", "-", ":"), strict=True
    )
    axes.axvspan(0.6, 1, color="#f2f2f2", zorder=0)
    axes.text(0.8, 4.72, "well-classified", ha="center", va="top", color="#555555")
    for gamma, colour, dashes in colours:
        loss = FocalLoss(alpha=None, gamma=gamma)
        label = f"γ = {gamma:g}" + (" (cross-entropy)" if gamma == 0 else "")
        axes.plot(p_t, curve(loss, np.log(p_t / (1 - p_t)))[0], dashes, color=colour, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 5), xlabel="probability of the true class, $p_t$", ylabel="loss")
    axes.set_title("Focal loss, $-(1 - p_t)^γ\\,\\log\\,p_t$", fontsize=10.5, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(0.2, 0.98))
    return figure


def over_logit() -> Figure:
    """Figure 5: the variants over the logit."""
    figure, axes = canvas()
    x_t = np.linspace(-6, 6, 600)
    for label, loss, colour, dashes in VARIANTS:
        axes.plot(x_t, curve(loss, x_t)[0], dashes, color=colour, label=label)
    sides(axes, 5.7)
    axes.set(xlim=(-6, 6), ylim=(0, 6), xlabel="logit towards the true answer, $x_t = y x$", ylabel="loss")
    axes.set_title("Focal loss and its variant FL*", fontsize=10.5, loc="left")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    return figure


def slopes() -> Figure:
    """Figure 6: the derivatives of the same losses."""
    figure, axes = canvas()
    x_t = np.linspace(-6, 6, 600)
    for label, loss, colour, dashes in VARIANTS:
        axes.plot(x_t, curve(loss, x_t)[1], dashes, color=colour, label=label)
    sides(axes, 0.08)
    axes.set(xlim=(-6, 6), ylim=(-1.35, 0.1), xlabel="logit towards the true answer, $x_t = y x$")
    axes.set_ylabel("slope of the loss in $x$, for $y = 1$")
    axes.set_title("How hard each example pulls", fontsize=10.5, loc="left")
    axes.legend(loc="lower right")
    return figure


def settings() -> Figure:
    """Figure 7: FL* for many settings, coloured by what the paper says makes them effective: light pull where right.

    The paper colours by the AP that it measured, which it gives in numbers for two settings only (Table 3).
    """
    figure, axes = canvas()
    x_t = np.linspace(-5, 5, 300)
    limit = 0.5 * abs(curve(CROSS_ENTROPY, np.array([1.0]))[1][0])
    named = {(2.0, 1.0): (ORANGE, "--", 33.8), (4.0, 0.0): (GREEN, "-.", 33.9)}
    groups = {
        True: ("#56B4E9", "-", "FL* that pull less than half as\nhard as CE at $x_t$ = 1"),
        False: ("#999999", ":", "FL*, others"),
    }
    for light, (colour, dashes, label) in groups.items():
        for gamma, beta in itertools.product((1.0, 2.0, 3.0, 4.0), (-1.0, 0.0, 1.0, 2.0)):
            loss = FocalStarLoss(gamma, beta, alpha=None)
            if (gamma, beta) not in named and (abs(curve(loss, np.array([1.0]))[1][0]) < limit) == light:
                axes.plot(x_t, curve(loss, x_t)[0], dashes, color=colour, lw=1.0 if light else 1.3)
        axes.plot([], [], dashes, color=colour, label=label)
    for (gamma, beta), (colour, dashes, ap) in named.items():
        value, _ = curve(FocalStarLoss(gamma, beta, alpha=None), x_t)
        axes.plot(x_t, value, dashes, color=colour, lw=2.2, label=f"FL*, γ = {gamma:g}, β = {beta:g} (AP {ap})")
    axes.plot(x_t, curve(CROSS_ENTROPY, x_t)[0], color=BLACK, label="CE (AP 31.1)")
    axes.plot(x_t, curve(FocalLoss(None, 2.0), x_t)[0], color=BLUE, label="FL, γ = 2 (AP 34.0)")
    sides(axes, 4.75)
    axes.set(xlim=(-5, 5), ylim=(0, 5), xlabel="logit towards the true answer, $x_t = y x$", ylabel="loss")
    axes.set_title("FL*, γ in 1 ... 4 and β in −1 ... 2; AP as in the paper's Table 3", fontsize=10.5, loc="left")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.91), fontsize=8.5)
    return figure


def sides(axes: Axes, height: float) -> None:
    """Which half is right."""
    axes.axvline(0, color="#999999", lw=0.9, zorder=1)
    axes.text(-0.2, height, "wrong", ha="right", va="top", color="#555555")
    axes.text(0.2, height, "right", ha="left", va="top", color="#555555")


def main() -> None:
    """The command line: draw all figures into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "images")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"gammas": over_probability, "variants": over_logit, "slopes": slopes, "settings": settings}
    with plt.rc_context(STYLE):
        for name, draw in drawings.items():
            figure, drawn = draw(), io.BytesIO()
            figure.savefig(drawn, format="png")
            plt.close(figure)
            Image.open(drawn).convert("RGB").quantize(128).save(folder / f"loss_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
