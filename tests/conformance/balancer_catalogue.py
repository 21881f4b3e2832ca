"""One entry per balancer: settings and claims for its conformance tests."""

from __future__ import annotations

from typing import Any

ENTRIES: dict[str, dict[str, Any]] = {
    "AdaTask": {},
    "Aligned-MTL": {},
    "CAGrad": {},
    "DB-MTL": {},
    "DCB": {},
    "DWA": {
        "config": {"window": 1},
        "moves_absent": "windows end for all tasks at once",
    },
    "Equal": {},
    "FAMO": {},
    "Fixed": {
        "config": {"weights": {"like": 3.0, "buy": 0.2}},
        "alone": {"weights": {"click": 2.0}},
    },
    "GeometricLoss": {},
    "GradDrop": {"drawn": "signs are drawn by place"},
    "GradNorm": {"config": {"initial_steps": 1}},
    "GradVac": {"drawn": "the order of pairs is drawn by place"},
    "IMTL": {},
    "IMTL-G": {},
    "IMTL-L": {"config": {"learning_rate": 0.1}},
    "LogLoss": {},
    "MGDA": {},
    "MGDA-UB": {},
    "MetaBalance": {"config": {"target": "click"}},
    "Nash-MTL": {},
    "PCGrad": {"drawn": "the order of projections is drawn by place"},
    "PE-LTR": {},
    "RandomWeights": {"drawn": "weights are drawn by place"},
    "STCH": {"config": {"warmup_steps": 1, "preference": {"like": 2.0}}, "alone": {}},
    "Uncertainty": {},
}
"""Name in `tfmtl.balance.BALANCERS` to attributes of `BalancerConformance`."""
