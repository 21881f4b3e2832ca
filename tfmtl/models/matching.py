"""Widths at which ExpertFusion costs what a given MMoE does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from tfmtl.errors import ConfigError
from tfmtl.schema.base import Spec

if TYPE_CHECKING:
    from tfmtl.models.expert_fusion import ExpertFusionConfig

PARAMETERS = 0.01
"""By what share the parameters may differ."""
MACS = 0.02
"""By what share there may be more multiplications."""
RANK = 8
"""Of scenarios' experts that are too many for the budget."""


class MMoESize(Spec):
    """The MMoE to match."""

    num_experts: int = Field(default=8, ge=1)
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    tower_units: tuple[int, ...] = (32,)
    """Widths of each tower's hidden layers."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Trainable numbers, and multiplications of a row.

    Attributes:
        parameters: Trainable numbers.
        macs: Multiply-adds of its matrix products.
    """

    parameters: int = 0
    macs: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.parameters + other.parameters, self.macs + other.macs)

    def __mul__(self, count: int) -> Size:
        return Size(self.parameters * count, self.macs * count)


class Inputs(NamedTuple):
    """Widths of what the networks read and say.

    Attributes:
        width: D, of fields and numbers; of all tasks' own tables too.
        vector: Of the scenario's embedding.
        fields: F, what the field gate scales.
        described: Of the features that describe the scenario.
        priors: Of the features that the tower gates read.
        own: Of one task's own tables, where there are any.
        scenarios: S.
        outputs: Outputs of each task.
    """

    width: int
    vector: int
    fields: int
    described: int
    priors: int
    own: int
    scenarios: int
    outputs: tuple[int, ...]


def _dense(inputs: int, outputs: int, bias: bool = True) -> Size:
    return Size((inputs + bias) * outputs, inputs * outputs)


def _network(inputs: int, units: Iterable[int]) -> Size:
    widths = [inputs, *units]
    return sum(itertools.starmap(_dense, itertools.pairwise(widths)), Size())


def _towers(inputs: int, units: Sequence[int], outputs: Sequence[int]) -> Size:
    last = [inputs, *units][-1]
    heads = sum((_dense(last, n) for n in outputs), Size())
    return _network(inputs, units) * len(outputs) + heads


def mmoe_size(size: MMoESize, inputs: Inputs) -> Size:
    """What an MMoE costs above the embedding."""
    width, tasks = inputs.width + inputs.vector, len(inputs.outputs)
    experts, last = size.num_experts, size.expert_units[-1]
    return (
        _network(width, size.expert_units) * experts
        + _dense(width, experts, bias=False) * tasks
        + Size(macs=tasks * experts * last)
        + _towers(last, size.tower_units, inputs.outputs)
    )


def fusion_parts(
    config: ExpertFusionConfig, owners: int, inputs: Inputs
) -> dict[str, Size]:
    """What each part of an ExpertFusion costs above the embedding.

    Args:
        config: Its settings.
        owners: Scenarios, or clusters of them, with experts of their own.
        inputs: What it reads.
    """
    tasks, last = len(inputs.outputs), config.expert_units[-1]
    described = inputs.vector + inputs.described
    parts = {
        "field gate": _field_gate(config, inputs),
        "normalisation": Size(_norm_rows(config, inputs.scenarios) * 2 * inputs.width),
        "experts": Size(),
        "fusion gates": Size(),
    }
    streams, width = 1, inputs.width
    if config.task_embeddings:
        streams, width = tasks, inputs.width - (tasks - 1) * inputs.own
    for level in range(config.levels):
        own = config.task_experts if level else 0
        gates = tasks + (level + 1 < config.levels)
        experts, count = _experts(config, owners, width)
        read = width if config.gate_units is None else config.gate_units
        fused = _dense(read + inputs.vector, count + own, bias=False) * gates
        if config.gate_units is not None:
            projection = _dense(width, read, bias=False)
            fused += Size(projection.parameters, projection.macs * streams)
        if config.gate_prior:
            fused += Size(inputs.scenarios * gates * (count + own))
        parts["fusion gates"] += fused + Size(macs=gates * (count + own) * last)
        parts["experts"] += Size(
            experts.parameters, experts.macs * (1 if level else streams)
        )
        parts["experts"] += _network(width, config.expert_units) * (own * tasks)
        # At the next level a gate projects a stream of each task's own.
        streams, width = tasks, last
    parts["towers"] = _towers(last, config.tower_units, inputs.outputs)
    if config.tower_gate:
        units = config.gate_hidden_units
        scaled = [last, *config.tower_units][-1]
        parts["tower gates"] = _dense(inputs.vector + inputs.priors, units)
        parts["tower gates"] += _dense(units, scaled) * tasks
    if config.aux_net:
        parts["auxiliary network"] = _network(described, config.auxiliary_units)
        parts["auxiliary network"] += _towers(
            config.auxiliary_units[-1], (), inputs.outputs
        )
    if config.bias_table:
        parts["bias table"] = Size(inputs.scenarios * sum(inputs.outputs))
    return {name: size for name, size in parts.items() if size.parameters}


