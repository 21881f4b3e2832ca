"""Trials as a search leaves them, without one."""

import pytest

from tfmtl.tuning.records import TrialRecord


def _record(trial, metrics=None, values=None, **changes):
    facts = {
        "trial": f"{trial:04d}",
        "values": values or {},
        "status": "failed" if metrics is None else "finished",
        "reason": "loss is not finite" if metrics is None else "epochs",
        "metrics": metrics or {},
        "step": 0 if metrics is None else 30,
        "steps": 30,
        "seconds": 2.5,
        "seed": 17,
        "experiment": f"hash{trial}",
    }
    return TrialRecord(**{**facts, **changes})


@pytest.fixture(scope="session")
def record():
    """Makes a trial; failed where it gets no metrics."""
    return _record


@pytest.fixture(scope="session")
def pairs():
    """Makes trials 1, 2 ... of (click/auc, like/auc); None is a failed one."""

    def make(*points):
        return [
            _record(i, None if p is None else dict(zip(("click/auc", "like/auc"), p)))
            for i, p in enumerate(points, start=1)
        ]

    return make
