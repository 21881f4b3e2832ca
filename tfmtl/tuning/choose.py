"""Choosing a trial in words: `like/auc >= 0.75, max click/auc`."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence

from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import Bound, parse_bound
from tfmtl.tuning.records import TrialRecord

_SETTING = "--choose"
_BEST = re.compile(r"(?P<sense>max|min)\s+(?P<metric>\S+)")
_EXAMPLE = "'like/auc >= 0.75, max click/auc'"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a trial is chosen by.

    Attributes:
        metric: What is to be as great, or as small, as it can be.
        maximize: Which of the two.
        bounds: What must hold.
    """

    metric: str
    maximize: bool
    bounds: tuple[Bound, ...] = ()


def parse_choice(text: str) -> Choice:
    """Reads bounds and one `max METRIC` or `min METRIC`, separated by commas.

    Raises:
        ConfigError: It is no such text.
    """
    best: list[re.Match[str]] = []
    bounds: list[Bound] = []
    for part in (p.strip() for p in text.split(",")):
        found = _BEST.fullmatch(part)
        if found is not None:
            best.append(found)
        elif part.split(maxsplit=1)[:1] in (["max"], ["min"]):
            raise ConfigError(
                f"`{_SETTING}`: after `max` or `min` goes one metric, such as in "
                f"{_EXAMPLE}. Received: {part!r}"
            )
        elif part:
            bounds.append(parse_bound(part, _SETTING))
    if len(best) != 1:
        given = ", ".join(repr(m.group()) for m in best) or "none"
        raise ConfigError(
            f"`{_SETTING}` must have exactly one `max METRIC` or `min METRIC`, beside "
            f"any number of bounds, such as {_EXAMPLE}. Received: {given} in {text!r}"
        )
    return Choice(best[0]["metric"], best[0]["sense"] == "max", tuple(bounds))


def choose(
    records: Sequence[TrialRecord],
    text: str,
    baseline: Mapping[str, float] | None = None,
) -> TrialRecord:
    """The trial that a text asks for.

    Args:
        records: Of a search, in the order the trials began; what failed is passed over.
        text: See `parse_choice`. Metrics are those of the validation split, any that
            the trials have.
        baseline: What the experiment as it is written reaches, for `baseline` in a
            bound.

    Returns:
        Of equal ones the first.

    Raises:
        ConfigError: The text is wrong, a metric is unknown, or no trial keeps all
            bounds.
    """
    choice = parse_choice(text)
    usable = [record for record in records if record.usable]
    if not usable:
        raise ConfigError(
            f"`{_SETTING}` finds nothing: of {len(records)} trials none has metrics"
        )
    wanted = [choice.metric, *(bound.metric for bound in choice.bounds)]
    known = {name for record in usable for name in record.metrics}
    for name in wanted:
        _check_known(name, known)
    bounds = [bound.resolved(baseline or {}) for bound in choice.bounds]
    defined = [
        record
        for record in usable
        if all(math.isfinite(record.metrics.get(name, math.nan)) for name in wanted)
    ]
    if not defined:
        raise ConfigError(
            f"`{_SETTING}` finds nothing: no trial defines all of {wanted}"
        )

    def missing(record: TrialRecord) -> float:
        return sum(b.violation(record.metrics[b.metric]) for b in bounds)

    kept = [record for record in defined if missing(record) == 0.0]
    if not kept:
        raise ConfigError(_nothing(min(defined, key=missing), bounds, len(defined)))
    sign = 1.0 if choice.maximize else -1.0
    return max(kept, key=lambda record: sign * record.metrics[choice.metric])


def _check_known(name: str, known: set[str]) -> None:
    """Refuses a metric that no trial has.

    Raises:
        ConfigError: It is one; names those near to it.
    """
    if name in known:
        return
    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ConfigError(
        f"`{_SETTING}`: no trial has a metric {name!r}. {hint}Known: {sorted(known)}"
    )


def _nothing(nearest: TrialRecord, bounds: Sequence[Bound], count: int) -> str:
    """What is said where no trial keeps all bounds."""
    said = ", ".join(
        f"'{bound}' by {missing:.4g} (it has {nearest.metrics[bound.metric]:.4f})"
        for bound in bounds
        if (missing := bound.violation(nearest.metrics[bound.metric])) > 0.0
    )
    return (
        f"`{_SETTING}` finds nothing: none of {count} trials keeps all bounds; the "
        f"nearest, trial {nearest.trial}, misses {said}"
    )
