"""Which outputs sampling moves: the rule against probabilities computed by counting."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.sampling import SamplingSpec, effects, without_correction
from tfmtl.schema.task import TaskSpec

CLICK = TaskSpec(name="click", label="click")
BUY = TaskSpec(name="buy", label="buy", given="click")
LIKE = TaskSpec(name="like", label="like")
TASKS = (CLICK, BUY, LIKE)
W = 0.1


def probability(click: int, buy: int, like: int) -> float:
    """Of an outcome in a world of one x; likes follow clicks and purchases."""
    bought = 0.3 * click
    liked = 0.1 + 0.4 * click + 0.3 * buy
    return (
        (0.2 if click else 0.8)
        * (bought if buy else 1 - bought)
        * (liked if like else 1 - liked)
    )


_CELLS = {c: probability(*c) for c in itertools.product((0, 1), repeat=3)}


def sampling(*keep: str, **more: Any) -> SamplingSpec:
    return SamplingSpec.model_validate({"keep": keep, "rate": W, **more})


def odds(output: str, kept_for: tuple[str, ...] | None) -> float:
    """Odds of an output among all rows (None), or among those that sampling keeps."""
    count = np.zeros(2)
    for (click, buy, like), p in _CELLS.items():
        happened = {"click": click, "buy": click * buy, "like": like}
        sure = kept_for is None or any(happened[k] for k in kept_for)
        if output == "buy|click" and not click:
            continue
        count[happened[output.partition("|")[0]]] += p * (1.0 if sure else W)
    return float(count[1] / count[0])


@pytest.mark.parametrize("keep", [("click",), ("click", "buy"), ("buy",), ("like",)])
def test_the_rule_says_what_counting_says(keep: tuple[str, ...]) -> None:
    exposed = {"click": 1, "buy": 0 if "click" in keep else 1, "like": 1}
    found = effects(TASKS, sampling(*keep), exposed)
    for output, effect in found.items():
        ratio = odds(output, keep) / odds(output, None)
        if effect == "shift":
            assert ratio == pytest.approx(1 / W), output
        elif effect == "none":
            assert ratio == pytest.approx(1), output
        else:
            # Neither moved by 1 / w, nor left alone: no constant would correct it.
            assert not np.isclose(ratio, 1), output
            if output not in keep:
                assert not np.isclose(ratio, 1 / W), output
    if "click" in keep:
        assert found["click"] == "shift"
        assert found["buy|click"] == "none" and found["buy"] == "product"
        p = {o: odds(o, keep) / (1 + odds(o, keep)) for o in ("click", "buy")}
        true = {o: odds(o, None) / (1 + odds(o, None)) for o in ("click", "buy")}
        assert p["buy"] * true["click"] / p["click"] == pytest.approx(true["buy"])
    assert found["like"] == ("shift" if keep == ("like",) else "inexact")


def test_two_kept_tasks_that_do_not_imply_each_other_have_no_offset() -> None:
    keep = ("click", "like")
    found = effects(TASKS, sampling(*keep), {})
    assert found["click"] == found["like"] == "inexact"
    assert found["buy|click"] == "none", "it follows a kept click"
    for output in ("click", "like"):
        ratio = odds(output, keep) / odds(output, None)
        assert 1.01 < ratio < 0.99 / W
    message = without_correction(found, sampling(*keep))
    assert "'click', 'like'" in message and "`correction: weights`" in message
    assert (
        without_correction(
            effects((CLICK, BUY), sampling("click"), {}), sampling("click")
        )
        == ""
    )


def test_populations_without_candidates_are_untouched() -> None:
    watch = TaskSpec(
        name="watch", label="watch", type="regression", observed_when="click == 1"
    )
    kind = TaskSpec(name="kind", label="kind", type="multiclass", classes=3)
    tasks = (CLICK, watch, kind)
    found = effects(tasks, sampling("click"), {"click": 9, "watch": 0, "kind": 9})
    assert found == {"click": "shift", "watch": "none", "kind": "inexact"}
    given = TaskSpec(name="spent", label="spent", type="regression", given="click")
    assert effects((CLICK, given), sampling("click"), {})["spent"] == "none"


def test_a_rate_of_one_changes_nothing() -> None:
    found = effects(TASKS, sampling("click", "like", rate=1.0), {})
    assert set(found.values()) == {"none"}
    half = sampling("click", rate=1.0, scenario_rates={"a": 0.5})
    assert effects(TASKS, half, {})["click"] == "shift"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"keep": ["clik"], "rate": 0.1}, "must name binary tasks"),
        ({"keep": ["watch"], "rate": 0.1}, "must name binary tasks"),
        ({"keep": [], "rate": 0.1}, "at least 1 item"),
        ({"keep": ["click", "click"], "rate": 0.1}, "must name a task once"),
        ({"keep": ["click"], "rate": 0.0}, "greater than 0"),
        ({"keep": ["click"], "rate": 0.1, "scenario_rates": {"b": 0.1}}, "scenarios: "),
        ({"keep": ["click"], "rate": 0.1, "scenario_rates": {"a": 2.0}}, "at most 1"),
    ],
)
def test_what_a_data_set_refuses(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(sampling=section)


def dataset(**changes: Any) -> DatasetSpec:
    document = {
        "features": [{"name": "item", "kind": "categorical"}],
        "tasks": [
            {"name": "click", "label": "click"},
            {"name": "watch", "label": "watch", "type": "regression"},
        ],
        "scenario": {"column": "page", "values": ["a"]},
        "split": {"by": "hash", "column": "item"},
    }
    return DatasetSpec.model_validate(document | changes)


def test_records_depend_on_the_rates_not_on_the_correction() -> None:
    section = {"keep": ["click"], "rate": 0.1}
    made = dataset(sampling=section).records_part()
    other = {**section, "correction": "training"}
    assert dataset(sampling=other).records_part() == made
    for change in ({"rate": 0.2}, {"seed": 1}, {"scenario_rates": {"a": 0.3}}):
        assert dataset(sampling={**section, **change}).records_part() != made
    assert dataset().records_part() != made
    rates = dataset(sampling={**section, "scenario_rates": {"a": 0.3}}).sampling
    assert rates is not None and rates.rates(["a", "b"]) == (0.3, 0.1, 0.1)
