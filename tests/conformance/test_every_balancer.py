"""Every balancer on four models: what is shared moves, what is a task's own is left.

For each balancer it is said here when its shared variables must move as by Equal, and
what its tasks' own variables get, each with the reason.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conformance.balancer_steps import STEPS, TASKS, Step, bed
from tfmtl._keras import tf
from tfmtl.balance import BALANCERS, Balancer, CAGrad, Equal, GradientWeighting

MODELS = ("SharedBottom", "MMoE", "STAR", "ExpertFusion")

SAME = 1e-5
"""Two courses of the shared variables are one where they part by less than this share
of their length: rounding of float32."""
DIFFERENT = 1e-3
"""They differ where no multiple of the one is nearer to the other than this share."""
TOLERANCE: dict[str, float] = {"rtol": 2e-4, "atol": 1e-5}
"""Of a step of a task's own variables over the rate, by which the rounding of float32
variables of size 1 counts as 1e-6."""


def _logged(balancer: Any, sums: Any) -> Any:
    """A weighted sum of losses is what is minimised: a tower gets w_t times its own."""
    return sums.weights


def _of_log_loss(balancer: Any, sums: Any) -> Any:
    """The losses are ln(L_t + 1e-8): every variable gets 1 / L_t times its own."""
    return 1.0 / (sums.losses.numpy() + 1e-8)


def _of_scaled_loss(balancer: Any, sums: Any) -> Any:
    """The losses are e^{s_t} L_t: towers get their gradients."""
    return np.exp(balancer.scales)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the maths of a balancer says.

    Attributes:
        config: Its settings, under which it acts within the steps.
        own: What a task's own loss is weighed by on its own variables; None where the
            method leaves them alone.
        same: Steps that must be Equal's.
        why: Why they must.
    """

    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    own: Callable[[Any, Any], Any] | None = None
    same: int = 0
    why: str = ""


