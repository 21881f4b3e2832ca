"""What a search maximises and must keep: `buy/ndcg@10`, `click/ndcg@10 >= 0.4`."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Literal

from tfmtl.errors import ConfigError
from tfmtl.metrics.names import metric_key
from tfmtl.schema.evaluation import METRIC_NAMES, RankingMetric, RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import outputs_of

_BOUND = re.compile(
    r"(?P<criterion>.+?)\s*(?P<sense>>=|<=)\s*"
    r"(?:(?P<baseline>baseline)\s*(?:(?P<sign>[+-])\s*(?P<offset>[\d.eE-]+))?"
    r"|(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?))\s*"
)


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


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A bound that a criterion must keep.

    Attributes:
        criterion: What is bounded.
        sense: ">=" or "<=".
        bound: A number; with `relative`, added to what the configured weights reach.
        relative: The bound is `baseline + bound`.
    """

    criterion: Criterion
    sense: Literal[">=", "<="]
    bound: float
    relative: bool = False

    def __str__(self) -> str:
        """As it is written on the command line."""
        bound = f"{self.bound:g}"
        if self.relative:
            sign = "-" if self.bound < 0 else "+"
            bound = f"baseline {sign} {abs(self.bound):g}"
        return f"{self.criterion} {self.sense} {bound}"

    def resolved(self, baseline: float) -> Constraint:
        """With its bound as a number."""
        if not self.relative:
            return self
        return dataclasses.replace(self, bound=self.bound + baseline, relative=False)

    def violation(self, value: float) -> float:
        """By how much a value misses the bound, which is a number; 0 where it keeps."""
        missing = self.bound - value if self.sense == ">=" else value - self.bound
        return max(0.0, missing)


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
    found = _BOUND.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        bound = float(found["number"] or found["offset"] or 0.0)
    except ValueError:
        raise ConfigError(
            "`--constraint` must be a metric and a bound, such as 'click/ndcg@10 >= "
            f"0.4' or 'click/ndcg@10 >= baseline - 0.01'. Received: {text!r}"
        ) from None
    criterion = parse_criterion(found["criterion"], experiment, "--constraint")
    sense: Literal[">=", "<="] = ">=" if found["sense"] == ">=" else "<="
    relative = found["baseline"] is not None
    if relative and found["sign"] == "-":
        bound = -bound
    if not relative and (bound > 1.0 if sense == ">=" else bound < 0.0):
        raise ConfigError(
            f"`--constraint` {text!r} cannot be kept: {criterion} lies in [0, 1]"
        )
    return Constraint(criterion, sense, bound, relative)
