"""The figure of each analysis as a file, for scripts; `render.pictures` draws them."""

from __future__ import annotations

from pathlib import Path

from singleshot.analysis.errors.result import ErrorAnalysis
from singleshot.analysis.errors.section import errors_figure
from singleshot.analysis.iou.result import IoUAnalysis
from singleshot.analysis.iou.section import iou_figure
from singleshot.analysis.loss.result import LossDistribution
from singleshot.analysis.loss.section import loss_figure
from singleshot.analysis.render.pictures import write_figure
from singleshot.analysis.run.curves import RunAnalysis
from singleshot.analysis.run.section import run_figure


def plot_losses(distribution: LossDistribution, path: str | Path) -> Path:
    """Draw the cumulative loss of positives and negatives (Figure 4 of the focal loss paper) into a PNG, PDF or SVG."""
    return write_figure(loss_figure(distribution), path)


def plot_iou(analysis: IoUAnalysis, path: str | Path) -> Path:
    """Draw score against IoU for each kind of score, and what NMS lost, into a PNG, PDF or SVG."""
    return write_figure(iou_figure(analysis), path)


def plot_errors(analysis: ErrorAnalysis, path: str | Path) -> Path:
    """Draw what each kind of error costs, and how many objects of each size were found, into a PNG, PDF or SVG."""
    return write_figure(errors_figure(analysis), path)


def plot_runs(analysis: RunAnalysis, path: str | Path) -> Path:
    """Draw losses and validations over the steps into a PNG, PDF or SVG.

    For a single run each loss term and each metric has its own line.
    """
    return write_figure(run_figure(analysis), path)