EXPECTED: dict[str, Expected] = {
    # Losses with one weight each: towers are weighed, too.
    "Equal": Expected(own=_logged, same=STEPS, why="it is Equal"),
    "Fixed": Expected({"weights": {"like": 3.0}}, _logged),
    "Uncertainty": Expected(
        {"learning_rate": 0.5}, _logged, 1, "e^-s is 1 where s starts"
    ),
    "DWA": Expected(
        {"window": 1, "temperature": 0.1},
        _logged,
        2,
        "a ratio needs the means of two windows",
    ),
    "GradNorm": Expected(
        {"initial_steps": 1, "learning_rate": 0.3},
        _logged,
        1,
        "a step's weights are those from before it, and start at 1",
    ),
    "IMTL-L": Expected({"learning_rate": 0.5}, _logged, 1, "e^s is 1 where s starts"),
    "FAMO": Expected(own=_logged),
    "STCH": Expected({"warmup_steps": 1}, _logged),
    "GeometricLoss": Expected(own=_logged),
    "LogLoss": Expected(own=_logged),
    "RandomWeights": Expected(own=_logged),
    # Gradients of shared variables are weighed or combined: towers are left alone ...
    "AdaTask": Expected(),
    "Aligned-MTL": Expected(),
    "CAGrad": Expected(),
    "DCB": Expected(),
    "GradDrop": Expected(),
    "GradVac": Expected(),
    "IMTL-G": Expected(),
    "MGDA": Expected(),
    "MGDA-UB": Expected(),
    "MetaBalance": Expected({"target": "click"}),
    "Nash-MTL": Expected(),
    "PCGrad": Expected(),
    "PE-LTR": Expected(
        {"match_sum": True}, None, 1, "weights serve the next step, and start equal"
    ),
    # ... but where the losses themselves are others.
    "DB-MTL": Expected(own=_of_log_loss),
    "IMTL": Expected({"learning_rate": 0.5}, _of_scaled_loss),
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    """Graphs that run four times are not worth the time to optimise them."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    was = before.get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": was})


def check_shared(found: list[Step], equal: list[Step], start: Any, same: int) -> None:
    """Shared variables move as by Equal for so many steps, and otherwise after them.

    Otherwise means in another direction: a multiple is but another learning rate.
    """
    for number, (step, by_equal) in enumerate(zip(found, equal), 1):
        moved, plain = step.shared - start, by_equal.shared - start
        if number <= same:
            apart = np.linalg.norm(moved - plain) / np.linalg.norm(plain)
            assert apart < SAME, f"step {number} is not Equal's: {apart:.1e} apart"
        else:
            along = plain * (moved @ plain) / (plain @ plain)
            apart = np.linalg.norm(moved - along) / np.linalg.norm(moved)
            assert apart > DIFFERENT, f"step {number} is Equal's: {apart:.1e} apart"


def check_own(found: list[Step], owners: dict[str, str | None]) -> None:
    """Variables that are not shared get each task's own gradient, times `Step.own`:
    those of one task, as if it were alone."""
    for step in found:
        for name, moved in step.moved.items():
            for task, gradients in zip(TASKS, step.alone):
                if owners[name] not in (None, task):
                    assert not gradients[name].any(), f"{task} reaches {name}"
            parts = [w * g[name] for w, g in zip(step.own, step.alone)]
            wanted = sum(parts) + step.penalty[name]
            np.testing.assert_allclose(moved, wanted, **TOLERANCE, err_msg=name)


def check(name: str, kind: type[Balancer], expected: Expected) -> None:
    """A balancer on a model does what is expected of it."""
    on = bed(name)
    found = on.run(kind, expected.config, expected.own)
    check_shared(found, by_equal(name), on.start, expected.same)
    check_own(found, on.owner)
    if expected.own and expected.same < STEPS:
        assert np.abs(found[-1].own - 1.0).max() > DIFFERENT, "own parts are left alone"


@functools.cache
def by_equal(name: str) -> list[Step]:
    """Equal's steps on a model."""
    return bed(name).run(Equal, {})


def test_every_balancer_has_an_expectation() -> None:
    assert set(EXPECTED) == set(BALANCERS)
    for name, expected in EXPECTED.items():
        assert bool(expected.same) == bool(expected.why), name


@pytest.mark.parametrize("model", MODELS)
def test_the_tasks_conflict_and_each_has_parts_of_its_own(model: str) -> None:
    assert bed(model).conflict() < -0.25
    assert set(TASKS) <= set(bed(model).owner.values())
    for step in by_equal(model):
        for task, gradients in zip(TASKS, step.alone):
            own = [g for n, g in gradients.items() if bed(model).owner[n] == task]
            assert np.abs(np.concatenate([g.ravel() for g in own])).max() > 0.01


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", EXPECTED)
def test_shared_variables_move_otherwise_and_own_ones_as_alone(
    model: str, name: str
) -> None:
    check(model, BALANCERS[name], EXPECTED[name])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Fixed", {"weights": {}}),
        ("DWA", {"window": 1, "temperature": 1e9}),
        ("GradNorm", {"initial_steps": STEPS + 1}),
        ("MetaBalance", {"target": "click", "relax": 0.0}),
        ("DCB", {"r_max": 0.0, "conflict": False}),
        ("CAGrad", {"c": 0.0, "match_sum": True}),
        ("GradDrop", {"leak": 1.0}),
        ("PE-LTR", {"bounds": {"click": 0.5, "like": 0.5}, "match_sum": True}),
    ],
)
def test_limits_of_a_balancer_in_which_it_must_be_equal(
    name: str, config: dict[str, Any]
) -> None:
    check("SharedBottom", BALANCERS[name], Expected(config, None, STEPS))


class NoOp(GradientWeighting):
    """Looks at gradients, and leaves them as they are."""

    def solve(self, gramian: Any, chosen: Any, group: int, stats: Any) -> Any:
        return tf.ones_like(chosen, tf.float64)


class Twice(NoOp):
    """Another learning rate."""

    def solve(self, gramian: Any, chosen: Any, group: int, stats: Any) -> Any:
        return 2.0 * super().solve(gramian, chosen, group, stats)


class ScalesTowers(CAGrad):
    """Weighs what it should leave alone."""

    def own_weights(self, stats: Any, weights: Any) -> Any:
        return tf.constant([1.0, 1.01])


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        (NoOp, Expected(), "is Equal's"),
        (Twice, Expected(), "is Equal's"),
        (CAGrad, Expected(same=1), "is not Equal's"),
        (ScalesTowers, Expected(), "Not equal to tolerance"),
        (BALANCERS["LogLoss"], Expected(), "Not equal to tolerance"),
        (CAGrad, Expected(own=_logged), "Not equal to tolerance"),
        (CAGrad, Expected(own=lambda *_: np.ones(2)), "left alone"),
    ],
    ids=[
        "changes nothing",
        "another rate",
        "acts too soon",
        "scales a tower",
        "scales all towers",
        "leaves towers",
        "leaves what it says it does not",
    ],
)
def test_what_is_not_so_is_found(kind: Any, expected: Expected, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check("SharedBottom", kind, expected)
