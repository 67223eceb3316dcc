"""What explains a detector: its errors, how its loss is spread over the anchors, how its scores follow the IoU.

`ANALYSES` is the table of the analyses, and `find_analysis` looks one up. The names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from singleshot.analysis.analysis import Analysis as Analysis
from singleshot.analysis.analysis import Findings as Findings
from singleshot.errors import UserError, did_you_mean, in_brackets

if TYPE_CHECKING:
    from singleshot.analysis.coefficients import Correlation as Correlation
    from singleshot.analysis.coefficients import correlation as correlation
    from singleshot.analysis.coefficients import pearson as pearson
    from singleshot.analysis.coefficients import spearman as spearman
    from singleshot.analysis.errors.measure import error_analysis as error_analysis
    from singleshot.analysis.errors.result import ErrorAnalysis as ErrorAnalysis
    from singleshot.analysis.errors.result import Tally as Tally
    from singleshot.analysis.figure import Figure as Figure
    from singleshot.analysis.iou.measure import iou_analysis as iou_analysis
    from singleshot.analysis.iou.measure import oracle_iou as oracle_iou
    from singleshot.analysis.iou.result import IoUAnalysis as IoUAnalysis
    from singleshot.analysis.iou.result import ScoreAnalysis as ScoreAnalysis
    from singleshot.analysis.loss.measure import loss_distribution as loss_distribution
    from singleshot.analysis.loss.result import LossDistribution as LossDistribution
    from singleshot.analysis.loss.result import LossHistogram as LossHistogram
    from singleshot.analysis.plots import plot_errors as plot_errors
    from singleshot.analysis.plots import plot_iou as plot_iou
    from singleshot.analysis.plots import plot_losses as plot_losses
    from singleshot.analysis.plots import plot_runs as plot_runs
    from singleshot.analysis.render.html import to_html as to_html
    from singleshot.analysis.render.pictures import write_figure as write_figure
    from singleshot.analysis.render.pictures import write_pictures as write_pictures
    from singleshot.analysis.render.text import to_text as to_text
    from singleshot.analysis.run.curves import RunAnalysis as RunAnalysis
    from singleshot.analysis.run.curves import analyse_runs as analyse_runs
    from singleshot.analysis.section import Column as Column
    from singleshot.analysis.section import Image as Image
    from singleshot.analysis.section import Section as Section
    from singleshot.analysis.section import Table as Table

# `singleshot analyse NAME` -> the module that describes it, as `ANALYSIS`. The module imports nothing heavy at its top.
ANALYSES = {
    "errors": "singleshot.analysis.errors",
    "run": "singleshot.analysis.run",
    "loss": "singleshot.analysis.loss",
    "iou": "singleshot.analysis.iou",
}

# Public name -> the module that defines it.
_WHERE = {
    "Column": "section",
    "Correlation": "coefficients",
    "ErrorAnalysis": "errors.result",
    "Figure": "figure",
    "Image": "section",
    "IoUAnalysis": "iou.result",
    "LossDistribution": "loss.result",
    "LossHistogram": "loss.result",
    "RunAnalysis": "run.curves",
    "ScoreAnalysis": "iou.result",
    "Section": "section",
    "Table": "section",
    "Tally": "errors.result",
    "analyse_runs": "run.curves",
    "correlation": "coefficients",
    "error_analysis": "errors.measure",
    "iou_analysis": "iou.measure",
    "loss_distribution": "loss.measure",
    "oracle_iou": "iou.measure",
    "pearson": "coefficients",
    "plot_errors": "plots",
    "plot_iou": "plots",
    "plot_losses": "plots",
    "plot_runs": "plots",
    "spearman": "coefficients",
    "to_html": "render.html",
    "to_text": "render.text",
    "write_figure": "render.pictures",
    "write_pictures": "render.pictures",
}

__all__ = ["ANALYSES", "Analysis", "Findings", "find_analysis", *_WHERE]


def find_analysis(name: str) -> Analysis:
    """The description of an analysis. Raises `UserError` for a name that is not in the table."""
    if name not in ANALYSES:
        hint = in_brackets(did_you_mean(name, ANALYSES))
        raise UserError(f"unknown analysis {name!r}{hint}; choose one of {', '.join(ANALYSES)}")
    found: Analysis = importlib.import_module(ANALYSES[name]).ANALYSIS
    return found


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'singleshot.analysis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"singleshot.analysis.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
