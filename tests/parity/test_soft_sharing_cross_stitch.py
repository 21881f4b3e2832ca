"""SoftSharing and CrossStitch against NumPy, and their limits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    TASKS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    relu,
    tower,
    with_spec,
)
from tfmtl._keras import keras, tf
from tfmtl.models.soft_sharing import pair_distances
from tfmtl.optim.groups import match_groups

SMALL: dict[str, Any] = {"units": [6, 5], "tower_units": [3]}


def independent(model: Any, stacks: list[Any]) -> Truth:
    """Networks that know nothing of each other."""
    result = {}
    for t, output in enumerate(OUTPUTS):
        x = flat(model)
        for dense in stacks:
            x = relu(x @ dense.kernel[t].numpy() + dense.bias[t].numpy())
        result[output] = tower(x, model, t)
    return result


def gradients(model: Any, variables: list[Any]) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        outputs = model(features())
        total = tf.add_n([tf.reduce_sum(tf.square(outputs[o])) for o in OUTPUTS])
    return [np.asarray(g) for g in tape.gradient(total, variables)]


class TestSoftSharing:
    """Independent networks, and what ties them."""

    def test_equals_numpy(self) -> None:
        model = make("SoftSharing", **SMALL)
        assert close(model, independent(model, model.trunks.layers))

    def test_any_perturbed_weight_breaks_parity(self) -> None:
        model = make("SoftSharing", **SMALL)
        check_each_weight_matters(model, lambda m: independent(m, m.trunks.layers))

    def _theta(self, model: Any) -> np.ndarray:
        """[T, n], each network's kernels in one vector."""
        networks = []
        for task in TASKS:
            parts = [
                v.numpy().ravel()
                for v in model.trunks.variable_groups()[f"task/{task}"]
                if v.shape.rank == 2
            ]
            networks.append(np.concatenate(parts))
        return np.stack(networks).astype(np.float64)

    def test_the_penalty_in_both_its_forms(self) -> None:
        model = make("SoftSharing", **SMALL, alpha=0.3)
        theta = self._theta(model)
        pairs = 0.3 * sum(
            np.sum((theta[i] - theta[j]) ** 2) for i in range(3) for j in range(i)
        )
        centred = 0.3 * 3 * np.sum((theta - theta.mean(axis=0)) ** 2)
        np.testing.assert_allclose(pairs, centred, rtol=1e-9)
        (found,) = model.aux_losses().values()
        np.testing.assert_allclose(found, pairs, rtol=1e-5)
        # Once a step, however many rows: neither the call nor its mode matters.
        model({k: v[:3] for k, v in features().items()}, training=True)
        np.testing.assert_allclose(model.aux_losses()["soft_sharing"], found)
        ordered_pairs = 2 * pairs
        assert not np.isclose(float(found), ordered_pairs)

    def test_the_gradient_of_the_penalty(self) -> None:
        members = tf.Variable(np.random.default_rng(0).normal(size=(4, 3, 2)))
        with tf.GradientTape() as tape:
            value = pair_distances(members)
        away = members.numpy() - members.numpy().mean(axis=0)
        np.testing.assert_allclose(tape.gradient(value, members), 2 * 4 * away)

    def test_a_common_shift_changes_nothing(self) -> None:
        members = np.random.default_rng(0).normal(size=(3, 4, 2))
        shift = np.random.default_rng(1).normal(size=(4, 2))
        np.testing.assert_allclose(
            pair_distances(tf.constant(members + shift)),
            pair_distances(tf.constant(members)),
        )
        assert pair_distances(tf.constant(members)) > 1
        assert pair_distances(tf.constant(members[:1])) == 0

    def test_without_alpha_networks_are_independent(self) -> None:
        model = make("SoftSharing", **SMALL, alpha=0.0)
        assert model.aux_losses() == {}
        groups = model.variable_groups()
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(features())
        for task, output in zip(TASKS, OUTPUTS):
            for other in TASKS:
                found = tape.gradient(outputs[output], groups[f"task/{other}"])
                reached = any(g is not None and np.any(g) for g in found)
                assert reached == (other == task), (task, other)
        # ... with the gradients of a model that has one task alone.
        alone = make(
            "SoftSharing",
            with_spec(tasks=[{"name": "like", "label": "like"}]),
            **SMALL,
            alpha=0.0,
        )
        mine = groups["task/like"]
        own = alone.variable_groups()["task/like"]
        for a, b in zip([*alone.embedding.weights, *own], model.embedding.weights):
            a.assign(b)
        for a, b in zip(own, mine):
            a.assign(b)
        with tf.GradientTape(persistent=True) as tape:
            one, other = alone(features())["like"], model(features())["like"]
        for a, b in zip(tape.gradient(one, own), tape.gradient(other, mine)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    def test_the_spread_falls_with_alpha(self) -> None:
        spreads = []
        rows = features()
        for alpha in (0.0, 0.1, 5.0):
            model = make("SoftSharing", **SMALL, alpha=alpha)
            optimizer = keras.optimizers.legacy.SGD(0.01)
            start = self._spread(model)

            @tf.function
            def step(model: Any = model, optimizer: Any = optimizer) -> None:
                with tf.GradientTape() as tape:
                    outputs = model(rows, training=True)
                    wanted = {"click": 1.0, "like": -1.0, "buy|click": 0.3}
                    total = tf.add_n(
                        [
                            *(
                                tf.reduce_mean(tf.square(outputs[o] - w))
                                for o, w in wanted.items()
                            ),
                            *model.aux_losses().values(),
                        ]
                    )
                variables = model.trainable_variables
                optimizer.apply_gradients(
                    zip(tape.gradient(total, variables), variables)
                )

            for _ in range(60):
                step()
            spreads.append(self._spread(model) / start)
        assert all(a > b for a, b in itertools.pairwise(spreads)), spreads
        assert spreads[0] > 0.5
        assert spreads[-1] < 1e-3

    def _spread(self, model: Any) -> float:
        theta = self._theta(model)
        return float(np.sum((theta - theta.mean(axis=0)) ** 2))


def stitched(model: Any, transposed: bool = False, after_tower: bool = False) -> Truth:
    columns: list[Any] = [flat(model)] * 3
    place = {name: n for n, name in enumerate(sorted(TASKS))}
    for dense, unit in zip(model.columns, model.stitches):
        own = [
            relu(x @ dense.kernel[t].numpy() + dense.bias[t].numpy())
            for t, x in enumerate(columns)
        ]
        stitch = unit.stitch.numpy()
        if transposed:
            stitch = stitch.swapaxes(0, 1)
        columns = [
            sum(stitch[place[to], place[s]] * own[j] for j, s in enumerate(TASKS))
            for to in TASKS
        ]
    result = {o: tower(columns[t], model, t) for t, o in enumerate(OUTPUTS)}
    if after_tower:
        logits = list(result.values())
        result = {
            o: sum(stitch[place[to], place[s]] * logits[j] for j, s in enumerate(TASKS))
            for o, to in zip(OUTPUTS, TASKS)
        }
    return result


class TestCrossStitch:
    """Columns, mixed."""

    @pytest.mark.parametrize("per_channel", [False, True])
    def test_equals_numpy(self, per_channel: bool) -> None:
        model = make("CrossStitch", **SMALL, per_channel=per_channel)
        assert model.stitches[0].stitch.shape == ([3, 3, 6] if per_channel else [3, 3])
        assert close(model, stitched(model))
        assert not close(model, stitched(model, transposed=True)), "from k to j"
        if not per_channel:
            assert not close(model, stitched(model, after_tower=True))

    @pytest.mark.parametrize("per_channel", [False, True])
    def test_any_perturbed_weight_breaks_parity(self, per_channel: bool) -> None:
        model = make("CrossStitch", **SMALL, per_channel=per_channel)
        check_each_weight_matters(model, stitched)

    def test_the_identity_leaves_independent_networks(self) -> None:
        model = make("CrossStitch", **SMALL)
        for unit in model.stitches:
            unit.stitch.assign(np.eye(3, dtype=np.float32))
        assert close(model, independent(model, model.columns))
        # ... with their gradients, too.
        soft = make("SoftSharing", **SMALL, alpha=0.0)
        for a, b in zip(soft.embedding.weights, model.embedding.weights):
            a.assign(b)
        for a, b in zip(soft.towers.weights, model.towers.weights):
            a.assign(b)
        ours, theirs = (
            [v for dense in d for v in (*dense._kernels, *dense._biases)]
            for d in (model.columns, soft.trunks.layers)
        )
        for a, b in zip(theirs, ours):
            a.assign(b)
        ours += model.towers.trainable_variables
        theirs += soft.towers.trainable_variables
        for a, b in zip(gradients(model, ours), gradients(soft, theirs)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)

    def test_equal_mixing_makes_columns_equal(self) -> None:
        model = make("CrossStitch", **SMALL)
        x = model.embedding(features())
        before = model.represent(x, training=False).numpy()
        assert np.abs(before[:, 0] - before[:, 1]).max() > 0.1
        for unit in model.stitches:
            unit.stitch.assign(tf.fill([3, 3], 1 / 3))
        mixed = model.represent(x, training=False).numpy()
        np.testing.assert_array_equal(mixed[:, 0], mixed[:, 1])
        np.testing.assert_array_equal(mixed[:, 0], mixed[:, 2])

    def test_permuting_tasks_and_the_matrix_permutes_outputs(self) -> None:
        tasks = [{"name": n, "label": n} for n in ("click", "like", "buy")]
        model = make("CrossStitch", with_spec(tasks=tasks), **SMALL)
        moved = make("CrossStitch", with_spec(tasks=tasks[::-1]), **SMALL)
        by_name = {v.name.partition("/")[2]: v for v in model.trainable_variables}
        for variable in moved.trainable_variables:
            variable.assign(by_name[variable.name.partition("/")[2]])
        for ours, theirs in zip(model.stitches, moved.stitches):
            matrix = ours.mixing.numpy()
            np.testing.assert_array_equal(theirs.mixing, matrix[::-1, ::-1])
            assert np.abs(matrix - matrix[::-1, ::-1]).max() > 0.01
        for output, value in moved(features()).items():
            np.testing.assert_allclose(value, model(features())[output], rtol=1e-4)

    def test_gradients_of_matrix_and_columns(self) -> None:
        """dL/dA_ij = sum dL/dx~_i x_j and dL/dx_j = sum_i A_ij dL/dx~_i."""
        model = make("CrossStitch", units=[6], tower_units=[3])
        unit, x = model.stitches[0], model.embedding(features()).flat
        with tf.GradientTape(persistent=True) as tape:
            columns = model.columns[0](x)
            mixed = unit(columns)
            logits = model.towers(mixed)
            total = tf.add_n([tf.reduce_sum(tf.square(v)) for v in logits])
        upstream = tape.gradient(total, mixed).numpy()
        matrix = unit.mixing.numpy()
        order = [sorted(TASKS).index(t) for t in TASKS]
        truth = np.einsum("bic,bjc->ij", upstream, columns.numpy())
        found = tape.gradient(total, unit.stitch).numpy()[order][:, order]
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(
            tape.gradient(total, columns),
            np.einsum("ij,bic->bjc", matrix, upstream),
            rtol=1e-4,
            atol=1e-4,
        )

    def test_the_matrices_are_a_group_of_their_own(self) -> None:
        model = make("CrossStitch", **SMALL)
        groups = model.variable_groups()
        assert [v.ref() for v in groups["shared/stitch"]] == [
            u.stitch.ref() for u in model.stitches
        ]
        chosen = match_groups(list(groups), ["default", "shared", "shared/stitch"])
        assert chosen["shared/stitch"] == "shared/stitch"
        assert chosen["shared"] == "shared"
        assert match_groups(list(groups), ["shared"])["shared/stitch"] == "shared"

    def test_all_tasks_reach_the_columns(self) -> None:
        model = make("CrossStitch", **SMALL)
        shared = model.variable_groups()["shared"]
        with tf.GradientTape(persistent=True) as tape:
            outputs = model(features())
        for output in OUTPUTS:
            for variable, g in zip(shared, tape.gradient(outputs[output], shared)):
                assert np.any(g), (output, variable.name)
