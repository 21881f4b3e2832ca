"""Findings on gates and experts: one made-up case for each, and one without."""

from __future__ import annotations

from typing import Any

from tfmtl.report.experts import (
    dead_experts,
    identical_experts,
    stuck_gates,
    unused_experts,
)


def gates(**means: list[float]) -> dict[str, Any]:
    rows = {g: {"mean": m, "entropy": 0.5, "largest": max(m)} for g, m in means.items()}
    return {"gates": rows}


def test_a_stuck_gate_is_found_by_task() -> None:
    (found,) = stuck_gates(gates(click=[0.01, 0.97, 0.02], like=[0.4, 0.3, 0.3]))
    assert (found.kind, found.subject, found.number) == (
        "stuck_gate",
        "gates/click",
        0.97,
    )
    assert "expert 1 a mean weight of 0.970" in found.text
    assert not list(stuck_gates(gates(click=[0.95, 0.05])))


def test_an_expert_that_no_gate_uses_is_found() -> None:
    (found,) = unused_experts(gates(click=[0.6, 0.4, 0.0], like=[0.9, 0.091, 0.009]))
    assert found.subject == "gates/expert 2" and found.number == 0.009
    assert not list(unused_experts(gates(click=[0.6, 0.4, 0.0], like=[0.9, 0, 0.1])))
    # A stuck gate alone says nothing about the experts.
    assert not list(unused_experts(gates(click=[0.99, 0.01, 0.0])))


def test_dead_and_identical_experts_are_found() -> None:
    facts = {"experts": {"idle": [0.1, 0.95], "correlation": 0.995, "nearest": [0, 1]}}
    (dead,) = dead_experts(facts)
    assert dead.subject == "experts/expert 1" and "95% of the units" in dead.text
    (same,) = identical_experts(facts)
    assert same.subject == "experts/experts 0 and 1" and same.number == 0.995
    for correlation in (0.98, None):
        fine = {"idle": [0.1, 0.89], "correlation": correlation, "nearest": [0, 1]}
        assert not list(dead_experts({"experts": fine}))
        assert not list(identical_experts({"experts": fine}))
