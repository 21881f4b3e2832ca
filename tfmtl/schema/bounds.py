"""Bounds on metrics: `like/auc >= 0.75`, `like/auc >= baseline - 0.001`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Generic, Literal, Self, TypeVar

from tfmtl.errors import ConfigError

Subject = TypeVar("Subject")
_NUMBER = r"[\d.]+(?:[eE][-+]?\d+)?"
# A metric may have spaces, as scenarios have; whether it exists is for others to check.
_BOUND = re.compile(
    r"(?P<metric>.+?)\s*(?P<sense>>=|<=)\s*"
    rf"(?:(?P<baseline>baseline)\s*(?:(?P<sign>[+-])\s*(?P<offset>-?{_NUMBER}))?"
    rf"|(?P<number>[-+]?{_NUMBER}))\s*"
)
_SHARES = ("auc", "accuracy")
"""Metrics between 0 and 1; the others of a task are at least 0."""


@dataclasses.dataclass(frozen=True)
class Limit(Generic[Subject]):
    """What something measured must keep.

    Attributes:
        metric: What is measured.
        sense: ">=" or "<=".
        value: A number; with `relative`, added to the baseline.
        relative: The bound is `baseline + value`.
    """

    metric: Subject
    sense: Literal[">=", "<="]
    value: float
    relative: bool = False

    def __str__(self) -> str:
        """As it is written by a user."""
        text = f"{self.value:g}"
        if self.relative:
            sign = "-" if self.value < 0 else "+"
            text = f"baseline {sign} {abs(self.value):g}"
        return f"{self.metric} {self.sense} {text}"

    def at_baseline(self, baseline: float) -> Self:
        """With its value as a number."""
        if not self.relative:
            return self
        return dataclasses.replace(self, value=self.value + baseline, relative=False)

    def violation(self, value: float) -> float:
        """By how much a value misses the bound, which is a number; 0 where it keeps."""
        missing = self.value - value if self.sense == ">=" else value - self.value
        return max(0.0, missing)


class Bound(Limit[str]):
    """A limit of a validation's metric, named as in `Objective`.

    The baseline is what the experiment as it is written reaches.
    """

    def resolved(self, baseline: Mapping[str, float]) -> Self:
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
        return self.at_baseline(baseline[self.metric])


def parse_bound(text: str, setting: str, example: str = "like/auc") -> Bound:
    """Reads `metric >= number`, or `metric >= baseline - number`; `<=` too.

    Args:
        text: What was asked for.
        setting: Where it stands, for errors: `tuning.constraints`.
        example: A metric that may stand there, for errors.

    Raises:
        ConfigError: It is none. That there is such a metric is not checked.
    """
    found = _BOUND.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        value = float(found["number"] or found["offset"] or 0.0)
    except ValueError:
        raise ConfigError(
            f"`{setting}` must be a metric and a bound, such as '{example} >= 0.75' or "
            f"'{example} >= baseline - 0.001'. Received: {text!r}"
        ) from None
    sense: Literal[">=", "<="] = ">=" if found["sense"] == ">=" else "<="
    relative = found["baseline"] is not None
    if relative and found["sign"] == "-":
        value = -value
    return Bound(found["metric"], sense, value, relative)


def check_possible(bounds: Sequence[Bound], setting: str) -> None:
    """Refuses bounds that no experiment can keep.

    Args:
        bounds: All that shall hold at once.
        setting: Where they stand, for errors.

    Raises:
        ConfigError: A metric has no such values, or two bounds exclude each other.
    """
    for bound in bounds:
        if why := _impossible(bound):
            raise ConfigError(
                f"`{setting}`: no experiment keeps {str(bound)!r}, since {why}"
            )
    for low in bounds:
        for high in bounds:
            if (low.metric, low.relative) != (high.metric, high.relative):
                continue
            if (low.sense, high.sense) == (">=", "<=") and low.value > high.value:
                raise ConfigError(
                    f"`{setting}`: no experiment keeps both {str(low)!r} and "
                    f"{str(high)!r}"
                )


def _impossible(bound: Bound) -> str:
    """Why a metric has no such value; empty where it may."""
    kind = bound.metric.rpartition("/")[2]
    if not math.isfinite(bound.value):
        return "its number is not finite"
    if bound.relative:
        far = kind in _SHARES and abs(bound.value) > 1
        return f"two values of {kind} are at most 1 apart" if far else ""
    if kind in _SHARES and not 0 <= bound.value <= 1:
        return f"{kind} lies between 0 and 1"
    return f"{kind} is never below 0" if bound.value < 0 else ""
