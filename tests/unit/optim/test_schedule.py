"""Learning rates against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfmtl.optim import Schedule
from tfmtl.schema.experiment import ScheduleSpec


def _truth(kind: str, step: int, warmup: int, decay: int, end: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    p = min(1.0, (step - warmup) / decay)
    return {
        "constant": 1.0,
        "linear": 1 - (1 - end) * p,
        "cosine": end + (1 - end) * (1 + math.cos(math.pi * p)) / 2,
        "exponential": max(end, 1e-6) ** p,
    }[kind]


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "exponential"])
@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_closed_form(kind: str, warmup: int, end: float) -> None:
    spec = ScheduleSpec(kind=kind, warmup_steps=warmup, decay_steps=20, end_factor=end)
    schedule = Schedule(0.3, spec, planned_steps=1000)
    found = [float(schedule(s)) for s in range(40)]
    truth = [0.3 * _truth(kind, s, warmup, 20, end) for s in range(40)]
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-7)


def test_the_plan_ends_the_decay_where_the_spec_does_not() -> None:
    spec = ScheduleSpec(kind="linear", warmup_steps=10)
    schedule = Schedule(1.0, spec, planned_steps=110)
    assert float(schedule(60)) == pytest.approx(0.5)
    assert float(schedule(110)) == 0
    assert float(schedule(500)) == 0


def test_a_plan_shorter_than_the_warm_up_does_not_divide_by_0() -> None:
    schedule = Schedule(1.0, ScheduleSpec(kind="cosine", warmup_steps=10), 5)
    assert [float(schedule(s)) for s in (0, 9)] == pytest.approx([0.1, 1.0])
    assert math.isfinite(float(schedule(50)))
