"""The protocols of balancers: statistics of the tasks in, weights or gradients out.

A method is one of four kinds, by what it must see:

- `LossWeighting`: the losses. One weight a task; everything is trained on the weighted
  sum of the losses, by one backward pass.
- `GradientWeighting`: the inner products of the tasks' gradients on shared variables,
  the Gram matrix. One weight a task again, but for the shared variables alone.
- `GradientCombination`: the gradients themselves.
- `CutCombination`: the gradients at the activations through which the shared variables
  reach the tasks.

The maths of a method is a pure function in its file; the class holds state and
settings. State is in variables, so that a checkpoint has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tfmtl._keras import tf
from tfmtl.balance.config import BalancerConfig, CombinationConfig, GradientConfig
from tfmtl.balance.state import state_variable
from tfmtl.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """What a balancer knows of the tasks before training.

    Attributes:
        names: Of the T tasks.
        kinds: Type of each, such as `binary`; all binary where empty.
        classes: Number of classes of each; None, or empty, where it has none.
        steps_per_epoch: For methods that look back over epochs.
        seed: Of methods that draw at random.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    steps_per_epoch: int = 1
    seed: int = 0
    classes: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.kinds:
            object.__setattr__(self, "kinds", ("binary",) * len(self.names))
        if not self.classes:
            object.__setattr__(self, "classes", (None,) * len(self.names))
        for what in ("kinds", "classes"):
            found = getattr(self, what)
            if len(found) != len(self.names):
                raise ValueError(
                    f"`{what}` must have one entry a task. Received: {found} for "
                    f"{self.names}"
                )


class TaskStats(NamedTuple):
    """What a balancer may look at in one step.

    Attributes:
        losses: [T] float32, unweighted.
        present: [T] bool; whether the task has a label in the batch.
        step: Scalar int64.
        gramian: [G, T, T] float64, inner products of the tasks' gradients in each of G
            groups of variables; None where the method asks for none.
    """

    losses: Any
    present: Any
    step: Any
    gramian: Any = None


class Balancer(tf.Module):
    """What all balancers share.

    Args:
        tasks: The tasks.
        config: The balancer's settings, a `Config`.
    """

    Config: ClassVar[type[BalancerConfig]] = BalancerConfig
    citation: ClassVar[str] = ""
    protocol: ClassVar[str] = ""
    backward_passes: ClassVar[str] = "1"
    """Through the shared part, each step; T is the number of tasks."""
    needs_new_losses: ClassVar[bool] = False
    """Whether `after_update` is to be told the batch's losses after the update: one
    more forward pass."""

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(name=type(self).__name__)
        self.tasks = tasks
        self.config = config

    @property
    def count(self) -> int:
        """T."""
        return len(self.tasks.names)

    def check_plan(self, planned_steps: int) -> None:
        """Refuses a run in which the balancer would do nothing.

        Args:
            planned_steps: Of the run.

        Raises:
            ConfigError: A window or warm-up is as long as the run.
        """

    def by_task(
        self, values: Mapping[str, float], default: float, setting: str
    ) -> list[float]:
        """A setting of each task, in the order of the tasks.

        Args:
            values: Task to value.
            default: Of tasks not named.
            setting: What to call it in an error.

        Raises:
            ConfigError: It names a task that there is not.
        """
        unknown = sorted(set(values) - set(self.tasks.names))
        if unknown:
            raise ConfigError(
                f"`balancer.config.{setting}` names {unknown}; tasks: "
                f"{list(self.tasks.names)}",
                [("balancer", "config", setting)],
            )
        return [values.get(t, default) for t in self.tasks.names]

    def number_of(self, task: str, setting: str) -> int:
        """The number of a task that a setting names.

        Raises:
            ConfigError: There is no such task.
        """
        self.by_task({task: 0.0}, 0.0, setting)
        return self.tasks.names.index(task)

    def state(self, name: str, values: Any) -> Any:
        """A variable of the balancer's, which checkpoints hold.

        Args:
            name: Of the variable.
            values: To start from; the type is theirs.
        """
        return state_variable(name, values)

    def own_weights(self, stats: TaskStats, weights: Any) -> Any:
        """Weights [T] of the losses that all else descends: what belongs to one task,
        scenario or cell, and shared variables that the balancer leaves alone.

        Args:
            stats: Of the step; tasks of `reach: own` are present here.
            weights: [T], those found for the shared variables; the mean over groups,
                and 1 of tasks of `reach: own`.

        Returns:
            [T] float32; None where all are 1.
        """
        return None

    def after_update(self, stats: TaskStats, losses: Any) -> None:
        """Called after the variables moved, where `needs_new_losses`.

        Args:
            stats: Of the step, before the update.
            losses: [T], of the same batch after it.
        """


