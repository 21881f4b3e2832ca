"""Parts of `tuning`: who is stopped early, Hyperband's sizes, and the rival."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from tfmtl.schema.base import Spec


class PruningSpec(Spec):
    """When a trial is stopped before its end."""

    rule: Literal["none", "median"] = "none"
    """`median`: stop a trial whose best value until now is below the median of the
    others' at the same evaluation."""
    warmup_evaluations: int = Field(default=1, ge=0)
    """Never stop before so many evaluations are over."""
    least_trials: int = Field(default=5, ge=1)
    """Never stop before so many trials have come as far."""


class HyperbandSpec(Spec):
    """Settings of `oracle: hyperband`."""

    factor: int = Field(default=3, ge=2)
    """Each round keeps one of so many trials, and trains it so many times as long."""
    iterations: int = Field(default=1, ge=1)
    """How often the whole procedure is repeated."""


class RivalSpec(Spec):
    """The control of a tuned winner: a gradient balancer, tuned with the same budget.

    A second search over the same space, but for the balancer and its settings, which
    are the choice of one of `balancers`, each by its defaults. Its best trials are
    trained again on the same seeds.
    """

    balancers: tuple[str, ...] = Field(
        default=("Nash-MTL", "IMTL", "Aligned-MTL", "DB-MTL"), min_length=1
    )
    """Of which the best by validation is the rival. The default ones have no preference
    between tasks to set."""
    trials: int | None = Field(default=None, ge=0)
    """As many as the search itself had where absent; 0: no rival. A trial with a
    gradient balancer takes up to three times as long."""

    @field_validator("balancers")
    @classmethod
    def _once(cls, balancers: tuple[str, ...]) -> tuple[str, ...]:
        return check_once(balancers, "rival.balancers")


def check_once(names: tuple[str, ...], setting: str) -> tuple[str, ...]:
    """The names.

    Raises:
        ValueError: One is given twice.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"`{setting}` must be distinct. Received: {list(names)}")
    return names
