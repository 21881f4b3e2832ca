"""Balancers: how the losses of the tasks are weighted against each other."""

from __future__ import annotations

from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskStats
from tfmtl.balance.fixed import Equal, Fixed

BALANCERS: dict[str, type[LossWeighting]] = {"Equal": Equal, "Fixed": Fixed}
"""Name in an experiment file to class."""


def catalogue() -> list[dict[str, str]]:
    """Name, one-line summary and citation of each balancer."""
    return [
        {
            "name": name,
            "summary": (balancer.__doc__ or "").partition("\n")[0],
            "citation": balancer.citation,
        }
        for name, balancer in BALANCERS.items()
    ]


__all__ = [
    "BALANCERS",
    "BalancerConfig",
    "Equal",
    "Fixed",
    "LossWeighting",
    "TaskStats",
    "catalogue",
]
