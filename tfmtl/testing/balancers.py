"""What every balancer must keep, as tests to inherit.

    class TestMine(BalancerConformance):
        balancer = MyBalancer
        config = {"temperature": 2.0}

Run by pytest, which finds the inherited methods. Decisions are tested on random losses
and gradients; steps on one small model and data set, which all balancers share.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pydantic

from tfmtl._keras import tf
from tfmtl.balance import (
    Balancer,
    CutCombination,
    Equal,
    GradientCombination,
    GradientWeighting,
    LossWeighting,
    TaskInfo,
    TaskStats,
)
from tfmtl.testing.bench import NAMES, Bench, bench

ROWS, WIDTH = 4, 5
"""Shape of the shared activation, and of the shared variable, of a random problem;
neither is the number of tasks, so that the tasks' axis of a state can be told."""


class Problem(NamedTuple):
    """One step's view of T tasks.

    Attributes:
        losses: [T].
        gradients: [T, ROWS, WIDTH], of the losses by what is shared.
        present: [T] bool.
    """

    losses: np.ndarray
    gradients: np.ndarray
    present: np.ndarray

    def of(self, tasks: Any) -> Problem:
        """The same with tasks chosen by number."""
        return Problem(*(part[tasks] for part in self))


class Decision(NamedTuple):
    """What a balancer made of a problem.

    Attributes:
        weights: [T].
        direction: [ROWS, WIDTH], what the shared variable gets.
    """

    weights: np.ndarray
    direction: np.ndarray


def problem(seed: int, tasks: int = 3) -> Problem:
    """Random losses about 1, and gradients that conflict in part."""
    draw = np.random.default_rng(seed)
    gradients = draw.normal(size=(tasks, ROWS, WIDTH)).astype("f4")
    losses = draw.uniform(0.3, 1.5, tasks).astype("f4")
    return Problem(losses, gradients, np.ones(tasks, bool))


def _hidden(given: Problem, shown: np.ndarray) -> Problem:
    """The same without the labels of tasks that are not shown, [T] 0 or 1."""
    gradients = given.gradients * shown[:, None, None]
    return Problem(given.losses * shown, gradients, shown > 0)


class Decider:
    """Asks a balancer step by step, without a model.

    Args:
        made: The balancer.
    """

    def __init__(self, made: Balancer) -> None:
        self.made = made
        self.step = 0
        if isinstance(made, GradientWeighting):
            made.prepare(1)
        if isinstance(made, GradientCombination):
            variable = tf.Variable(tf.zeros([ROWS, WIDTH]), name="shared/kernel")
            made.prepare([variable], [False])

    def __call__(self, given: Problem) -> Decision:
        """The next step's decision."""
        flat = given.gradients.reshape(len(given.losses), -1).astype("f8")
        stats = TaskStats(
            tf.constant(given.losses, tf.float32),
            tf.constant(given.present),
            tf.constant(self.step, tf.int64),
            tf.constant((flat @ flat.T)[None]),
        )
        weights, direction = self._decide(stats, given)
        if self.made.needs_new_losses:
            after = tf.constant(0.9 * given.losses, tf.float32)
            self.made.after_update(stats, after)
        self.step += 1
        return Decision(np.asarray(weights), np.asarray(direction))

    def _decide(self, stats: TaskStats, given: Problem) -> tuple[Any, Any]:
        gradients = tf.constant(given.gradients, tf.float32)
        if isinstance(self.made, GradientCombination):
            (direction,), weights = self.made.combine(stats, [tf.unstack(gradients)])
        elif isinstance(self.made, CutCombination):
            values = tf.constant(problem(99).gradients[0])
            found = self.made.combine(stats, [values], [gradients])
            (direction,), weights = found
        elif isinstance(self.made, GradientWeighting):
            weights = self.made.weigh(stats)[0]
            direction = tf.tensordot(weights, gradients, 1)
        else:
            assert isinstance(self.made, LossWeighting)
            weights = self.made.weigh(stats)
            direction = tf.tensordot(weights, gradients, 1)
        return weights, direction

    def assert_finite(self) -> None:
        """Every variable of the balancer's is a number."""
        for variable in self.made.variables:
            if variable.dtype.is_floating:
                assert np.isfinite(variable.numpy()).all(), variable.name


