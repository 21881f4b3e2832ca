"""Learning rates over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.schema.experiment import ScheduleSpec


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, linear, cosine or exponential decay.

    With p in [0, 1] the share of the decay that has passed and e the end factor, the
    rate is `rate` times: 1 - (1 - e) p (linear), e + (1 - e)(1 + cos(pi p)) / 2
    (cosine), e^p (exponential).

    Args:
        rate: At the end of the warm-up.
        spec: Kind, warm-up, end factor.
        planned_steps: Where the decay ends if the spec does not say.
    """

    def __init__(self, rate: float, spec: ScheduleSpec, planned_steps: int) -> None:
        super().__init__()
        self.rate = rate
        self.spec = spec
        self.decay_steps = spec.decay_steps or max(1, planned_steps - spec.warmup_steps)

    def __call__(self, step: Any) -> Any:
        step = tf.cast(step, tf.float32)
        warmup = float(self.spec.warmup_steps)
        passed = tf.clip_by_value((step - warmup) / self.decay_steps, 0.0, 1.0)
        end = self.spec.end_factor
        match self.spec.kind:
            case "linear":
                factor = 1.0 - (1.0 - end) * passed
            case "cosine":
                factor = end + (1.0 - end) * 0.5 * (1.0 + tf.cos(math.pi * passed))
            case "exponential":
                factor = tf.pow(max(end, 1e-6), passed)
            case _:
                factor = tf.ones_like(passed)
        if warmup:
            factor = tf.where(step < warmup, (step + 1.0) / warmup, factor)
        return self.rate * factor

    def get_config(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "spec": self.spec.model_dump(),
            "decay_steps": self.decay_steps,
        }