def fusion_size(config: ExpertFusionConfig, owners: int, inputs: Inputs) -> Size:
    """What an ExpertFusion costs above the embedding; arguments as `fusion_parts`."""
    return sum(fusion_parts(config, owners, inputs).values(), Size())


def _field_gate(config: ExpertFusionConfig, inputs: Inputs) -> Size:
    if not config.field_gate:
        return Size()
    read, size = inputs.width, Size()
    if config.gate_units is not None:
        read = config.gate_units
        size = _dense(inputs.width, read, bias=False)
    read += inputs.vector + inputs.described
    return size + _network(read, [config.gate_hidden_units, inputs.fields])


def _norm_rows(config: ExpertFusionConfig, scenarios: int) -> int:
    """Scales and shifts of the normalisation."""
    return {"pn": scenarios + 1, "bn": 1, "none": 0}[config.partitioned_norm]


def _experts(config: ExpertFusionConfig, owners: int, width: int) -> tuple[Size, int]:
    """The experts of a level that tasks share, and how many a gate reads of them."""
    one = _network(width, config.expert_units)
    shared, own = config.shared_experts, config.scenario_experts
    if config.low_rank is None:
        count = shared + own * owners
        return one * count, count
    low = Size()
    for units in config.expert_units:
        low += _dense(width, config.low_rank, bias=False)
        low += _dense(config.low_rank, units, bias=False)
        low += Size(owners * (config.low_rank + units))
        width = units
    return one * (shared + own) + low * own, shared + own


def match(config: ExpertFusionConfig, inputs: Inputs) -> ExpertFusionConfig:
    """Settings at which the model costs what `config.match_to` does.

    The experts are as many as the MMoE's, those of scenarios half of them at most: more
    scenarios are clustered, or, where that would leave less than two clusters, share
    experts of low rank. Then the widest experts that the budget allows are taken, with
    the towers' and the gates' widths as near to the MMoE's, and to `gate_units`, as
    reaching it permits: a step of one integer alone is too coarse.

    Raises:
        ConfigError: No widths cost that.
    """
    assert config.match_to is not None
    wanted = config.match_to
    goal = mmoe_size(wanted, inputs)
    config, owners = _share_out(config, wanted.num_experts, inputs.scenarios)
    nearest: tuple[float, Size, ExpertFusionConfig] | None = None
    for candidate in _candidates(config, wanted):
        for sized in _widest(candidate, wanted.expert_units, owners, inputs, goal):
            size = fusion_size(sized, owners, inputs)
            away = abs(size.parameters / goal.parameters - 1)
            more = size.macs / goal.macs - 1
            if away <= PARAMETERS and more <= MACS:
                return sized
            miss = max(away / PARAMETERS, more / MACS)
            if nearest is None or miss < nearest[0]:
                nearest = (miss, size, sized)
    assert nearest is not None
    _, size, sized = nearest
    parts = fusion_parts(sized, owners, inputs)
    dearest = sorted(parts, key=lambda name: -parts[name].parameters)[:3]
    raise ConfigError(
        "`model.config.match_to` must be an MMoE whose parameters (within "
        f"{PARAMETERS:.0%}) and MACs (at most {MACS:.0%} more) these settings can "
        f"meet. Received: {wanted.model_dump()}, {goal.parameters:,} parameters and "
        f"{goal.macs:,} MACs without embeddings; nearest: {size.parameters:,} and "
        f"{size.macs:,}, of which most parameters are in "
        + ", ".join(f"{name} ({parts[name].parameters:,})" for name in dearest)
        + ". Match a larger MMoE, or leave parts out"
    )


