"""Experts that do nothing or the same, gates that always choose one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfmtl.report.finding import Finding

STUCK = 0.95
"""Mean weight of one expert from which a gate counts as stuck."""
IDLE = 0.9
"""Share of an expert's units that never act from which it counts as dead."""
UNUSED = 0.01
"""Mean weight below which no gate uses an expert."""
IDENTICAL = 0.99
"""Correlation from which two experts count as one."""


def stuck_gates(gates: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Gates that give nearly all weight to one expert.

    Args:
        gates: Name to gate to its facts, of a `diagnostics` event.
    """
    for name, rows in gates.items():
        for gate, facts in rows.items():
            largest = facts["largest"]
            if largest > STUCK:
                expert = facts["mean"].index(max(facts["mean"]))
                yield Finding(
                    "stuck_gate",
                    f"{name}/{gate}",
                    largest,
                    STUCK,
                    f"the gate {gate} of {name} gives expert {expert} a mean weight of "
                    f"{largest:.3f} (more than {STUCK})",
                    "give `gate_dropout`, a lower learning rate for `gate/*`, or start "
                    "training anew with another seed",
                )


def unused_experts(gates: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Experts that no gate gives any weight worth the name.

    Args:
        gates: Name to gate to its facts, of a `diagnostics` event.
    """
    for name, rows in gates.items():
        # A gate stuck on another expert is a finding of its own.
        means = [f["mean"] for f in rows.values() if f["largest"] <= STUCK]
        if not means:
            continue
        for expert, weights in enumerate(zip(*means)):
            if max(weights) < UNUSED:
                yield Finding(
                    "dead_expert",
                    f"{name}/expert {expert}",
                    max(weights),
                    UNUSED,
                    f"no gate of {name} gives expert {expert} a mean weight of "
                    f"{UNUSED} (the most is {max(weights):.4f})",
                    "use fewer experts, or give `gate_dropout`",
                )


def dead_experts(experts: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Experts whose units never act.

    Args:
        experts: Name to its facts, of a `diagnostics` event.
    """
    for name, facts in experts.items():
        for expert, idle in enumerate(facts["idle"]):
            if idle >= IDLE:
                yield Finding(
                    "dead_expert",
                    f"{name}/expert {expert}",
                    idle,
                    IDLE,
                    f"{idle:.0%} of the units of expert {expert} of {name} are 0 on "
                    f"every row ({IDLE:.0%} or more)",
                    "lower the learning rate of `shared`, or give it a `clip_norm` or "
                    "a warm-up",
                )


def identical_experts(experts: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Two experts that answer alike.

    Args:
        experts: Name to its facts, of a `diagnostics` event.
    """
    for name, facts in experts.items():
        correlation = facts["correlation"]
        if correlation is not None and correlation > IDENTICAL:
            first, second = facts["nearest"]
            yield Finding(
                "identical_experts",
                f"{name}/experts {first} and {second}",
                correlation,
                IDENTICAL,
                f"experts {first} and {second} of {name} answer alike: their outputs' "
                f"correlation is {correlation:.4f} (more than {IDENTICAL})",
                "use fewer experts, train longer, or give `dropout`; where they should "
                "have come to differ, look whether their variables are frozen",
            )
