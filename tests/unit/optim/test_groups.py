"""Patterns, clipping, decay and the composite of optimizers."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.optim import OptimizerGroups, clip_by_norm, match_groups
from tfmtl.schema.experiment import OptimizerSpec, ScheduleSpec

GROUPS = [
    "embedding",
    "embedding/title",
    "shared",
    "gate/click",
    "task/click",
    "task/buy",
]


class TestMatchGroups:
    """The longest pattern that fits wins."""

    def test_longest_folder_and_default(self) -> None:
        chosen = match_groups(
            GROUPS, ["default", "embedding", "embedding/title", "task/*", "task/buy"]
        )
        assert chosen == {
            "embedding": "embedding",
            "embedding/title": "embedding/title",
            "shared": "default",
            "gate/click": "default",
            "task/click": "task/*",
            "task/buy": "task/buy",
        }

    def test_a_folder_holds_what_is_below_it(self) -> None:
        chosen = match_groups(GROUPS, ["default", "embedding", "task"])
        assert chosen["embedding/title"] == "embedding"
        assert chosen["task/buy"] == "task"

    def test_a_prefix_is_no_folder(self) -> None:
        chosen = match_groups(
            ["task/click", "task/click_long"], ["default", "task/click"]
        )
        assert chosen["task/click_long"] == "default"

    def test_an_idle_pattern_is_an_error(self) -> None:
        with pytest.raises(
            ConfigError, match=r"no group.*\['gates'\]. Groups: \['embed"
        ):
            match_groups(GROUPS, ["default", "gates"])

    def test_an_idle_default_is_fine(self) -> None:
        assert match_groups(["shared"], ["default", "*"]) == {"shared": "*"}


class TestClip:
    """The norm is that of the dense gradient."""

    slices = tf.IndexedSlices(
        tf.constant([[3.0, 0.0], [0.0, 1.0], [1.0, 2.0]]), [2, 0, 2], [4, 2]
    )

    def _dense(self, gradient: tf.IndexedSlices) -> np.ndarray:
        return np.asarray(tf.convert_to_tensor(gradient))

    def test_duplicate_ids_are_summed_before_the_norm(self) -> None:
        other = tf.constant([2.0, -1.0])
        norm = np.sqrt((self._dense(self.slices) ** 2).sum() + 5)
        naive = np.sqrt((self.slices.values.numpy() ** 2).sum() + 5)
        assert abs(norm - naive) > 0.5
        sparse, dense, none = clip_by_norm([self.slices, other, None], norm / 2)
        np.testing.assert_allclose(self._dense(sparse), self._dense(self.slices) / 2)
        np.testing.assert_allclose(dense, other / 2, rtol=1e-6)
        assert none is None

    def test_a_small_gradient_stays(self) -> None:
        sparse, dense = clip_by_norm([self.slices, tf.constant([1.0])], 1e3)
        np.testing.assert_allclose(self._dense(sparse), self._dense(self.slices))
        np.testing.assert_array_equal(dense, [1.0])

    def test_nothing_and_zero(self) -> None:
        assert clip_by_norm([None, None], 1.0) == [None, None]
        np.testing.assert_array_equal(clip_by_norm([tf.zeros(3)], 1.0)[0], np.zeros(3))


def _variables() -> dict[str, list[tf.Variable]]:
    return {
        "shared": [
            tf.Variable([[1.0, 2.0]], name="a/kernel"),
            tf.Variable([3.0], name="a/bias"),
        ],
        "embedding": [tf.Variable(np.ones([4, 2], np.float32), name="table")],
        "task/click": [tf.Variable([[5.0]], name="b/kernel")],
    }


def _spec(name: str = "SGD", **more: object) -> OptimizerSpec:
    return OptimizerSpec.model_validate({"class": name, "learning_rate": 0.1, **more})


def test_each_group_moves_by_its_own_optimizer() -> None:
    groups = _variables()
    optimizers = OptimizerGroups(
        {
            "default": _spec(),
            "embedding": _spec(learning_rate=0.5),
            "task/*": _spec(clip_norm=1.0),
        },
        groups,
        10,
    )
    ordered = optimizers.variables_in_order
    assert {v.ref() for v in ordered} == {v.ref() for vs in groups.values() for v in vs}
    assert len(ordered) == 4
    before = {v.name: v.numpy() for v in ordered}
    gradients = [
        tf.IndexedSlices(tf.ones([2, 2]), [1, 1], [4, 2])
        if v.name.startswith("table")
        else tf.fill(v.shape, 4.0)
        for v in ordered
    ]
    optimizers.apply(gradients)
    after = {v.name: v.numpy() for v in ordered}
    np.testing.assert_allclose(after["a/kernel:0"], before["a/kernel:0"] - 0.4)
    np.testing.assert_allclose(after["a/bias:0"], before["a/bias:0"] - 0.4)
    np.testing.assert_allclose(after["b/kernel:0"], before["b/kernel:0"] - 0.1)
    np.testing.assert_allclose(
        after["table:0"], np.array([[1, 1], [0, 0], [1, 1], [1, 1]])
    )


def test_a_variable_without_gradient_stays() -> None:
    optimizers = OptimizerGroups({"default": _spec()}, _variables(), 10)
    before = [v.numpy() for v in optimizers.variables_in_order]
    optimizers.apply(
        [None, *[tf.ones(v.shape) for v in optimizers.variables_in_order[1:]]]
    )
    moved = [
        np.abs(v - b).max() > 0 for v, b in zip(optimizers.variables_in_order, before)
    ]
    assert moved == [False, True, True, True]


def test_decay_is_decoupled_and_of_kernels_only() -> None:
    groups = _variables()
    schedule = ScheduleSpec(kind="linear", decay_steps=4)
    spec = _spec(weight_decay=0.5, schedule=schedule)
    optimizers = OptimizerGroups({"default": spec}, groups, 10)
    truth = {v.name: v.numpy() for v in optimizers.variables_in_order}
    for step in range(3):
        rate = 0.1 * (1 - step / 4)
        gradients = [tf.ones(v.shape) for v in optimizers.variables_in_order]
        optimizers.apply(gradients)
        for name in truth:
            if "kernel" in name:
                truth[name] = truth[name] * (1 - rate * 0.5)
            truth[name] = truth[name] - rate
    for variable in optimizers.variables_in_order:
        np.testing.assert_allclose(variable, truth[variable.name], rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["SGD", "Momentum", "Adagrad", "Adam", "LazyAdam", "RMSprop", "Ftrl"]
)
def test_every_class_descends_on_dense_and_sparse(name: str) -> None:
    groups = _variables()
    optimizers = OptimizerGroups(
        {"default": _spec(name, learning_rate=0.05)}, groups, 10
    )
    table = groups["embedding"][0]
    for _ in range(3):
        gradients = [
            tf.IndexedSlices(tf.ones([1, 2]), [2], [4, 2])
            if v is table
            else tf.ones(v.shape)
            for v in optimizers.variables_in_order
        ]
        before = [v.numpy() for v in optimizers.variables_in_order]
        optimizers.apply(gradients)
        for variable, old in zip(optimizers.variables_in_order, before):
            change = variable.numpy() - old
            assert (change[2] < 0).all() if variable is table else (change < 0).all()
    if name != "Adam":
        np.testing.assert_array_equal(table.numpy()[[0, 1, 3]], 1)


def test_momentum_equals_numpy() -> None:
    groups = {"shared": [tf.Variable([1.0])]}
    optimizers = OptimizerGroups(
        {"default": _spec("Momentum", momentum=0.5)}, groups, 10
    )
    value, velocity = 1.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        optimizers.apply([tf.constant([gradient])])
        velocity = 0.5 * velocity - 0.1 * gradient
        value += velocity
    np.testing.assert_allclose(groups["shared"][0], [value], rtol=1e-6)


def test_penalties_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"belong to `class: Ftrl`.*'Adagrad', l1=0.1"):
        _spec("Adagrad", l1=0.1)


@pytest.mark.parametrize("sparse", [False, True])
def test_ftrl_equals_numpy_and_zeroes_weak_weights(sparse: bool) -> None:
    """McMahan et al., KDD 2013, algorithm 1, with beta = 0."""
    table = tf.Variable(np.zeros([3, 2], np.float32))
    rate, l1, l2, start = 0.1, 0.3, 0.05, 0.2
    spec = _spec("Ftrl", learning_rate=rate, l1=l1, l2=l2, initial_accumulator=start)
    optimizers = OptimizerGroups({"default": spec}, {"embedding/wide": [table]}, 10)
    w, z, n = np.zeros(2), np.zeros(2), np.full(2, start)
    for gradient in ([1.0, 0.1], [-0.5, -0.05], [2.0, 0.2]):
        g = np.array(gradient)
        sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / rate
        z, n = z + g - sigma * w, n + g**2
        shrunk = (np.sign(z) * l1 - z) / (np.sqrt(n) / rate + 2 * l2)
        w = np.where(np.abs(z) > l1, shrunk, 0.0)
        slices = tf.IndexedSlices(tf.constant([gradient]), [1], [3, 2])
        optimizers.apply([slices if sparse else tf.convert_to_tensor(slices)])
    np.testing.assert_allclose(table[1], w, rtol=1e-5)
    assert w[0] != 0
    assert w[1] == 0, "l1 must win over the weak gradient"
    np.testing.assert_array_equal(table.numpy()[[0, 2]], 0)


def test_slots_and_step_come_back_from_a_checkpoint(tmp_path: pathlib.Path) -> None:
    schedule = ScheduleSpec(kind="linear", decay_steps=10)
    specs = {
        "default": _spec("Adam", schedule=schedule),
        "embedding": _spec("LazyAdam"),
    }

    def gradients(step: int, optimizers: OptimizerGroups) -> list[tf.Tensor]:
        return [
            tf.sin(tf.fill(v.shape, step + 1.0)) for v in optimizers.variables_in_order
        ]

    def build() -> tuple[OptimizerGroups, tf.train.Checkpoint]:
        groups = _variables()
        optimizers = OptimizerGroups(specs, groups, 10)
        members = {f"v{i}": v for i, v in enumerate(optimizers.variables_in_order)}
        holder = tf.train.Checkpoint(optimizers=optimizers.composite, **members)
        return optimizers, holder

    whole, saved = build()
    for step in range(3):
        whole.apply(gradients(step, whole))
    path = saved.write(str(tmp_path / "state"))
    other, loaded = build()
    loaded.read(path).assert_consumed()
    for step in range(3, 6):
        for optimizers in (whole, other):
            optimizers.apply(gradients(step, optimizers))
    for a, b in zip(whole.variables_in_order, other.variables_in_order):
        np.testing.assert_array_equal(a, b)
    rates = other.learning_rates()
    np.testing.assert_allclose(rates["default"], 0.1 * (1 - 6 / 10), rtol=1e-5)
    np.testing.assert_allclose(rates["embedding"], 0.1)


def _step(optimizers: OptimizerGroups, step: int, **more: object) -> None:
    optimizers.apply(
        [tf.ones(v.shape) for v in optimizers.variables_in_order], step, **more
    )


def _state(optimizers: OptimizerGroups) -> dict[str, np.ndarray]:
    """Values and slots of every variable by name."""
    found = {v.name: v.numpy() for v in optimizers.variables_in_order}
    for optimizer in optimizers.composite.optimizers:
        slots = [w for w in optimizer.weights if "iter" not in w.name]
        found |= {w.name: w.numpy() for w in slots}
    return found


def _moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    assert set(before) == set(after)
    return {n for n in before if not np.array_equal(before[n], after[n])}


@pytest.mark.parametrize("name", ["SGD", "Adam", "Ftrl"])
def test_rate_0_freezes_exactly_the_group(name: str) -> None:
    specs = {
        "default": _spec(name),
        "task/*": _spec(name, learning_rate=0.0, weight_decay=0.1),
    }
    optimizers = OptimizerGroups(specs, _variables(), 10)
    before = _state(optimizers)
    _step(optimizers, 0)
    moved = _moved(before, _state(optimizers))
    assert {n for n in moved if n.startswith("a/")} and "table:0" in moved
    assert not [n for n in moved if "b/" in n]
    assert name == "SGD" or [n for n in before if "b/" in n and n != "b/kernel:0"]


def test_a_step_of_one_group_leaves_the_slots_of_others() -> None:
    specs = {"default": _spec("Adam"), "shared": _spec("Momentum")}
    optimizers = OptimizerGroups(specs, _variables(), 10)
    before = _state(optimizers)
    gradients = [
        tf.ones(v.shape) if v.name.startswith("a/") else None
        for v in optimizers.variables_in_order
    ]
    optimizers.apply(gradients)
    moved = _moved(before, _state(optimizers))
    assert moved and all("a/" in n for n in moved)
    assert any("momentum" in n for n in moved)


def test_sgd_with_equal_rates_is_one_optimizer() -> None:
    one = OptimizerGroups({"default": _spec()}, _variables(), 10)
    several = OptimizerGroups(
        {"default": _spec(), "shared": _spec(), "embedding": _spec()}, _variables(), 10
    )
    for step in range(2):
        _step(one, step)
        _step(several, step)
    assert not _moved(_state(one), _state(several))


def test_a_group_moves_from_its_first_step_to_its_last() -> None:
    schedule = {"kind": "linear", "decay_steps": 2}
    specs = {
        "default": _spec("Adam"),
        "shared": _spec("Adam", start_step=1, stop_step=3, schedule=schedule),
    }
    optimizers = OptimizerGroups(specs, _variables(), 10)
    rates = []
    for step in range(4):
        before = _state(optimizers)
        rates.append(float(optimizers.learning_rates()["shared"]))
        _step(optimizers, step)
        moved = _moved(before, _state(optimizers))
        assert any("b/" in n for n in moved)
        assert bool([n for n in moved if "a/" in n]) is (step in (1, 2))
    # The schedule goes by the updates of the group.
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.0], atol=1e-8)


def test_what_waits_for_a_task_stays_and_counts_in_no_norm() -> None:
    specs = {"default": _spec("Momentum", clip_norm=1.0)}
    groups = {k: v for k, v in _variables().items() if k != "embedding"}
    optimizers = OptimizerGroups(specs, groups, 10, {"task/click": "click"})
    before = _state(optimizers)
    _step(optimizers, 0, active={"click": tf.constant(False)})
    after = _state(optimizers)
    assert not [n for n in _moved(before, after) if "b/" in n]
    # Three ones of `shared` alone make the norm.
    change = before["a/bias:0"] - after["a/bias:0"]
    np.testing.assert_allclose(change, 0.1 / np.sqrt(3), rtol=1e-5)
    _step(optimizers, 1, active={"click": tf.constant(True)})
    assert [n for n in _moved(after, _state(optimizers)) if "b/" in n]


def test_steps_that_end_before_they_begin_are_refused() -> None:
    with pytest.raises(ValueError, match="`stop_step` must come after `start_step`"):
        _spec(start_step=5, stop_step=5)


def test_followed_variables_move_by_rate_times_what_is_given() -> None:
    groups = _variables()
    schedule = ScheduleSpec(kind="linear", decay_steps=2)
    optimizers = OptimizerGroups(
        {"default": _spec("Adam", schedule=schedule), "embedding": _spec("LazyAdam")},
        groups,
        10,
    )
    kernel, table = groups["shared"][0], groups["embedding"][0]
    optimizers.follow([kernel, table])
    assert len(optimizers.composite.optimizers) == 3
    rows = tf.IndexedSlices(tf.constant([[2.0, 0.0]]), [1], [4, 2])
    by_name = {"a/kernel:0": tf.constant([[4.0, -2.0]]), "table:0": rows}
    ones = tf.ones_like
    gradients = [by_name.get(v.name, ones(v)) for v in optimizers.variables_in_order]
    optimizers.apply(gradients)
    np.testing.assert_allclose(kernel, [[0.6, 2.2]], rtol=1e-6)
    np.testing.assert_allclose(table[1], [0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(table[0], [1.0, 1.0])
    # Those that nobody follows have Adam still: the first step is the rate.
    np.testing.assert_allclose(groups["shared"][1], [2.9], rtol=1e-5)
    optimizers.apply(gradients)  # at half the rate
    np.testing.assert_allclose(kernel, [[0.4, 2.3]], rtol=1e-6)
    assert float(optimizers.learning_rates()["default"]) == 0
