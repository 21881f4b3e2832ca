"""Steps of balancers that ask the trainer for more than losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from tests.unit.balance.test_dcb import Explicit
from tests.unit.training.test_gradients import kinds, moves, per_task, stirred, suite
from tfmtl._keras import tf
from tfmtl.balance import DCB, FAMO, AdaTask, Equal, GradNorm, TaskInfo
from tfmtl.errors import ConfigError
from tfmtl.layers.statistics import frozen_statistics
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec, RegularizationSpec
from tfmtl.testing.conformance import ModelConformance
from tfmtl.training.trainer import Trainer, forward

TINY_RATE = 1e-20


@pytest.fixture(scope="module")
def mmoe() -> Any:
    return stirred("MMoE")


@pytest.fixture(scope="module")
def star() -> Any:
    return stirred("STAR")


def size(moved: dict[str, np.ndarray], names: Any) -> float:
    """The norm of some variables' moves together."""
    return float(np.sqrt(sum((moved[n] ** 2).sum() for n in names)))


def trainer_of(model: Any, kind: Any, spec: dict[str, Any], **config: Any) -> Trainer:
    spec = {"class": "SGD", "learning_rate": 1.0, **spec}
    names = model.manifest.dataset.task_names
    return Trainer(
        model,
        ModelConformance.losses(model),
        kind(TaskInfo(names), kind.Config(**config)),
        OptimizerGroups(
            {"default": OptimizerSpec.model_validate(spec)},
            model.variable_groups(),
            10,
        ),
    )


class TestFAMO:
    """The batch is seen once more."""

    def test_losses_after_the_update_are_those_of_the_moved_model(
        self, mmoe: Any
    ) -> None:
        batch = ModelConformance.tiny().batch
        start = [v.numpy() for v in mmoe.variables]
        trainer = trainer_of(mmoe, FAMO, {"learning_rate": 0.5}, weight_decay=0)
        old = trainer.train_step(batch).losses.numpy()
        new, *_ = forward(mmoe, trainer.losses, batch)
        for variable, value in zip(mmoe.variables, start):
            variable.assign(value)
        fell = np.log(old) - np.log(new)
        slope = (fell - fell.mean()) / 3
        assert np.abs(fell).max() > 1e-3
        np.testing.assert_allclose(
            trainer.balancer.first, 0.1 * slope, rtol=1e-3, atol=1e-7
        )

    def test_both_passes_drop_the_same_units(self) -> None:
        model = suite("SharedBottom").make(dropout=0.5)
        batch = ModelConformance.tiny().batch
        trainer = trainer_of(model, FAMO, {"learning_rate": TINY_RATE})
        trainer.train_step(batch)
        np.testing.assert_array_equal(trainer.balancer.first, np.zeros(3))
        here, *_ = forward(model, trainer.losses, batch)
        model.step.assign(0)
        there, *_ = forward(model, trainer.losses, batch)
        assert np.abs(here - there).max() > 1e-3, "dropout does nothing here"

    def test_moving_statistics_move_once(self, star: Any) -> None:
        batch = ModelConformance.tiny().batch
        start = [v.numpy() for v in star.variables]
        found = []
        for kind in (Equal, FAMO):
            trainer_of(star, kind, {"learning_rate": TINY_RATE}).train_step(batch)
            found.append([v.numpy() for v in star.non_trainable_variables])
            if kind is FAMO:
                with frozen_statistics():
                    forward(star, ModelConformance.losses(star), batch)
                still = [v.numpy() for v in star.non_trainable_variables]
                forward(star, ModelConformance.losses(star), batch)
            twice = [v.numpy() for v in star.non_trainable_variables]
            for variable, value in zip(star.variables, start):
                variable.assign(value)
        for equal, famo, same in zip(*found, still):
            np.testing.assert_array_equal(equal, famo)
            np.testing.assert_array_equal(famo, same)
        assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(twice, found[1]))


