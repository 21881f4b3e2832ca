"""One entry per architecture: settings and claims for its conformance tests."""

from __future__ import annotations

from typing import Any

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
    "SharedBottom": {"config": {"bottom_units": [8], "tower_units": [4]}},
    "SingleScenario": {
        "config": {"units": [8], "tower_units": [4]},
        "unknown_scenario": "mean_logit",
    },
    "SingleTask": {"config": {"units": [8], "tower_units": [4]}},
}
"""Name in `tfmtl.models.MODELS` to attributes of `ModelConformance`."""
