"""Oracles without training: spaces, a loop, and toy functions in place of a trial."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.durable import DurableOracle
from tfmtl.tuning.oracles.make import make_oracle

Toy = Callable[[Mapping[str, Any]], dict[str, float] | None]
AUC = Goal.parse(["click/auc"], [])
KINDS = ("random", "grid", "bayesian", "hyperband")


def plane(dimensions: int = 2) -> keras_tuner.HyperParameters:
    """x0, x1, ... in [0, 1]."""
    space = keras_tuner.HyperParameters()
    for number in range(dimensions):
        space.Float(f"x{number}", 0.0, 1.0, default=0.5)
    return space


def conditional() -> keras_tuner.HyperParameters:
    """Ten points: three of mmoe, six of ple, one of shared."""
    space = keras_tuner.HyperParameters()
    space.Fixed("kind", "rank")
    space.Choice("model", ["mmoe", "ple", "shared"])
    with space.conditional_scope("model", ["mmoe"]):
        space.Choice("experts", [2, 4, 8])
    with space.conditional_scope("model", ["ple"]):
        space.Int("levels", 1, 2)
        with space.conditional_scope("levels", [2]):
            space.Boolean("gated")
        space.Float("share", 0.0, 0.5, step=0.5)
    return space


CONDITIONAL = [
    *({"kind": "rank", "model": "mmoe", "experts": n} for n in (2, 4, 8)),
    *(
        {"kind": "rank", "model": "ple", "levels": 1, "share": share}
        for share in (0.0, 0.5)
    ),
    *(
        {"kind": "rank", "model": "ple", "levels": 2, "gated": gated, "share": share}
        for gated in (False, True)
        for share in (0.0, 0.5)
    ),
    {"kind": "rank", "model": "shared"},
]


def oracle(
    folder: pathlib.Path,
    kind: str = "random",
    space: keras_tuner.HyperParameters | None = None,
    goal: Goal = AUC,
    max_trials: int | None = 5,
    seed: int = 0,
    **settings: Any,
) -> DurableOracle:
    """An oracle that keeps its state in a folder, and goes on from what is there."""
    if kind == "hyperband":
        settings.setdefault("epochs", 4)
        settings.setdefault("factor", 2)
    made = make_oracle(
        kind, space or plane(), goal, max_trials=max_trials, seed=seed, **settings
    )
    made.attach(folder)
    return made


def end(made: DurableOracle, trial: Trial, metrics: dict[str, float] | None) -> None:
    """What a worker does when a trial is over; None: it failed."""
    if metrics is not None:
        made.update_trial(trial.trial_id, metrics, step=3)
    trial.status = "FAILED" if metrics is None else "COMPLETED"
    made.end_trial(trial)


def search(made: DurableOracle, toy: Toy, most: int = 1000) -> list[dict[str, Any]]:
    """Runs trials one after the other. Returns the values of each."""
    ran: list[dict[str, Any]] = []
    while len(ran) < most:
        trial = made.create_trial("tuner0")
        if trial.status != "RUNNING":
            assert trial.status == "STOPPED"
            break
        ran.append(dict(trial.hyperparameters.values))
        end(made, trial, toy(trial.hyperparameters.values))
    return ran


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what Hyperband says beside the values."""
    return {k: v for k, v in values.items() if not k.startswith("tuner/")}


def hill(values: Mapping[str, Any]) -> dict[str, float]:
    """Best, 1, at (0.3, 0.8, ...); a valley across."""
    x = [v for k, v in sorted(values.items()) if k.startswith("x")]
    best = [0.3, 0.8, 0.5, 0.1, 0.6, 0.4]
    return {"click/auc": 1.0 - sum((a - b) ** 2 for a, b in zip(x, best))}


def stairs(values: Mapping[str, Any]) -> dict[str, float] | None:
    """A toy of `conditional`; three of its ten points fail."""
    if values["model"] == "mmoe":
        return None
    return {"click/auc": 0.5 + 0.1 * values.get("levels", 0) + values.get("share", 0.0)}
