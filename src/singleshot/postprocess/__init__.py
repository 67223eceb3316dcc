"""From raw predictions to detections: how they are scored, selected and suppressed."""

from __future__ import annotations

from singleshot.postprocess.per_class import PerClassPostprocess as PerClassPostprocess
from singleshot.postprocess.per_level import PerLevelPostprocess as PerLevelPostprocess
from singleshot.postprocess.postprocess import Postprocess as Postprocess
from singleshot.postprocess.postprocess import Scores as Scores
from singleshot.postprocess.scores import ClassScores as ClassScores
from singleshot.postprocess.vary import OPTIONAL as OPTIONAL
from singleshot.postprocess.vary import VARIED as VARIED
from singleshot.postprocess.vary import numbers as numbers
from singleshot.postprocess.vary import unsuppressed as unsuppressed
from singleshot.postprocess.vary import vary as vary
