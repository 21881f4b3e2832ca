"""The steps from a dataset directory to a served model: one function each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfmtl.workflow.calibrate import calibrate
from tfmtl.workflow.diagnose import Diagnosis, diagnose
from tfmtl.workflow.evaluate import evaluate
from tfmtl.workflow.export import export
from tfmtl.workflow.fuse import fuse
from tfmtl.workflow.score import score
from tfmtl.workflow.train import TrainResult, train

if TYPE_CHECKING:
    from tfmtl.workflow.search import choose, tune

__all__ = [
    "Diagnosis",
    "TrainResult",
    "calibrate",
    "choose",
    "diagnose",
    "evaluate",
    "export",
    "fuse",
    "score",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    # keras-tuner brings a second Keras along: only who searches waits for it.
    if name in ("choose", "tune"):
        from tfmtl.workflow import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
