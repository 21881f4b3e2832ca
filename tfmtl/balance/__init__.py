"""Balancers: how the losses or gradients of the tasks are weighed."""

from __future__ import annotations

from tfmtl.balance.adatask import AdaTask
from tfmtl.balance.base import (
    Balancer,
    BalancerConfig,
    CutCombination,
    GradientCombination,
    GradientConfig,
    GradientWeighting,
    LossWeighting,
    TaskInfo,
    TaskStats,
)
from tfmtl.balance.dwa import DWA
from tfmtl.balance.famo import FAMO
from tfmtl.balance.fixed import Equal, Fixed
from tfmtl.balance.geometric_loss import GeometricLoss
from tfmtl.balance.gradnorm import GradNorm
from tfmtl.balance.imtl_l import ImtlL
from tfmtl.balance.log_loss import LogLoss
from tfmtl.balance.random_weights import RandomWeights
from tfmtl.balance.stch import STCH
from tfmtl.balance.uncertainty import Uncertainty

BALANCERS: dict[str, type[Balancer]] = {
    "Equal": Equal,
    "Fixed": Fixed,
    "Uncertainty": Uncertainty,
    "DWA": DWA,
    "GradNorm": GradNorm,
    "IMTL-L": ImtlL,
    "FAMO": FAMO,
    "STCH": STCH,
    "GeometricLoss": GeometricLoss,
    "LogLoss": LogLoss,
    "RandomWeights": RandomWeights,
    "AdaTask": AdaTask,
}
"""Name in an experiment file to class."""


def catalogue() -> list[dict[str, str]]:
    """Name, one-line summary, citation, protocol and cost of each balancer."""
    return [
        {
            "name": name,
            "summary": (balancer.__doc__ or "").partition("\n")[0],
            "citation": balancer.citation,
            "protocol": balancer.protocol,
            "backward_passes": balancer.backward_passes,
        }
        for name, balancer in BALANCERS.items()
    ]


__all__ = [
    "BALANCERS",
    "DWA",
    "FAMO",
    "STCH",
    "AdaTask",
    "Balancer",
    "BalancerConfig",
    "CutCombination",
    "Equal",
    "Fixed",
    "GeometricLoss",
    "GradNorm",
    "GradientCombination",
    "GradientConfig",
    "GradientWeighting",
    "ImtlL",
    "LogLoss",
    "LossWeighting",
    "RandomWeights",
    "TaskInfo",
    "TaskStats",
    "Uncertainty",
    "catalogue",
]
