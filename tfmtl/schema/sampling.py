"""Negative down-sampling: which training rows are written, and what it does to odds.

A row is *sure* where it is positive for a task of `keep`, and always written; every
other training row, a *candidate*, is written with the rate w of its scenario. So a
training row is kept with probability k(x, y) = 1 if sure, else w(x), and for an output
with label y on its population P

    odds(y | x, kept) = odds(y | x) * E[k | y = 1, x, P] / E[k | y = 0, x, P]

- **none**: P holds sure rows alone (`buy|click`, where clicks are kept). Both
  expectations are 1: the output is what it would be without sampling. So is a mean or a
  class over such rows.
- **shift**: on P the sure rows are the positives, and no others. The quotient is 1 / w:
  s_true = s_sampled + ln w, exactly (X. He et al., "Practical Lessons from Predicting
  Clicks on Ads at Facebook", ADKDD 2014: q = p / (p + (1 - p) / w)).
- **product**: the joint output of a funnel whose steps are of these kinds. Its
  negatives are a mixture (a click without a purchase is sure, an impression without a
  click a candidate), so its odds do *not* shift by 1 / w. But p(buy) = p(click)
  p(buy | click), whose factors are corrected exactly; hence
  p_true(buy) = p_sampled(buy) * p_true(click) / p_sampled(click).
- **inexact**: everything else. Positives of the output may be among the candidates, or
  sure rows among its negatives (`keep` of two tasks that do not imply each other): the
  quotient depends on x in a way that the output does not tell. Importance weights 1 / w
  of the candidates remain right: E[k / k] = 1 for any output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from tfmtl.schema.base import Name, Spec
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.task import TaskSpec, outputs_of

ALL = "all"
"""The stratum of a data set without scenarios."""

Effect = Literal["none", "shift", "product", "inexact"]


class SamplingSpec(Spec):
    """Keeps a share of the training rows that are positive for no task of `keep`.

    Validation and test stay whole. A row is kept or not by a hash of its row key (of
    its content where it has none) and `seed`: the same on every machine, and a lower
    rate keeps a part of what a higher one keeps.
    """

    keep: tuple[Name, ...] = Field(min_length=1)
    """Binary tasks whose positive rows are all kept; of a task with `given`, rows where
    all steps of the funnel are 1."""
    rate: float = Field(gt=0, le=1)
    """Share of the other training rows that is kept."""
    scenario_rates: dict[str, float] = {}
    """Scenario to a `rate` of its own."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Another seed keeps other rows."""
    correction: Literal["export", "training", "weights", "none"] = "export"
    """How outputs get back to the rates of all rows. `export`: ln(rate) is added to the
    logit when the model is evaluated, scores or is exported. `training`: the loss reads
    the logit - ln(rate), so that the logit itself is right. `weights`: sampled rows
    weigh 1/rate in the losses; right for every output, at a higher variance. `none`: no
    correction, for ranking alone."""

    @model_validator(mode="after")
    def _rates(self) -> SamplingSpec:
        wrong = {s: r for s, r in self.scenario_rates.items() if not 0 < r <= 1}
        if wrong:
            raise ValueError(
                f"`scenario_rates` must be above 0 and at most 1. Received: {wrong}"
            )
        if len(set(self.keep)) < len(self.keep):
            raise ValueError(
                f"`keep` must name a task once. Received: {list(self.keep)}"
            )
        return self

    def rates(self, scenarios: Sequence[str]) -> tuple[float, ...]:
        """Rate of each scenario, and of every other value: S + 1 numbers."""
        known = [self.scenario_rates.get(s, self.rate) for s in scenarios]
        return (*known, self.rate)

    def check(self, tasks: Sequence[TaskSpec], scenarios: Sequence[str]) -> None:
        """Refuses names that the data set does not have.

        Raises:
            ValueError: A task is unknown or not binary, or a scenario is unknown.
        """
        binary = [t.name for t in tasks if t.type == "binary"]
        wrong = sorted(set(self.keep) - set(binary))
        if wrong:
            raise ValueError(
                f"`sampling.keep` must name binary tasks. Received: {wrong}; binary "
                f"tasks: {binary}"
            )
        unknown = sorted(set(self.scenario_rates) - set(scenarios))
        if unknown:
            raise ValueError(
                f"`sampling.scenario_rates` names {unknown}; scenarios: "
                f"{list(scenarios)}"
            )


def effects(
    tasks: Sequence[TaskSpec], sampling: SamplingSpec, exposed: Mapping[str, int]
) -> dict[str, Effect]:
    """What sampling does to the odds of each output (see the module).

    Args:
        tasks: All tasks.
        sampling: Which rows were kept.
        exposed: Task to the candidates in the population of its own output (of
            `buy|click`, not of `buy`), before sampling. Where there is none, the
            population holds sure rows alone.

    Returns:
        Output to effect, conditional before joint.
    """
    above = {t.name: {s.name for s in steps_of(tasks, t.name)[1:]} for t in tasks}
    # Who buys has clicked: where clicks are kept, keeping purchases adds no row.
    kept = {k for k in sampling.keep if not above[k] & {*sampling.keep}}
    whole = min(sampling.rate, *sampling.scenario_rates.values(), 1.0) == 1
    found: dict[str, Effect] = {}
    for task in tasks:
        inside = bool(above[task.name] & kept)
        if whole or inside or not exposed.get(task.name, 1):
            found[task.conditional] = "none"
        else:
            found[task.conditional] = "shift" if kept == {task.name} else "inexact"
    for output, task in outputs_of(tasks).items():
        if output == task.conditional:
            continue
        steps = {found[t.conditional] for t in steps_of(tasks, output)}
        found[output] = "product" if "shift" in steps else "none"
        if "inexact" in steps:
            found[output] = "inexact"
    return found


def without_correction(found: Mapping[str, Effect], sampling: SamplingSpec) -> str:
    """Says which outputs an offset of the logit cannot correct; empty if none."""
    wrong = sorted(o for o, effect in found.items() if effect == "inexact")
    if not wrong:
        return ""
    return (
        f"`dataset.sampling` keeps the positives of {list(sampling.keep)}, and no "
        f"offset of the logit corrects the outputs {wrong}: rows of any label were "
        "sampled out of their populations, or rows that are always kept are among "
        "their negatives. Set `correction: weights` (or `none`, if only the ranking "
        "counts), or keep the positives of one task that all of these follow"
    )
