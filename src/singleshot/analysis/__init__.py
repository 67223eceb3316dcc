"""What explains a detector: its errors, how its loss is spread over the anchors, how scores go with the boxes' IoU."""

from singleshot.analysis.correlation import Correlation as Correlation
from singleshot.analysis.correlation import correlation as correlation
from singleshot.analysis.correlation import pearson as pearson
from singleshot.analysis.correlation import spearman as spearman
from singleshot.analysis.errors import ErrorAnalysis as ErrorAnalysis
from singleshot.analysis.errors import Tally as Tally
from singleshot.analysis.errors import error_analysis as error_analysis
from singleshot.analysis.iou import IoUAnalysis as IoUAnalysis
from singleshot.analysis.iou import ScoreAnalysis as ScoreAnalysis
from singleshot.analysis.iou import iou_analysis as iou_analysis
from singleshot.analysis.iou import oracle_iou as oracle_iou
from singleshot.analysis.losses import LossDistribution as LossDistribution
from singleshot.analysis.losses import LossHistogram as LossHistogram
from singleshot.analysis.losses import loss_distribution as loss_distribution
from singleshot.analysis.plots import plot_errors as plot_errors
from singleshot.analysis.plots import plot_iou as plot_iou
from singleshot.analysis.plots import plot_losses as plot_losses
