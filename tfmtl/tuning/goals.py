"""What a search is after: `click/auc`, several metrics, and bounds on others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from tfmtl.errors import ConfigError
from tfmtl.metrics.names import lower_is_better

INFEASIBLE = -1.0e6
"""Scores of points that break a bound begin here: below every metric."""

_BOUND = re.compile(
    r"(?P<metric>\S+?)\s*(?P<sense>>=|<=)\s*"
    r"(?:(?P<baseline>baseline)\s*(?:(?P<sign>[+-])\s*(?P<offset>[\d.]+(?:[eE]-?\d+)?))?"
    r"|(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?))\s*"
)


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric to be made as good as it can be.

    Attributes:
        metric: Of the validation split: `click/auc`, `mean/auc`, `click@feed/logloss`.
    """

    metric: str

    @property
    def maximize(self) -> bool:
        """Whether great values are good."""
        return not lower_is_better(self.metric)

    def gain(self, value: float) -> float:
        """The value with the sign under which great is good."""
        return value if self.maximize else -value


@dataclasses.dataclass(frozen=True)
class Bound:
    """A bound that a metric must keep.

    Attributes:
        metric: As in `Objective`.
        sense: ">=" or "<=".
        value: A number; with `relative`, added to what the experiment as it is written
            reaches.
        relative: The bound is `baseline + value`.
    """

    metric: str
    sense: Literal[">=", "<="]
    value: float
    relative: bool = False

    def __str__(self) -> str:
        """As it is written in an experiment file."""
        text = f"{self.value:g}"
        if self.relative:
            sign = "-" if self.value < 0 else "+"
            text = f"baseline {sign} {abs(self.value):g}"
        return f"{self.metric} {self.sense} {text}"

    def resolved(self, baseline: Mapping[str, float]) -> Bound:
        """With its value as a number.

        Raises:
            ConfigError: The baseline does not define the metric.
        """
        if not self.relative:
            return self
        if self.metric not in baseline:
            raise ConfigError(
                f"the bound {str(self)!r} has no baseline: the experiment as it is "
                f"written does not define {self.metric!r} on the validation split. "
                f"Defined: {sorted(baseline)}"
            )
        number = self.value + baseline[self.metric]
        return dataclasses.replace(self, value=number, relative=False)

    def violation(self, value: float) -> float:
        """By how much a value misses the bound, which is a number; 0 where it keeps."""
        missing = self.value - value if self.sense == ">=" else value - self.value
        return max(0.0, missing)


def parse_bound(text: str, setting: str) -> Bound:
    """Reads `metric >= number`, or `metric >= baseline - number`; `<=` too.

    Args:
        text: What was asked for.
        setting: Where it stands, for errors: `tuning.constraints`.

    Raises:
        ConfigError: It is none.
    """
    found = _BOUND.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        value = float(found["number"] or found["offset"] or 0.0)
    except ValueError:
        raise ConfigError(
            f"`{setting}` must be a metric and a bound, such as 'like/auc >= 0.75' or "
            f"'like/auc >= baseline - 0.001'. Received: {text!r}"
        ) from None
    sense: Literal[">=", "<="] = ">=" if found["sense"] == ">=" else "<="
    relative = found["baseline"] is not None
    if relative and found["sign"] == "-":
        value = -value
    return Bound(found["metric"], sense, value, relative)


@dataclasses.dataclass(frozen=True)
class Goal:
    """Objectives, and bounds.

    Attributes:
        objectives: One, or several: then a front is sought.
        bounds: Of any metrics.
    """

    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...] = ()

    @classmethod
    def parse(cls, objectives: Sequence[str], constraints: Sequence[str]) -> Goal:
        """From an experiment file's `tuning`.

        Raises:
            ConfigError: A constraint is none.
        """
        return cls(
            tuple(Objective(o) for o in objectives),
            tuple(parse_bound(c, "tuning.constraints") for c in constraints),
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric it reads, objectives first, each once."""
        named = [o.metric for o in self.objectives] + [b.metric for b in self.bounds]
        return tuple(dict.fromkeys(named))

    def resolved(self, baseline: Mapping[str, float]) -> Goal:
        """With every bound as a number."""
        bounds = tuple(b.resolved(baseline) for b in self.bounds)
        return dataclasses.replace(self, bounds=bounds)

    def violation(self, metrics: Mapping[str, float]) -> float:
        """The sum of what all bounds, which are numbers, are missed by."""
        return sum(b.violation(metrics[b.metric]) for b in self.bounds)

    def score(self, metrics: Mapping[str, float]) -> float:
        """One number, great is good: the first objective where all bounds are kept.

        A point that misses a bound scores below every one that keeps them, and the less
        the further it misses (Deb's rules), so nothing is to be tuned.
        """
        missing = self.violation(metrics)
        if missing > 0.0:
            return INFEASIBLE - missing
        first = self.objectives[0]
        return first.gain(metrics[first.metric])

    def gains(self, metrics: Mapping[str, float]) -> list[float]:
        """Every objective with the sign under which great is good."""
        return [o.gain(metrics[o.metric]) for o in self.objectives]