class TestGradNorm:
    """Norms are of the last shared layer; the network sees constant weights."""

    def test_norms_are_those_of_the_last_shared_layer(self, mmoe: Any) -> None:
        batch = ModelConformance.tiny().batch
        trainer = trainer_of(mmoe, GradNorm, {}, initial_steps=1, alpha=0)
        tasks, _ = per_task(mmoe, batch)
        names = [v.name for v in trainer.variables_shared.probed("last_shared", None)]
        moves(trainer, batch)
        norms = [np.sqrt(sum((g[n] ** 2).sum() for n in names)) for g in tasks]
        slope = np.sign(norms - np.mean(norms)) * norms
        moved = 1 - 0.025 * slope
        np.testing.assert_allclose(
            trainer.balancer.weights, 3 * moved / moved.sum(), rtol=1e-4
        )
        shared = [n for n, k in kinds(mmoe).items() if k == "shared"]
        assert 0 < len(names) < len(shared)

    def test_the_network_descends_the_weighted_sum(self, mmoe: Any) -> None:
        batch = ModelConformance.tiny().batch
        trainer = trainer_of(mmoe, GradNorm, {}, initial_steps=1)
        weights = [0.5, 2.2, 0.3]
        trainer.balancer.weights.assign(weights)
        tasks, penalty = per_task(mmoe, batch)
        found = moves(trainer, batch)
        assert not np.allclose(trainer.balancer.weights, weights)
        for name, extra in penalty.items():
            wanted = sum(w * g[name] for w, g in zip(weights, tasks)) + extra
            np.testing.assert_allclose(
                found[name], wanted, rtol=2e-4, atol=2e-6, err_msg=name
            )


class TestAdaTask:
    """Shared variables follow steps, others their optimizer."""

    @pytest.mark.parametrize("embedding", ["balanced", "sum"])
    def test_first_step(self, star: Any, embedding: str) -> None:
        batch = ModelConformance.tiny().batch
        config = {"epsilon": 1e-20, "embedding": embedding}
        found = moves(trainer_of(star, AdaTask, {}, **config), batch)
        tasks, penalty = per_task(star, batch)
        assert any(np.abs(g).max() > 0 for g in penalty.values())
        kind, seen, compared = kinds(star), set(), []
        followed = ("shared", "embedding") if embedding == "balanced" else ("shared",)
        for name, extra in penalty.items():
            if kind[name] in followed:
                parts = [g[name] + extra / 3 for g in tasks]
                wanted = sum(np.sign(p) for p in parts)
                # Where terms of a gradient cancel, its sign is one of rounding.
                clear = np.all([(np.abs(p) > 1e-7) | (p == 0) for p in parts], axis=0)
                np.testing.assert_allclose(
                    found[name][clear], wanted[clear], atol=1e-3, err_msg=name
                )
                compared.append(clear.ravel())
            else:
                wanted = sum(g[name] for g in tasks) + extra
                np.testing.assert_allclose(
                    found[name], wanted, rtol=2e-4, atol=2e-6, err_msg=name
                )
            seen.add(kind[name])
        assert {"shared", "embedding", "task"} <= seen
        assert np.concatenate(compared).mean() > 0.7

    def test_rate_decay_and_clipping_are_the_patterns(self, mmoe: Any) -> None:
        batch = ModelConformance.tiny().batch
        plain = moves(trainer_of(mmoe, AdaTask, {}), batch)
        schedule = {"kind": "constant", "warmup_steps": 4}
        slow = trainer_of(
            mmoe, AdaTask, {"class": "Adam", "learning_rate": 0.4, "schedule": schedule}
        )
        shared = [n for n, k in kinds(mmoe).items() if k in ("shared", "embedding")]
        own = sorted(set(plain) - set(shared))
        norm = 0.5 * size(plain, own)
        assert norm < 0.1 * size(plain, shared)
        clipped = moves(trainer_of(mmoe, AdaTask, {"clip_norm": norm}), batch)
        for names in (shared, own):  # Steps, and gradients: a norm for each.
            np.testing.assert_allclose(size(clipped, names), norm, rtol=1e-2)
        clipped = moves(trainer_of(mmoe, AdaTask, {"clip_norm": 2.5 * norm}), batch)
        for name in own:
            np.testing.assert_allclose(clipped[name], plain[name], rtol=1e-3, atol=1e-6)
        found = moves(slow, batch)
        for name in shared:
            np.testing.assert_allclose(
                found[name], 0.1 * plain[name], rtol=1e-3, atol=1e-6
            )
        values = {v.name: v.numpy() for v in mmoe.trainable_variables}
        decayed = moves(trainer_of(mmoe, AdaTask, {"weight_decay": 0.1}), batch)
        kernels = [n for n in shared if "kernel" in n]
        for name in kernels:
            np.testing.assert_allclose(
                decayed[name], plain[name] + 0.1 * values[name], rtol=1e-3, atol=1e-5
            )
        assert kernels

    def test_without_any_label_all_that_is_followed_rests(self) -> None:
        penalised = RegularizationSpec(embedding_std=0.3, embedding_l2=0.1)
        model = suite("SharedBottom").make(regularization=penalised)
        batch = ModelConformance.tiny().batch
        nothing = batch._replace(mask=tf.zeros_like(batch.mask))
        _, penalty = per_task(model, nothing)
        followed = [n for n, k in kinds(model).items() if k in ("shared", "embedding")]
        assert any(np.abs(penalty[n]).max() > 0 for n in followed)
        trainer = trainer_of(model, AdaTask, {})
        moves(trainer, batch)
        before = [v.numpy() for v in trainer.balancer.variables]
        found = moves(trainer, nothing)
        assert all(np.all(found[n] == 0) for n in followed)
        for variable, value in zip(trainer.balancer.variables, before):
            np.testing.assert_array_equal(variable, value)

    def test_slots_are_t_sets_and_the_optimizers_hold_none(self, mmoe: Any) -> None:
        trainer = trainer_of(mmoe, AdaTask, {"class": "Adam"})
        shared = trainer.variables_shared.shared
        for variable, slots in zip(shared, trainer.balancer.slots):
            assert [s.shape.as_list() for s in slots] == [[3, *variable.shape]] * 2
        size = sum(int(tf.size(v)) for v in shared)
        held = sum(int(tf.size(v)) for v in trainer.optimizers.composite.variables())
        rest = sum(int(tf.size(v)) for v in trainer.variables_shared.rest)
        assert 2 * rest <= held < 2 * rest + size


