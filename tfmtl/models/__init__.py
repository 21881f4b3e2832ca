"""Architectures: one file each."""

from __future__ import annotations

from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.mmoe import MMoE
from tfmtl.models.mran import MRAN
from tfmtl.models.rnr import RnR
from tfmtl.models.shared_bottom import SharedBottom
from tfmtl.models.single_scenario import SingleScenario
from tfmtl.models.single_task import SingleTask
from tfmtl.models.watch_next import WatchNext

MODELS: dict[str, type[MultiTaskModel]] = {
    "MMoE": MMoE,
    "MRAN": MRAN,
    "RnR": RnR,
    "SharedBottom": SharedBottom,
    "SingleScenario": SingleScenario,
    "SingleTask": SingleTask,
    "WatchNext": WatchNext,
}
"""Name in an experiment file to class."""


def catalogue() -> list[dict[str, str]]:
    """Name, one-line summary and citation of each architecture."""
    return [
        {
            "name": name,
            "summary": (model.__doc__ or "").partition("\n")[0],
            "citation": model.citation,
        }
        for name, model in MODELS.items()
    ]


__all__ = ["MODELS", "ModelConfig", "MultiTaskModel", "catalogue"]
