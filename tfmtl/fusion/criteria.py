"""What a search maximises and must keep: `buy/ndcg@10`, `click/ndcg@10 >= 0.4`."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Self

from tfmtl.errors import ConfigError
from tfmtl.metrics.names import metric_key
from tfmtl.schema.bounds import Limit, parse_bound
from tfmtl.schema.evaluation import METRIC_NAMES, RankingMetric, RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import outputs_of


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A ranking metric of one output's labels, in all rows or in one scenario.

    Attributes:
        output: Whose labels.
        metric: One of `ranking.METRICS`.
        at: K; None for `mrr`.
        scenario: Its value; None for all rows.
    """

    output: str
    metric: str
    at: int | None = None
    scenario: str | None = None

    def __str__(self) -> str:
        """`buy@feed/ndcg@10`."""
        metric = str(RankingMetric(self.metric, self.at))
        return metric_key(self.output, metric, self.scenario)


class Constraint(Limit[Criterion]):
    """A limit of a criterion; the baseline is what the configured weights reach."""

    @property
    def criterion(self) -> Criterion:
        """What is limited."""
        return self.metric

    def resolved(self, baseline: float) -> Self:
        """With its value as a number, given the criterion's baseline."""
        return self.at_baseline(baseline)


def parse_criterion(text: str, experiment: Experiment, setting: str) -> Criterion:
    """Reads `output/metric@K` or `output@scenario/metric@K`.

    Args:
        text: What was asked for.
        experiment: Whose outputs and scenarios are known.
        setting: Where it stands, for errors: `--objective`.

    Raises:
        ConfigError: A part names nothing, or the metric is not one of this output's
            labels.
    """
    subject, slash, name = text.strip().rpartition("/")
    output, marked, scenario = subject.partition("@")
    metric = RankingMetric.parse(name)
    outputs = outputs_of(experiment.dataset.tasks)
    form = f"`{setting}` must be output/metric, such as buy/ndcg@10"
    if not slash or output not in outputs or outputs[output].type == "multiclass":
        known = sorted(n for n, t in outputs.items() if t.type != "multiclass")
        close = difflib.get_close_matches(output, known, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{form}. Received: {text!r}; outputs: {known}{hint}")
    if metric is None:
        raise ConfigError(f"{form}. Received: {text!r}; metrics: {list(METRIC_NAMES)}")
    ranking = experiment.evaluation.ranking or RankingSpec()
    if why := ranking.refusal(metric, outputs[output]):
        raise ConfigError(f"`{setting}`: {why}. Received: {text!r}")
    values = experiment.dataset.scenario_values
    if marked and scenario not in values:
        raise ConfigError(
            f"`{setting}` names scenario {scenario!r}; scenarios: {list(values)}"
        )
    return Criterion(output, metric.name, metric.at, scenario or None)


def parse_constraint(text: str, experiment: Experiment) -> Constraint:
    """Reads `criterion >= number`, or `>= baseline - number`; `<=` too.

    `baseline` is what the configured weights reach.

    Raises:
        ConfigError: It is none, or no weights can keep it.
    """
    bound = parse_bound(text, "--constraint", example="click/ndcg@10")
    criterion = parse_criterion(bound.metric, experiment, "--constraint")
    never = bound.value > 1.0 if bound.sense == ">=" else bound.value < 0.0
    if never and not bound.relative:
        raise ConfigError(
            f"`--constraint` {text!r} cannot be kept: {criterion} lies in [0, 1]"
        )
    return Constraint(criterion, bound.sense, bound.value, bound.relative)
