"""Balancers: how the losses or gradients of the tasks are weighed."""

from __future__ import annotations

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
from tfmtl.balance.fixed import Equal, Fixed

BALANCERS: dict[str, type[Balancer]] = {"Equal": Equal, "Fixed": Fixed}
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
    "Balancer",
    "BalancerConfig",
    "CutCombination",
    "Equal",
    "Fixed",
    "GradientCombination",
    "GradientConfig",
    "GradientWeighting",
    "LossWeighting",
    "TaskInfo",
    "TaskStats",
    "catalogue",
]
