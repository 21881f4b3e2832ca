"""One entry per architecture: settings and claims for its conformance tests."""

from __future__ import annotations

from typing import Any

from tfmtl.testing.tiny import POSITION

ENTRIES: dict[str, dict[str, Any]] = {
    "MMoE": {
        "config": {
            "num_experts": 3,
            "expert_units": [8],
            "tower_units": [4],
            "interaction": "dot",
        },
        "gates": ("gates",),
    },
    "MRAN": {
        "config": {"width": 8, "heads": 2, "tower_units": [4], "attention_l2": 0.1}
    },
    "RnR": {
        "config": {"rating": ["like"], "units": 4},
        "renamed": {"rating": ["long"]},
        "dataset": {
            "tasks": [
                {"name": "click", "label": "click"},
                {"name": "like", "label": "like"},
                {"name": "buy", "label": "buy", "given": "click"},
            ]
        },
        "unknown_scenario": "finite",
    },
    "SharedBottom": {"config": {"bottom_units": [8], "tower_units": [4]}},
    "SingleScenario": {
        "config": {"units": [8], "tower_units": [4]},
        "unknown_scenario": "mean_logit",
    },
    "SingleTask": {"config": {"units": [8], "tower_units": [4]}},
    "WatchNext": {
        "config": {
            "bias_features": ["user"],
            "shared_units": [8],
            "num_experts": 3,
            "expert_units": [8],
            "tower_units": [4],
            "gate_dropout": 0.0,
        },
        "dataset": {"more_features": [POSITION]},
        "gates": ("gates",),
    },
}
"""Name in `tfmtl.models.MODELS` to attributes of `ModelConformance`."""
