"""AITM: steps of a conversion, each informed by the step before.

D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang, Y. Chen, "Modeling the Sequential
Dependence among Audience Multi-step Conversions with Multi-task Learning in Targeted
Display Advertising", KDD 2021, arXiv 2105.08489.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.funnel import order_violation
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.transfer import AdaptiveTransfer
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.joint_loss import joint_only
from tfmtl.models.task_graph import task_levels


class AITMConfig(ModelConfig):
    """Settings of AITM."""

    step_units: tuple[int, ...] = Field(default=(128, 64, 32), min_length=1)
    """Widths of each step's own layers; the last is k, the width of what is passed."""
    tower_units: tuple[int, ...] = ()
    """Widths of each output's hidden layers, above the transfer."""
    calibrator: float = Field(default=0.6, ge=0)
    """alpha, what the calibrator is multiplied by; 0 leaves it out."""
    given_loss: Annotated[
        Literal["joint"],
        joint_only("the model estimates each step from the impression on"),
    ] = "joint"
    """`buy` over all rows."""


class AITM(MultiTaskModel):
    """Adaptive information transfer multi-task framework.

    q_t = f_t(v)                       a step's own layers over the shared embeddings
    z_1 = q_1
    z_t = AIT(g_{t-1}(z_{t-1}), q_t)   section 3.3; see `AdaptiveTransfer`
    s_t = MLP(z_t),  y_t = sigmoid(s_t) = p(steps 1 .. t all happen | x)
    L   = sum_t l(label_t, y_t) + alpha mean sum_{t>=2} max(y_t - y_{t-1}, 0)

    Outputs are end-to-end probabilities over all impressions; `buy|click` is the ratio
    of two, taken as 1 where they are in the wrong order. The chain is read from
    `given`. Where several tasks are given the same one, each receives from it by a
    transfer of its own; a task without `given` starts a chain. A regression receives as
    other steps do and has no part in the calibrator. Every step has its own g, h1, h2
    and h3.

    Deviations: one dropout rate for all layers (paper: 0.1, 0.3, 0.3). Unlike EasyRec's
    tower of the name: no stopped gradient, one set of projections for both inputs, no
    attention across. The authors' later script has alpha = 0.3.
    """

    Config = AITMConfig
    citation = (
        "D. Xi et al., Modeling the Sequential Dependence among Audience Multi-step "
        "Conversions with Multi-task Learning in Targeted Display Advertising, KDD 2021"
    )
    config: AITMConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, names = self.config, [t.name for t in self.tasks]
        self._before = {t.name: t.given for t in self.tasks if t.given is not None}
        self._levels = task_levels(
            names, {n: [g] for n, g in self._before.items()}, "given"
        )
        self.steps = StackedMLP(
            len(names),
            config.step_units,
            seed=self.seed_for("steps"),
            dropout=config.dropout,
            owners=[self._owner(n) for n in names],
            name="steps",
        )
        self.transfers = [
            AdaptiveTransfer(
                [self._owner(n) for n in level],
                config.step_units[-1],
                seed=self.seed_for("transfer", depth),
                dropout=config.dropout,
                name=f"transfer_{depth}",
            )
            for depth, level in enumerate(self._levels[1:], start=1)
        ]
        self.towers = self.make_towers(
            [self.initial_joint_output(t) for t in self.tasks]
        )
        self._violation: Any = None

    def _owner(self, task: str) -> str:
        """The steps that follow train what a step passes on."""
        followed = task in self._before.values()
        return f"shared/{task}" if followed else f"task/{task}"

    def represent(self, x: Embedded, training: bool) -> Any:
        names = [t.name for t in self.tasks]
        own = tf.unstack(self.steps(x.flat, training=training), axis=1)
        z, shares = dict(zip(names, own)), []  # task to [B, k]
        for level, transfer in zip(self._levels[1:], self.transfers):
            mixed, weights = transfer(
                tf.stack([z[self._before[n]] for n in level], axis=1),
                tf.stack([z[n] for n in level], axis=1),
                training=training,
            )  # [B, N, k], [B, N, 2]
            z.update(zip(level, tf.unstack(mixed, axis=1)))
            shares.append(weights)
        if shares:
            self.keep_for_inspection(transfer_gates=tf.concat(shares, axis=1))
        self.keep_for_cut(x.flat, *(z[n] for n in names if n in self._before.values()))
        return tf.stack([z[n] for n in names], axis=1)

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        self._violation = None
        steps = self.towers(self.represent(x, training), training=training)
        return {t.name: logit for t, logit in zip(self.tasks, steps)}

    def training_outputs(self, x: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """No outputs, but the calibrator of the last batch."""
        pairs = [
            order_violation(tf.sigmoid(outputs[t.name]), tf.sigmoid(outputs[t.given]))
            for t in self.tasks
            if t.given is not None and t.type == "binary"
        ]
        self._violation = tf.add_n(pairs) if pairs else None
        return {}

    def aux_losses(self) -> dict[str, Any]:
        if self._violation is None or not self.config.calibrator:
            return {}
        return {"calibrator": self.config.calibrator * self._violation}
