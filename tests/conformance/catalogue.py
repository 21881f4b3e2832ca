"""One entry per architecture: settings and claims for its conformance tests."""

from __future__ import annotations

from typing import Any

from tfmtl.testing.tiny import CROSS, POSITION, TIMED_KEYS

ENTRIES: dict[str, dict[str, Any]] = {
    "AITM": {
        "config": {"step_units": [8, 6], "tower_units": [4]},
        "gates": ("transfer_gates",),
    },
    "CGC": {
        "config": {
            "task_experts": 2,
            "shared_experts": 1,
            "expert_units": [8],
            "tower_units": [4],
        },
        "gates": ("gates",),
    },
    "CNNMax": {
        "config": {
            "windows": [1, 2, 3, 7],
            "kernels": 4,
            "behaviour_units": 6,
            "user_units": 5,
            "item_units": 5,
            "tower_units": [6],
        }
    },
    "CrossStitch": {
        "config": {"units": [8, 8], "tower_units": [4]},
        "fixed_start": ("stitch",),
    },
    "DBMTL": {
        "config": {
            "parents": {"buy": ["like", "click"], "like": ["click"]},
            "bottom_units": [8],
            "num_experts": 3,
            "specific_units": [6],
            "relation_units": [5],
            "tower_units": [4],
        },
        "renamed": {"parents": {}},
        "gates": ("gates",),
    },
    "DSSM": {
        "config": {
            "shared_units": [8],
            "tower_units": [6, 5],
            "initial_scale": 3.0,
        }
    },
    "DUPN": {
        "config": {
            "lstm_units": 6,
            "attention_units": [6, 4],
            "user_units": 5,
            "item_units": 5,
            "heads": {"like": "ppp", "buy": "l2r"},
            "ranking_features": ["price"],
            "tower_units": [6],
            "user_tower_units": [6],
        },
        "renamed": {"heads": {"long": "ppp", "click_long": "l2r"}},
    },
    "DeepMCP": {
        "config": {
            "units": [8],
            "matching_units": [6, 5],
            "correlation_units": [6, 4],
            "task": "click",
            "alpha": 1.0,
            "beta": 0.5,
            "negatives": 2,
        },
        "dataset": {"keys": TIMED_KEYS},
    },
    "ESM2": {
        "config": {"through": {"buy": "like"}, "tower_units": [8]},
        "renamed": {"through": {"click_long": "long"}},
        "dataset": {
            "tasks": [
                {"name": "click", "label": "click"},
                {"name": "like", "label": "like", "given": "click"},
                {"name": "buy", "label": "buy", "given": "click"},
            ]
        },
    },
    "ESMM": {"config": {"tower_units": [8, 4]}},
    "ExpertFusion": {
        "config": {
            "shared_experts": 2,
            "expert_units": [8],
            "tower_units": [4],
            "gate_units": 5,
            "gate_hidden_units": 4,
            "auxiliary_units": [4],
            "scenario_features": ["price"],
        },
        "gates": ("gates",),
        # Factors that start at 1.
        "fixed_start": ("_gate/factors",),
        "unknown_scenario": "centre",
    },
    "HiNet": {
        "config": {
            "sub_experts": 2,
            "shared_sub_experts": 2,
            "sub_expert_units": [8],
            "task_experts": 1,
            "shared_experts": 1,
            "expert_units": [6],
            "tower_units": [4],
        },
        "gates": (
            "gates",
            "attention_gates",
            "scenario_expert_gates",
            "shared_expert_gates",
        ),
        "unknown_scenario": "mean_logit",
    },
    "M3oE": {
        "config": {
            "star_units": 8,
            "representation_units": [8],
            "shared_experts": 2,
            "expert_units": 6,
            "tower_units": [4],
        },
        "gates": ("gates",),
        "fixed_start": ("leaf",),
        "unknown_scenario": "mean_logit",
    },
    "MMoE": {
        "config": {
            "num_experts": 3,
            "expert_units": [8],
            "tower_units": [4],
            "interaction": "dot",
        },
        "gates": ("gates",),
    },
    "MMoE+ESMM": {
        "config": {"num_experts": 3, "expert_units": [8], "tower_units": [4]},
        "gates": ("gates",),
    },
    "MRAN": {
        "config": {"width": 8, "heads": 2, "tower_units": [4], "attention_l2": 0.1}
    },
    "MoE": {
        "config": {
            "num_experts": 4,
            "active_experts": 2,
            "expert_units": [8],
            "tower_units": [4],
        },
        "gates": ("gates",),
        "fixed_start": ("gate/",),
    },
    "NMTR": {
        "config": {"order": ["click", "like", "buy"], "tower_units": [6]},
        # The target behaviour alone has parts of its own.
        "renamed": {"order": ["click", "long", "click_long"]},
        "unknown_scenario": "finite",
    },
    "OMoE": {
        "config": {"num_experts": 3, "expert_units": [8], "tower_units": [4]},
        "gates": ("gates",),
    },
    "PEPNet": {"config": {"units": [8, 6], "gate_units": 5}},
    "PLE": {
        "config": {
            "task_experts": 1,
            "shared_experts": 2,
            "expert_units": [[8], [6], [6]],
            "tower_units": [8],
        },
        "gates": ("level_1_gates", "level_2_gates", "level_3_gates"),
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
    "STAR": {
        "config": {
            "star_units": [8],
            "tower_units": [4],
            "auxiliary_units": [4],
            "auxiliary_features": ["price"],
            "leaf_l2": 1e-3,
        },
        "fixed_start": ("leaf",),
        "unknown_scenario": "centre",
    },
    "STEM": {
        "config": {
            "task_experts": 2,
            "shared_experts": 1,
            "expert_units": [8],
            "gate_units": [5],
            "tower_units": [4],
        },
        "gates": ("gates",),
    },
    "SharedBottom": {"config": {"bottom_units": [8], "tower_units": [4]}},
    "SingleScenario": {
        "config": {"units": [8], "tower_units": [4]},
        "unknown_scenario": "mean_logit",
    },
    "SingleTask": {"config": {"units": [8], "tower_units": [4]}},
    "SoftSharing": {"config": {"units": [8], "tower_units": [4], "alpha": 0.01}},
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
    "Wide": {
        "config": {},
        "dataset": {"more_features": [CROSS]},
        "fixed_start": ("tables/stacked",),
        "has_dropout": False,
    },
    "WideDeep": {
        "config": {"deep_units": [8]},
        "dataset": {"more_features": [CROSS]},
    },
}
"""Name in `tfmtl.models.MODELS` to attributes of `ModelConformance`."""