class TestDCB:
    """A scenario's own variables in groups of its own, where that is asked for."""

    def test_scenarios_are_balanced_layer_by_layer(self, star: Any) -> None:
        batch = ModelConformance.tiny().batch
        tasks, penalty = per_task(star, batch)
        losses, *_ = forward(star, ModelConformance.losses(star), batch)
        together = trainer_of(star, DCB, {}, groups="shared+scenario")
        found = moves(together, batch)
        plain = moves(trainer_of(star, DCB, {}), batch)
        kind, layers = kinds(star), {}
        for group, variables in star.variable_groups().items():
            for v in variables:
                if group.startswith("scenario/"):
                    layer = (group, v.name.rpartition("/")[0])
                    layers.setdefault(layer, []).append(v.name)
        assert len({group for group, _ in layers}) == 3 < len(layers)
        for names in layers.values():
            flat = [np.concatenate([g[n].ravel() for n in names]) for g in tasks]
            wanted = Explicit(3)(np.stack(flat).astype("f8"), losses.numpy())
            extra = np.concatenate([penalty[n].ravel() for n in names])
            moved = np.concatenate([found[n].ravel() for n in names])
            np.testing.assert_allclose(moved, wanted + extra, rtol=2e-3, atol=1e-5)
            summed = np.concatenate([plain[n].ravel() for n in names])
            np.testing.assert_allclose(summed, sum(flat) + extra, rtol=2e-3, atol=1e-5)
            assert np.abs(moved - summed).max() > 1e-3 * np.abs(summed).max()
        for name, value in found.items():
            if kind[name] != "scenario":
                np.testing.assert_allclose(
                    value, plain[name], rtol=1e-5, atol=1e-6, err_msg=name
                )
        shared = together.variables_shared
        assert all(kind[v.name] != "scenario" for v in shared.by_kind()["shared"])

    def test_without_such_variables_or_groups_it_is_refused(self, mmoe: Any) -> None:
        with pytest.raises(ConfigError, match=r"shared\+scenario` needs variables"):
            trainer_of(mmoe, DCB, {}, groups="shared+scenario")
        with pytest.raises(pydantic.ValidationError, match="use `layer` or `tensor`"):
            DCB.Config(groups="shared+scenario", granularity="whole")
