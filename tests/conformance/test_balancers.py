"""Every balancer of the catalogue, and one of a user's own, keeps the contract."""

from __future__ import annotations

import inspect
import pathlib
import textwrap
from typing import Any

import numpy as np
import pytest

from tests.conformance.balancer_catalogue import ENTRIES
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.balance import BALANCERS, Equal, Fixed, GradientConfig, GradientWeighting
from tfmtl.balance.fixed import FixedConfig
from tfmtl.schema.experiment import ComponentSpec
from tfmtl.testing.balancers import BalancerConformance


def test_every_balancer_has_an_entry() -> None:
    assert set(ENTRIES) == set(BALANCERS)


for _name, _entry in ENTRIES.items():
    globals()[f"Test{_name.replace('-', '')}"] = type(
        f"Test{_name}", (BalancerConformance,), {"balancer": BALANCERS[_name], **_entry}
    )


def suite(balancer: Any, **entry: Any) -> BalancerConformance:
    made: BalancerConformance = type(
        "Suite", (BalancerConformance,), {"balancer": balancer, **entry}
    )()
    return made


OWN = '''
from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance import BalancerConfig, LossWeighting


class Settings(BalancerConfig):
    """Settings of Inverse."""

    power: float = Field(default=1.0, gt=0)


class Inverse(LossWeighting):
    """Weighs each loss by a power of its inverse moving average."""

    Config = Settings
    citation = "our own"

    def __init__(self, tasks, config):
        super().__init__(tasks, config)
        self.means = self.state("means", tf.ones([self.count]))

    def weigh(self, stats):
        moved = 0.9 * self.means + 0.1 * stats.losses
        self.means.assign(tf.where(stats.present, moved, self.means))
        return tf.maximum(self.means, 1e-6) ** -self.config.power
'''


def test_a_balancer_of_ones_own_by_its_path(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_balancers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    named = ComponentSpec(class_name="shop_balancers.mine:Inverse")
    found = build.resolve(named, BALANCERS, "balancer")
    tested = suite(found, config={"power": 2.0})
    names = [n for n, _ in inspect.getmembers(tested) if n.startswith("test_")]
    assert len(names) >= 11
    for name in names:
        getattr(tested, name)()


class Negative(Equal):
    """Climbs."""

    def weigh(self, stats: Any) -> Any:
        return -super().weigh(stats)


class Favourite(Equal):
    """Likes the first task, whichever it is."""

    def weigh(self, stats: Any) -> Any:
        return tf.one_hot(0, self.count) + 1.0


class Divides(Equal):
    """Divides by a loss that may be 0."""

    def weigh(self, stats: Any) -> Any:
        return 1.0 / stats.losses


class Explodes(Equal):
    """Takes the exponential of a loss."""

    def weigh(self, stats: Any) -> Any:
        return tf.exp(stats.losses)


class Forgets(Equal):
    """Keeps its state where no checkpoint looks."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        count = tf.Variable(1.0)
        self._next = lambda: count.assign_add(1.0)

    def weigh(self, stats: Any) -> Any:
        return super().weigh(stats) * self._next()


class Silent(Fixed):
    """Reads its settings and ignores them."""

    def weigh(self, stats: Any) -> Any:
        return tf.ones_like(stats.losses)


class Leaks(GradientWeighting):
    """Weighs an absent task's gradient as if it were there."""

    Config = GradientConfig
    citation = "none"

    def weigh(self, stats: Any) -> Any:
        scale = 1.0 / tf.sqrt(tf.linalg.diag_part(stats.gramian))
        return tf.cast(scale, tf.float32)


class Averages(Equal):
    """Takes the loss of 0 of an absent task into its average."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.means = self.state("means", tf.ones([self.count]))

    def weigh(self, stats: Any) -> Any:
        self.means.assign(0.9 * self.means + 0.1 * stats.losses)
        return super().weigh(stats)


class OfTwoSteps(GradientWeighting):
    """Its weights grow until they overflow where they are not asked for each step."""

    citation = "none"

    def weigh(self, stats: Any) -> Any:
        if self.config.every == 1:
            return tf.ones([1, self.count])
        return tf.fill([1, self.count], np.float32(1e38))


class Unsaid(Equal):
    citation = ""


class Lax(Fixed):
    """Takes any setting."""

    class Config(FixedConfig):
        model_config = {"extra": "ignore"}


WEIGHTS = {"config": {"weights": {"like": 3.0}}, "alone": {"weights": {}}}


@pytest.mark.parametrize(
    ("broken", "entry", "test"),
    [
        (Negative, {}, "test_one_task_gets_its_plain_gradient"),
        (Negative, {}, "test_equal_tasks_get_a_positive_multiple_of_their_gradient"),
        (Favourite, {}, "test_renaming_tasks_permutes_the_weights"),
        (Divides, {}, "test_a_task_without_labels_leaves_no_trace_that_is_no_number"),
        (Leaks, {}, "test_a_task_without_labels_leaves_no_trace_that_is_no_number"),
        (Averages, {}, "test_the_state_of_a_task_without_labels_rests"),
        (OfTwoSteps, {}, "test_bfloat16"),
        (Explodes, {}, "test_odd_gradients_get_finite_weights"),
        (Forgets, {}, "test_a_checkpoint_restores_the_next_step"),
        (Silent, WEIGHTS, "test_shared_variables_move_differently_from_equal"),
        (Unsaid, {}, "test_says_what_it_is"),
        (Lax, WEIGHTS, "test_config_round_trip"),
    ],
)
def test_broken_balancers_fail(broken: Any, entry: dict[str, Any], test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(broken, **entry), test)()
