"""Diagnostics say what NumPy says, change nothing, and are told once a step."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.unit.training.test_loop import StopAt, assert_same_run, events, final_state
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.schema.experiment import Experiment
from tfmtl.training.diagnostics import (
    Diagnostics,
    expert_facts,
    gate_facts,
    gradient_facts,
)
from tfmtl.training.loop import Interrupted
from tfmtl.training.rundir import RunDirectory
from tfmtl.training.trainer import forward
from tfmtl.workflow.train import TrainResult, train

CONTROLLED = {
    "diagnose_every": 4,
    "evaluate_every": 3,
    "task_snapshots": True,
    "tasks": {
        "like": {"start": 2, "stop": 11, "clip_norm": 0.05},
        "click": {"patience": 1},
        "buy": {"patience": 1},
    },
}


def test_gradient_facts_are_those_of_the_vectors() -> None:
    draw = np.random.default_rng(0)
    g, w = draw.normal(size=(3, 7)), np.array([2.0, 0.5, 0.0])
    found = gradient_facts(["a", "b", "c"], g @ g.T, w, np.array([True] * 3))
    total = w @ g
    for t, name in enumerate("abc"):
        assert found["norm"][name] == pytest.approx(np.linalg.norm(g[t]))
        share = w[t] * g[t] @ total / (total @ total)
        assert found["share"][name] == pytest.approx(share)
    assert sum(found["share"].values()) == pytest.approx(1)
    cosine = g[0] @ g[2] / np.linalg.norm(g[0]) / np.linalg.norm(g[2])
    assert found["cosine"]["a"]["c"] == pytest.approx(cosine)
    sizes = w * np.linalg.norm(g, axis=1)
    assert found["norm_share"]["a"] == pytest.approx(sizes[0] / sizes.sum())
    absent = gradient_facts(["a", "b", "c"], g @ g.T, w, np.array([True, False, True]))
    assert set(absent["norm"]) == {"a", "c"} and absent["share"]["a"] == 1


def test_gate_and_expert_facts() -> None:
    facts = gate_facts(np.array([0.5, 0.5, 0.0]), np.log(2))
    assert (facts["entropy"], facts["largest"]) == (1.0, 0.5)
    x = np.array([[1.0, -1, 0], [2, -2, 0.1], [0, 0, 0]])
    facts = expert_facts(np.array([0.0, 0.0, 1.0]), x @ x.T)
    assert facts["nearest"] == [0, 1]
    assert facts["correlation"] == pytest.approx(np.corrcoef(x[0], x[1])[0, 1], 1e-2)
    alone = expert_facts(np.array([0.0, 1.0]), np.diag([1.0, 0.0]))
    assert alone["correlation"] is None and alone["nearest"] is None


def test_gates_of_scenarios_are_not_named_by_tasks() -> None:
    made = Diagnostics.__new__(Diagnostics)
    made.names = ["a", "b"]
    values = np.full([2, 3], 1 / 3), np.zeros(2)
    assert list(made._gates("level_1_gates", *values)) == ["a", "b"]
    assert list(made._gates("scenario_expert_gates", *values)) == ["0", "1"]


def test_a_look_equals_a_tape_and_leaves_every_variable(
    experiment: Any, dataset: Any
) -> None:
    plain = experiment().model_dump(by_alias=True)
    # Normalisation has moving statistics, which a forward pass in training moves.
    plain["model"] = {"class": "STAR", "config": {"star_units": [5], "tower_units": []}}
    plain["training"]["tasks"] = {"buy": {"reach": "own"}}
    asked = Experiment.model_validate(plain)
    model = build.make_model(asked, dataset[1], dataset[0])
    trainer = build.make_trainer(asked, model, 10)
    reader = build.make_reader(asked, dataset[1], dataset[0], "train", train=True)
    variables = [*model.variables, *trainer.optimizers.composite.weights]
    before = [v.numpy() for v in variables]
    found = Diagnostics(trainer)(iter(reader.epoch(0, 2)), np.array([1.0, 4.0, 1.0]))
    for variable, old in zip(variables, before):
        np.testing.assert_array_equal(variable, old, err_msg=variable.name)
    batch = next(iter(reader.epoch(0, 2)))
    shared = model.variable_groups()["shared"]
    with tf.GradientTape(persistent=True) as tape:
        losses = tf.unstack(forward(model, trainer.losses, batch)[0])
    moved = [not np.array_equal(v, b) for v, b in zip(variables, before)]
    assert any(moved), "an ordinary pass moves the statistics"
    norms = []
    for loss in losses:
        gradients = tape.gradient(loss, shared, unconnected_gradients="zero")
        norms.append(float(tf.linalg.global_norm(gradients)))
    facts = found["groups"]["shared"]
    np.testing.assert_allclose(list(facts["norm"].values()), norms, rtol=1e-4)
    like = 4 * norms[1] / (norms[0] + 4 * norms[1])
    assert facts["norm_share"]["like"] == pytest.approx(like, rel=1e-4)
    assert facts["norm_share"]["buy"] == 0, "its gradient does not get there"


def stopped(result: TrainResult) -> tuple[int, str]:
    """The first task whose patience ran out, after its step."""
    found = ((facts["stopped"], task) for task, facts in result.tasks.items())
    return min((step, task) for step, task in found if step is not None)


@pytest.fixture(scope="module")
def whole(
    dataset: Any, experiment: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, TrainResult]:
    run = tmp_path_factory.mktemp("controlled") / "run"
    return run, train(experiment(**CONTROLLED), dataset[0], run)


def test_the_trajectory_is_the_same_bit_for_bit_without(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    without = {**CONTROLLED, "diagnose_every": None}
    train(experiment(**without), dataset[0], tmp_path / "run")
    mine, theirs = final_state(whole[0]), final_state(tmp_path / "run")
    assert set(mine) == set(theirs)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    looks = [e["step"] for e in events(whole[0]) if e["kind"] == "diagnostics"]
    assert looks == [4, 8, 12]
    kinds = {e["kind"] for e in events(tmp_path / "run")}
    assert kinds == {"train", "validation"}


def test_resume_goes_on_exactly_with_looks_patience_and_snapshots(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    run, asked = tmp_path / "run", experiment(**CONTROLLED)
    with pytest.raises(Interrupted):
        train(asked, dataset[0], run, listener=StopAt(12))
    # Of a step with a look, after one at which a task stopped.
    assert 0 < stopped(whole[1])[0] < 12
    result = train(asked, dataset[0], run, resume=True)
    assert_same_run(run, whole[0])
    assert result.tasks == whole[1].tasks
    kept = [
        sorted(p.name for p in (r / "checkpoints").iterdir()) for r in (run, whole[0])
    ]
    assert kept[0] == kept[1]


def test_a_task_out_of_its_steps_has_no_loss_in_the_log(whole: Any) -> None:
    losses = {e["step"]: e["loss"] for e in events(whole[0]) if e["kind"] == "train"}
    assert losses[2]["like"] is None and losses[3]["like"] > 0
    assert losses[10]["like"] > 0 and losses[14]["like"] is None
    step, task = stopped(whole[1])
    assert losses[step][task] > 0
    assert all(e[task] is None for s, e in losses.items() if s > step)


def test_each_tasks_own_best_step_is_kept(whole: Any) -> None:
    run, result = whole
    history = {
        e["step"]: e["metrics"] for e in events(run) if e["kind"] == "validation"
    }
    for task, found in result.tasks.items():
        values = {step: m[f"{task}/auc"] for step, m in history.items()}
        assert found["value"] == max(values.values())
        assert values[found["step"]] == found["value"]
    steps = {f["step"] for f in result.tasks.values()} | {result.step}
    kept = {p.name for p in (run / "checkpoints").glob("best-*")}
    assert kept == {f"best-{step:010d}" for step in steps}
    assert RunDirectory(run).result()["snapshots"] is True
