"""What ExpertFusion costs, counted by formula and on the model, and matched to MMoE."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.parity.reference import features, make, with_spec
from tests.parity.test_expert_fusion import SMALL, VARIANTS
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.models.cost import cost, full_features, multiplications
from tfmtl.models.expert_fusion import ExpertFusionConfig
from tfmtl.models.matching import (
    Inputs,
    MMoESize,
    Size,
    fusion_size,
    match,
    mmoe_size,
)

COMMON = Inputs(
    width=400,
    vector=8,
    fields=25,
    described=0,
    priors=64,
    own=0,
    scenarios=5,
    outputs=(1, 1, 1),
)


def above_embedding(model: Any) -> Size:
    """What a model costs without its embedding, as it is built and as it runs."""
    layers = [model.embedding, *getattr(model, "task_embeddings", [])]
    count = sum(layer.count_params() for layer in layers)
    batch = full_features(model)
    inside = multiplications(lambda: [layer(batch) for layer in layers]) // 64
    found = cost(model)
    return Size(found.total - count, found.macs - inside)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_formula_counts_what_is_there(name: str) -> None:
    model = make("ExpertFusion", **{**SMALL, **VARIANTS[name]})
    found = fusion_size(model.config, len(model.clusters), model.sizes)
    assert found == above_embedding(model)


def test_the_formula_of_mmoe_too() -> None:
    size = {"num_experts": 3, "expert_units": [7, 5], "tower_units": [4, 3]}
    sizes = make("ExpertFusion", **SMALL).sizes
    assert mmoe_size(MMoESize(**size), sizes) == above_embedding(make("MMoE", **size))


WIDE = [
    {"name": "user", "kind": "categorical", "dim": 40, "side": "user"},
    {"name": "item", "kind": "categorical", "vocabulary": "item", "dim": 40},
    {"name": "price", "kind": "numeric", "side": "item"},
]


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ({"num_experts": 8, "expert_units": [48], "tower_units": [16]}, {}),
        (
            {"num_experts": 6, "expert_units": [64, 32], "tower_units": [24, 12]},
            {"levels": 2},
        ),
        ({"num_experts": 4, "expert_units": [72], "tower_units": [16]}, {}),
        ({"num_experts": 3, "expert_units": [72], "tower_units": [16]}, {}),
    ],
)
def test_built_models_cost_the_same(
    size: dict[str, Any], changes: dict[str, Any]
) -> None:
    data = with_spec(features=WIDE)
    ours = make("ExpertFusion", data, match="mmoe", match_to=size, **changes)
    goal = above_embedding(make("MMoE", data, **size))
    found = above_embedding(ours)
    assert abs(found.parameters / goal.parameters - 1) <= 0.01
    assert found.macs / goal.macs <= 1.02
    assert ours.levels[0].pool.shared + _of_scenarios(ours) == size["num_experts"]
    # The table says the same numbers.
    table = "\n".join(ours.matching_table())
    for number in (*_numbers(goal), *_numbers(found)):
        assert f"{number:,}" in table
    assert ours.notes() == ours.matching_table()
    assert cost(ours).statistics == 4 * (2 * ours.sizes.width + 1)
    assert f"{cost(ours).statistics:,} moving statistics" in table
    assert all(v.shape == 50 for v in ours(features()).values())


def _numbers(size: Size) -> tuple[int, int]:
    return size.parameters, size.macs


def _of_scenarios(model: Any) -> int:
    level = model.levels[0]
    owners = 1 if level.rank is not None else len(level.owners)
    return level.per_owner * owners


@pytest.mark.parametrize(
    ("experts", "scenarios", "owners", "rank"),
    [
        (8, 3, 3, None),
        (8, 4, 4, None),
        (8, 5, 4, None),  # half the experts at most
        (32, 20, 8, None),
        (3, 5, 5, 8),  # no two clusters in one and a half experts
        (2, 2, 2, 8),
    ],
)
def test_many_scenarios_are_clustered_or_of_low_rank(
    experts: int, scenarios: int, owners: int, rank: int | None
) -> None:
    config = ExpertFusionConfig(
        match="mmoe",
        match_to=MMoESize(num_experts=experts, expert_units=(256,)),
        prior_features=(),
    )
    found = match(config, COMMON._replace(scenarios=scenarios))
    assert found.low_rank == rank
    clusters = scenarios if found.clusters is None else found.clusters
    assert clusters == owners
    held = 1 if rank else owners
    assert found.shared_experts + held == experts


@pytest.mark.parametrize("experts", [4, 8, 16])
@pytest.mark.parametrize("units", [(64,), (128, 64), (256, 128, 64), (300,)])
@pytest.mark.parametrize("towers", [(), (8,), (32,), (64, 32)])
@pytest.mark.parametrize("levels", [1, 2])
def test_common_sizes_can_be_matched(
    experts: int, units: tuple[int, ...], towers: tuple[int, ...], levels: int
) -> None:
    goal = MMoESize(num_experts=experts, expert_units=units, tower_units=towers)
    config = ExpertFusionConfig(match="mmoe", match_to=goal, levels=levels)
    found = match(config, COMMON)
    owners = COMMON.scenarios if found.clusters is None else found.clusters
    ours, theirs = fusion_size(found, owners, COMMON), mmoe_size(goal, COMMON)
    assert abs(ours.parameters / theirs.parameters - 1) <= 0.01
    assert ours.macs / theirs.macs <= 1.02
    # Widths stay near what was asked for.
    assert 8 <= found.gate_units <= 32
    for width, asked in zip(found.tower_units, towers, strict=True):
        assert asked / 2 - 1 <= width <= 2 * asked + 1


def test_one_integer_alone_would_be_too_coarse() -> None:
    """Narrow experts: a step of their width is 8 % of the parameters."""
    goal = MMoESize(num_experts=32, expert_units=(12,), tower_units=(16,))
    config = ExpertFusionConfig(match="mmoe", match_to=goal)
    found, theirs = match(config, COMMON), mmoe_size(goal, COMMON)
    assert (found.gate_units, found.tower_units) != (16, (16,))

    def away(units: int, **changes: Any) -> float:
        sized = found.model_copy(update={"expert_units": (units,), **changes})
        size = fusion_size(sized, COMMON.scenarios, COMMON)
        return abs(size.parameters / theirs.parameters - 1)

    alone = [away(n, gate_units=16, tower_units=(16,)) for n in range(1, 25)]
    assert min(alone) > 0.01
    assert away(found.expert_units[0]) <= 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match_to": MMoESize(expert_units=(1,))}, "larger MMoE"),
        ({"match_to": MMoESize(num_experts=1)}, "leave a shared expert"),
        ({"clusters": 5}, "at most 4"),
        ({"task_embeddings": True}, "larger MMoE, or leave parts out"),
    ],
)
def test_what_cannot_be_matched_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    config = ExpertFusionConfig(match="mmoe", match_to=MMoESize())
    inputs = COMMON._replace(own=80 if "task_embeddings" in changes else 0)
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        match(config.model_copy(update=changes), inputs)
    assert time.monotonic() - begun < 10


def test_an_impossible_match_says_so_plainly_when_the_model_is_made() -> None:
    found = MODELS["ExpertFusion"]
    config = found.Config(match="mmoe", match_to={"expert_units": [1]})
    with pytest.raises(ConfigError, match=r"^`model.config.match_to` must be") as told:
        found(with_spec(), config)
    assert "nearest" in str(told.value)
    assert "Call arguments" not in str(told.value)
    with pytest.raises(ValueError, match="nothing to compare"):
        make("ExpertFusion", **SMALL).matching_table()
