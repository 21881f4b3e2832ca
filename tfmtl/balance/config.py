"""Settings that balancers share."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tfmtl._keras import tf
from tfmtl.schema.base import Spec


class BalancerConfig(Spec):
    """Settings of a balancer."""


class CombinationConfig(BalancerConfig):
    """Settings of balancers that combine the tasks' gradients themselves."""

    embedding: Literal["balanced", "sum"] = "balanced"
    """What embedding tables get: what the balancer makes of the tasks' gradients, as
    the other shared variables do, or their plain sum."""


class GradientConfig(BalancerConfig):
    """Settings of balancers that look at the tasks' gradients."""

    gradients: Literal["full", "representation"] = "full"
    """`full`: of the loss by each shared variable, one backward pass a task.
    `representation`: of the loss by the activations through which shared variables
    reach the tasks, one pass through each task's own part and one through the rest."""
    probe: Literal["shared", "shared+embedding", "last_shared"] = "shared"
    """The variables whose gradients are compared, with `gradients: full` and
    `granularity: whole`; the weights found apply to all shared ones. In a step where a
    task with labels reaches none of them, as one outside a funnel may not reach the
    dense ones, all that get the weights are compared."""
    last_shared: str | None = None
    """Part of the names of the variables that `probe: last_shared` means; the last
    shared layer in the order of the model where absent."""
    embedding: Literal["balanced", "sum"] = "balanced"
    """What embedding tables get: the weighted sum of the tasks' gradients, as the other
    shared variables do, or the plain sum."""
    granularity: Literal["whole", "layer", "tensor"] = "whole"
    """Solve once for all shared variables together, for each layer, or each variable;
    more than one needs `gradients: full`."""
    every: int = Field(default=1, ge=1)
    """Solve each so many steps; between them the last weights serve. Such a step takes
    one backward pass for each group of weights (1 for `whole`, and 1 more for
    `embedding: sum`) and one through the tasks' own parts, or one for each task where
    that is less: with more groups than tasks it saves the solution alone."""

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        got = f"gradients={self.gradients!r}, granularity={self.granularity!r}"
        full = self.gradients == "full"
        if self.granularity != "whole" and not full:
            raise ValueError(
                "`granularity` other than `whole` needs `gradients: full`. Received: "
                f"{got}"
            )
        if self.probe != "shared" and not (full and self.granularity == "whole"):
            raise ValueError(
                "`probe` other than `shared` needs `gradients: full` and `granularity: "
                "whole`: activations, layers and tensors are all compared. Received: "
                f"probe={self.probe!r}, {got}"
            )
        if self.last_shared is not None and self.probe != "last_shared":
            raise ValueError(
                "`last_shared` needs `probe: last_shared`. Received: "
                f"last_shared={self.last_shared!r}, probe={self.probe!r}"
            )
        return self


class MeanConfig(GradientConfig):
    """Settings of balancers whose result is as long as the mean gradient, not the
    sum."""

    match_sum: bool = False
    """Multiply by the number of tasks that take part: as long as the sum of the
    gradients, which is what variables get without a balancer."""

    def scale(self, weights: Any) -> Any:
        """The weights, for a sum where `match_sum`."""
        if not self.match_sum:
            return weights
        return weights * tf.cast(tf.size(weights), weights.dtype)
