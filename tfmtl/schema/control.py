"""When and how far a task takes part in training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tfmtl.schema.base import Spec


class TaskControlSpec(Spec):
    """When a task takes part in training, and how far its gradient goes."""

    start: int = Field(default=0, ge=0)
    """The first step that the task trains in, counted from 0. Before it, and from
    `stop` on, it counts as a task without labels, its own variables stay, and so does
    what an architecture trains by its label beside it (DeepMCP's matching)."""
    stop: int | None = Field(default=None, ge=1)
    """The first step that it no longer trains in; never where absent."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Scale the task's gradient on shared variables down to this norm, before the
    balancer sees it. Costs one more backward pass with a balancer that weighs losses;
    with `gradients: representation` the norm is that at the activations."""
    reach: Literal["all", "own"] = "all"
    """`own`: the task learns from what is shared, but changes its own variables
    alone."""
    patience: int | None = Field(default=None, ge=1)
    """Stop the task after so many evaluations in which its own metric (`auc`, `rmse`
    or `accuracy`, by its type) was no better; null: never. A regression with a pure
    ranking loss has none."""

    @model_validator(mode="after")
    def _some_steps(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(
                "`stop` must come after `start`. Received: "
                f"start={self.start}, stop={self.stop}"
            )
        return self

    @property
    def scheduled(self) -> bool:
        """Whether there may be steps that the task takes no part in."""
        return bool(self.start or self.stop is not None or self.patience is not None)