class LossWeighting(Balancer):
    """A balancer whose weights come from the losses.

    The weighted sum of losses is what every variable is trained on; no gradient flows
    through the weights.
    """

    protocol = "loss weighting"
    needs_gramian: ClassVar[bool] = False
    """Whether `weigh` reads `stats.gramian`: [1, T, T], of the gradients by the last
    shared layer."""

    def weigh(self, stats: TaskStats) -> Any:
        """Weights [T] float32 of the losses in this step."""
        raise NotImplementedError(f"{type(self).__name__} must define `weigh`")


class GradientWeighting(Balancer):
    """A balancer whose weights come from the tasks' gradients on shared variables.

    Shared variables get sum_t w_t g_t. What belongs to one task, scenario or cell gets
    the plain gradient of its own losses, unless `own_weights` says otherwise.

    Tasks without a label in the batch, and tasks whose gradient vanishes, are left out
    of the problem and weigh 0 in this step: many solvers divide by norms.
    """

    Config: ClassVar[type[BalancerConfig]] = GradientConfig
    protocol = "gradient weighting"
    backward_passes = "T"
    config: Any

    def prepare(self, groups: int) -> None:
        """Called once, before the first step, so that state of each group can be made.

        Args:
            groups: G, the number of groups of variables.
        """

    def weigh(self, stats: TaskStats) -> Any:
        """Weights [G, T] float32 of the tasks' gradients in each group of variables."""
        groups = stats.gramian.shape[0]
        rows = [self._weigh_group(g, stats.gramian[g], stats) for g in range(groups)]
        return tf.cast(tf.stack(rows), tf.float32)

    def _weigh_group(self, group: int, gramian: Any, stats: TaskStats) -> Any:
        usable = stats.present & has_gradient(gramian)
        chosen = tf.cast(tf.where(usable)[:, 0], tf.int32)  # [n]
        zeros = tf.zeros([self.count], tf.float64)

        def solved() -> Any:
            part = tf.gather(tf.gather(gramian, chosen), chosen, axis=1)
            weights = self.solve(part, chosen, group, stats)
            return tf.tensor_scatter_nd_update(zeros, chosen[:, None], weights)

        return tf.cond(tf.size(chosen) > 0, solved, lambda: zeros)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        """Weights of the tasks that take part.

        Args:
            gramian: [n, n] float64, inner products of their gradients; n >= 1, and no
                gradient vanishes.
            chosen: [n] int32, their numbers among the T tasks, rising.
            group: Number of the group of variables.
            stats: Of the step, over all T tasks.

        Returns:
            [n] float64.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `solve`")


VANISHED = 1e-12
"""A gradient whose norm is smaller counts as none."""


def has_gradient(gramian: Any) -> Any:
    """[T] bool: whose gradient does not count as none, by inner products [T, T]."""
    squared = tf.maximum(tf.linalg.diag_part(gramian), 0.0)
    return tf.sqrt(squared) >= VANISHED


class GradientCombination(Balancer):
    """A balancer that needs the tasks' gradients themselves."""

    Config: ClassVar[type[BalancerConfig]] = CombinationConfig
    protocol = "gradient combination"
    backward_passes = "T"
    replaces_optimizer: ClassVar[bool] = False
    """Whether `combine` returns steps instead of gradients: the variables then move by
    their learning rate times these, and their optimizer is left out. The gradients of
    penalties are part of what it is given."""
    config: Any

    def prepare(self, variables: Sequence[Any], tables: Sequence[bool]) -> None:
        """Called once, before the first step, so that state of the variables' shapes
        can be made.

        Args:
            variables: The shared variables, in the order of `combine`'s gradients.
            tables: Which of them are embedding tables.
        """

    def combine(self, stats: TaskStats, gradients: Sequence[Sequence[Any]]) -> Any:
        """The gradient of each shared variable.

        Args:
            stats: Of the step; its gramian is [1, T, T], over all shared variables.
            gradients: Variable by task: a tensor, `IndexedSlices`, or None where the
                task does not reach the variable.

        Returns:
            One gradient a variable, and the weights [T] to log.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `combine`")


class CutCombination(Balancer):
    """A balancer that combines the tasks' gradients at activations."""

    protocol = "cut combination"
    backward_passes = "T heads + 1"

    def combine(
        self, stats: TaskStats, values: Sequence[Any], gradients: Sequence[Any]
    ) -> Any:
        """The gradient by each activation, to go on backwards from.

        Args:
            stats: Of the step.
            values: Activations through which shared variables reach the tasks.
            gradients: Of the tasks' losses by each of them, [T, ...] float32.

        Returns:
            One gradient an activation, in its shape, and the weights [T] to log.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `combine`")


__all__ = [
    "VANISHED",
    "Balancer",
    "BalancerConfig",
    "CombinationConfig",
    "CutCombination",
    "GradientCombination",
    "GradientConfig",
    "GradientWeighting",
    "LossWeighting",
    "TaskInfo",
    "TaskStats",
    "has_gradient",
]
