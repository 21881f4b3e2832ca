"""The steps from a dataset directory to a served model: one function each."""

from __future__ import annotations

from tfmtl.workflow.diagnose import Diagnosis, diagnose
from tfmtl.workflow.evaluate import evaluate
from tfmtl.workflow.export import export
from tfmtl.workflow.fuse import fuse
from tfmtl.workflow.score import score
from tfmtl.workflow.train import TrainResult, train

__all__ = [
    "Diagnosis",
    "TrainResult",
    "diagnose",
    "evaluate",
    "export",
    "fuse",
    "score",
    "train",
]