def _share_out(
    config: ExpertFusionConfig, experts: int, scenarios: int
) -> tuple[ExpertFusionConfig, int]:
    """Settings with so many experts in all, and the number of owners."""
    own, clusters, rank = config.scenario_experts, config.clusters, config.low_rank
    owners = scenarios if clusters is None else count_clusters(clusters)
    if own and rank is None and 2 * owners * own > experts:
        most = min(experts // (2 * own), 8)
        if clusters is not None:
            raise ConfigError(
                f"`model.config.clusters` must be at most {most}, so that at most half "
                f"of {experts} experts belong to them. Received: {owners}"
            )
        if most >= 2:
            clusters = owners = most
        else:
            rank = RANK
    shared = experts - (own if rank is not None else own * owners)
    if shared < 1:
        raise ConfigError(
            "`model.config.match_to.num_experts` must leave a shared expert beside "
            f"{own} of each scenario. Received: {experts}"
        )
    changes = {"shared_experts": shared, "clusters": clusters, "low_rank": rank}
    return config.model_copy(update=changes), owners


def count_clusters(clusters: object) -> int:
    """How many clusters a setting asks for."""
    return clusters if isinstance(clusters, int) else len(clusters)  # type: ignore[arg-type]


def _candidates(
    config: ExpertFusionConfig, wanted: MMoESize
) -> Iterator[ExpertFusionConfig]:
    """Widths of towers and gates, those of the settings first, then ever farther."""
    gates: list[int | None] = [None]
    if config.gate_units is not None:
        low, high = max(config.gate_units // 2, 1), config.gate_units * 2
        gates = [*range(low, high + 1)]
    towers: list[tuple[int, ...]] = [()]
    if wanted.tower_units:
        last = wanted.tower_units[-1]
        towers = [
            _scaled(wanted.tower_units, n) for n in range((last + 1) // 2, 2 * last + 1)
        ]

    def distance(pair: tuple[int | None, tuple[int, ...]]) -> float:
        gate, tower = pair
        away = 0.0
        if gate is not None and config.gate_units is not None:
            away += abs(gate / config.gate_units - 1)
        return away + (abs(tower[-1] / wanted.tower_units[-1] - 1) if tower else 0.0)

    for gate, tower in sorted(itertools.product(gates, towers), key=distance):
        yield config.model_copy(update={"gate_units": gate, "tower_units": tower})


def _scaled(units: Sequence[int], last: int) -> tuple[int, ...]:
    """Widths in the given proportions, of which the last is `last`."""
    return (*(max(1, round(n * last / units[-1])) for n in units[:-1]), last)


def _widest(
    config: ExpertFusionConfig,
    units: Sequence[int],
    owners: int,
    inputs: Inputs,
    goal: Size,
) -> Iterator[ExpertFusionConfig]:
    """The widest experts within the parameters, and the next wider ones."""

    def with_first(first: int) -> ExpertFusionConfig:
        # In proportion to the first layer, whose steps cost most.
        reversed_units = _scaled(units[::-1], first)[::-1]
        return config.model_copy(update={"expert_units": reversed_units})

    low, high = 0, 4 * units[0]
    while high - low > 1:
        middle = (low + high) // 2
        size = fusion_size(with_first(middle), owners, inputs)
        if size.parameters <= goal.parameters:
            low = middle
        else:
            high = middle
    for first in (low, high):
        if first:
            yield with_first(first)


def describe(
    config: ExpertFusionConfig, owners: int, inputs: Inputs, statistics: int
) -> list[str]:
    """The table of both costs, a line each.

    Args:
        config: Settings after matching.
        owners: As for `fusion_parts`.
        inputs: As for `fusion_parts`.
        statistics: Moving moments, which are not trained.
    """
    assert config.match_to is not None
    goal = mmoe_size(config.match_to, inputs)
    found = fusion_size(config, owners, inputs)
    rows = [("MMoE", f"{goal.parameters:,}", f"{goal.macs:,}", _widths(config, True))]
    rows.append(
        (
            "ExpertFusion",
            f"{found.parameters:,} ({found.parameters / goal.parameters - 1:+.2%})",
            f"{found.macs:,} ({found.macs / goal.macs - 1:+.2%})",
            _widths(config, False),
        )
    )
    for name, size in fusion_parts(config, owners, inputs).items():
        rows.append((f"  {name}", f"{size.parameters:,}", f"{size.macs:,}", ""))
    head = ("without embeddings", "parameters", "MACs a row", "widths")
    wide = [max(len(row[i]) for row in (head, *rows)) for i in range(3)]
    lines = [
        f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]:<{wide[2]}}  {row[3]}"
        for row in (head, *rows)
    ]
    note = f"ExpertFusion keeps {statistics:,} moving statistics, which are not trained"
    return [line.rstrip() for line in (*lines, note)]


def _widths(config: ExpertFusionConfig, of_mmoe: bool) -> str:
    size = config.match_to if of_mmoe else config
    assert size is not None
    units = "-".join(map(str, size.expert_units))
    towers = "-".join(map(str, size.tower_units)) or "none"
    if isinstance(size, MMoESize):
        return f"{size.num_experts} experts {units}, towers {towers}"
    clusters = "" if size.clusters is None else " per cluster"
    rank = "" if size.low_rank is None else f" of rank {size.low_rank}"
    return (
        f"{size.shared_experts} shared + {size.scenario_experts} per scenario"
        f"{clusters}{rank}, experts {units}, towers {towers}, gates read "
        f"{size.gate_units or 'all'}"
    )