class BalancerConformance:
    """The tests. A subclass says which balancer.

    Attributes:
        balancer: The class under test.
        config: Settings under which it acts within three steps. Tasks are click, like
            and buy.
        alone: Settings for the one task click, where `config` names others.
        drawn: Why it cannot be told what the weights of renamed tasks are: they are
            drawn at random, or the order of tasks matters.
        same_as_equal: Why shared variables may move as by Equal.
        moves_absent: Why the state of a task moves in steps without its labels.
    """

    balancer: ClassVar[type[Balancer]]
    config: ClassVar[dict[str, Any]] = {}
    alone: ClassVar[dict[str, Any] | None] = None
    drawn: ClassVar[str] = ""
    same_as_equal: ClassVar[str] = ""
    moves_absent: ClassVar[str] = ""

    # === Parts ===

    @classmethod
    def make(
        cls, names: tuple[str, ...] = NAMES, config: dict[str, Any] | None = None
    ) -> Any:
        """A new balancer."""
        config = cls.config if config is None else config
        settings = cls.balancer.Config.model_validate(config)
        return cls.balancer(TaskInfo(names, seed=3), settings)

    @classmethod
    def decider(cls, names: tuple[str, ...] = NAMES) -> Decider:
        """A new balancer, to be asked."""
        return Decider(cls.make(names))

    @classmethod
    def ran(cls) -> Bench:
        """Some steps of the small model, once for all tests."""
        if "_ran" not in cls.__dict__:
            cls._ran = bench(cls.make())  # type: ignore[attr-defined]
        return cls._ran  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def assert_along(cls, direction: np.ndarray, gradient: np.ndarray) -> None:
        """Direction is a positive multiple of a gradient.

        A balancer that returns steps rescales each element, and keeps its sign.
        """
        if getattr(cls.balancer, "replaces_optimizer", False):
            np.testing.assert_array_equal(np.sign(direction), np.sign(gradient))
            return
        factor = np.sum(direction * gradient) / np.sum(gradient**2)
        assert factor > 0, f"the factor of the gradient is {factor}"
        np.testing.assert_allclose(
            direction, factor * gradient, rtol=1e-3, atol=1e-4 * factor
        )

    # === Construction ===

    def test_config_round_trip(self) -> None:
        config = self.balancer.Config.model_validate(self.config)
        text = json.dumps(config.model_dump(mode="json"))
        assert self.balancer.Config.model_validate_json(text) == config
        try:
            self.balancer.Config.model_validate({**self.config, "no_such_setting": 1})
        except pydantic.ValidationError:
            return
        raise AssertionError("the Config accepts a setting that does not exist")

    def test_says_what_it_is(self) -> None:
        assert self.balancer.citation
        assert self.balancer.protocol
        assert self.balancer.backward_passes
        assert "__doc__" in self.balancer.__dict__
        assert (self.balancer.__doc__ or "").strip()

    # === Decisions ===

    def test_one_task_gets_its_plain_gradient(self) -> None:
        config = self.config if self.alone is None else self.alone
        decide = Decider(self.make(NAMES[:1], config))
        given = problem(0, tasks=1)
        for _ in range(3):
            self.assert_along(decide(given).direction, given.gradients[0])

    def test_equal_tasks_get_a_positive_multiple_of_their_gradient(self) -> None:
        decide = self.decider()
        given = problem(1).of([0, 0, 0])
        for _ in range(3):
            self.assert_along(decide(given).direction, given.gradients[0])

    def test_renaming_tasks_permutes_the_weights(self) -> None:
        if self.drawn:
            return
        order = [2, 0, 1]
        plain = self.decider()
        renamed = self.decider(tuple(NAMES[t] for t in order))
        for seed in range(4):
            wanted, found = plain(problem(seed)), renamed(problem(seed).of(order))
            np.testing.assert_allclose(
                found.weights, wanted.weights[order], rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(
                found.direction, wanted.direction, rtol=1e-4, atol=1e-5
            )

    def test_a_task_without_labels_leaves_no_trace_that_is_no_number(self) -> None:
        decide = self.decider()
        for seed, there in enumerate(([1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1])):
            found = decide(_hidden(problem(seed), np.array(there, "f4")))
            assert np.isfinite(found.weights).all()
            assert np.isfinite(found.direction).all()
            decide.assert_finite()

    def test_the_state_of_a_task_without_labels_rests(self) -> None:
        if self.moves_absent:
            return
        decide, absent = self.decider(), 1
        for seed, there in enumerate(([1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1])):
            before = self._state_of(absent, decide.made)
            decide(_hidden(problem(seed), np.array(there, "f4")))
            if not there[absent]:
                for old, new in zip(before, self._state_of(absent, decide.made)):
                    np.testing.assert_array_equal(old, new)

    @staticmethod
    def _state_of(task: int, made: Balancer) -> list[np.ndarray]:
        """What a balancer of three tasks remembers of one, by axes of their number."""
        return [
            np.take(variable.numpy(), task, axis)
            for variable in made.variables
            for axis, size in enumerate(variable.shape)
            if size == len(NAMES)
        ]

    def test_odd_gradients_get_finite_weights(self) -> None:
        given = problem(5)
        for name, factors in {
            "zero": [0, 0, 0],
            "one zero": [1, 0, 1],
            "large": [1e8, 1e8, 1e8],
            "one large": [1, 1e8, 1],
            "small": [1e-8, 1e-8, 1e-8],
        }.items():
            self._assert_finite(name, given, np.array(factors, "f4"))
        first = given.gradients[0]
        opposite = given._replace(gradients=np.stack([first, -first, 2 * first]))
        self._assert_finite("opposite", opposite, np.ones(3, "f4"))

    def _assert_finite(self, name: str, given: Problem, factors: np.ndarray) -> None:
        decide = self.decider()
        odd = given._replace(
            losses=given.losses * factors,
            gradients=given.gradients * factors[:, None, None],
        )
        for _ in range(3):
            found = decide(odd)
            assert np.isfinite(found.weights).all(), f"{name}: {found.weights}"
            assert np.isfinite(found.direction).all(), f"{name}: {found.direction}"
            decide.assert_finite()

    # === Steps ===

    def test_steps_share_one_trace(self) -> None:
        assert self.ran().traces == 1
        assert self.ran().finite

    def test_shared_variables_move_differently_from_equal(self) -> None:
        if self.same_as_equal or issubclass(self.balancer, Equal):
            return
        equal = bench(None)
        moved = [np.abs(a - b).max() for a, b in zip(self.ran().shared, equal.shared)]
        assert max(moved) > 1e-6, "the balancer changes nothing"

    def test_a_task_without_labels_moves_nothing_of_its_own(self) -> None:
        for before, after in self.ran().hidden:
            np.testing.assert_array_equal(before, after)

    def test_a_checkpoint_restores_the_next_step(self) -> None:
        for wanted, found in zip(self.ran().next, self.ran().again):
            np.testing.assert_array_equal(wanted, found)

    def test_bfloat16(self) -> None:
        """With weights that serve two steps, where there may be such."""
        config = dict(self.config)
        settings = self.balancer.Config.model_validate(config)
        if issubclass(self.balancer, GradientWeighting):
            config["every"] = 2
            if getattr(settings, "granularity", "") == "whole":
                # Gradients at activations are the ones that come in 16 bits.
                config["gradients"] = "representation"
        assert bench(self.make(config=config), precision="mixed_bfloat16").finite
