"""ESM2: ESMM with an action between click and purchase.

H. Wen, J. Zhang, Y. Wang, F. Lv, W. Bao, Q. Lin, K. Yang, "Entire Space Multi-Task
Modeling via Post-Click Behavior Decomposition for Conversion Rate Prediction", SIGIR
2020, arXiv 1910.07099.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.funnel import mixture_logit
from tfmtl.layers.towers import Towers
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.joint_loss import joint_only
from tfmtl.models.task_graph import task_levels
from tfmtl.schema.task import TaskSpec


class ESM2Config(ModelConfig):
    """Settings of ESM2."""

    through: dict[str, str] = Field(min_length=1)
    """Task to the deterministic action that may lead to it: `{buy: cart}`. Both are
    `given` the same task, such as the click; without such an action it is ESMM."""
    tower_units: tuple[int, ...] = (512, 256, 128, 32)
    """Widths of each tower's hidden layers, from the embedded input up."""
    given_loss: Annotated[
        Literal["joint"],
        joint_only("the model has no loss on the rows with a click alone"),
    ] = "joint"
    """`buy` over all rows."""


class ESM2(MultiTaskModel):
    """Entire space model with post-click behaviour decomposition.

    y_k = sigmoid(phi_k(v))        one tower each over the shared embeddings v
      y1 = p(click), y2 = p(cart | click), y3 = p(buy | cart), y4 = p(buy | no cart)
    p_ctr   = y1
    p_ctavr = y1 y2
    p_cvr   = y2 y3 + (1 - y2) y4
    p_ctcvr = y1 p_cvr
    L = sum of cross-entropies of p_ctr, p_ctavr, p_ctcvr over all impressions

    y3 and y4 are never compared with a label: only their mixture is. The cart stands
    for the paper's DAction, the union of cart and wish list, which is a matter of its
    task's `label`; its absence is OAction. An action may itself lead through another,
    and steps may follow `buy`. Products and sums are taken in log space.

    Deviations: one logit a tower where the paper has a two-way softmax, the same model.
    That all losses weigh 1 is unconfirmed; weights are the balancer's.
    """

    Config = ESM2Config
    citation = (
        "H. Wen et al., Entire Space Multi-Task Modeling via Post-Click Behavior "
        "Decomposition for Conversion Rate Prediction, SIGIR 2020"
    )
    config: ESM2Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        through = self.config.through
        levels = task_levels(
            [t.name for t in self.tasks],
            {t: [a] for t, a in through.items()},
            "through",
        )
        self._in_order = tuple(n for level in levels for n in level if n in through)
        self._check_through()
        # y2 reaches the loss of buy, too.
        actions = set(through.values())
        self.towers = self._towers("towers", self.tasks, actions)
        branching = [t for t in self.tasks if t.name in through]
        self.otherwise = self._towers("otherwise", branching, actions)

    def _check_through(self) -> None:
        by_name = {t.name: t for t in self.tasks}
        for task, action in self.config.through.items():
            pair = [by_name[task], by_name[action]]
            one = all(t.type == "binary" and t.width == 1 for t in pair)
            if not one or pair[0].given != pair[1].given:
                shown = [f"{t.name}: {t.type}, given {t.given}" for t in pair]
                raise ConfigError(
                    "`model.config.through` must pair binary tasks of one output that "
                    f"are `given` the same task. Received: {shown}"
                )

    def _towers(
        self, name: str, tasks: list[TaskSpec] | tuple[TaskSpec, ...], actions: set[str]
    ) -> Towers:
        return Towers(
            [f"{'shared' if t.name in actions else 'task'}/{t.name}" for t in tasks],
            self.config.tower_units,
            [t.width for t in tasks],
            seed=self.seed_for(name),
            dropout=self.config.dropout,
            initial_bias=[self.initial_output(t) for t in tasks],
            name=name,
        )

    def steps(self, x: Embedded, training: bool) -> tuple[dict[str, Any], ...]:
        """Logits of y1, y2, y3 of all tasks, and of y4 of those with an action."""
        names = [t.name for t in self.tasks]
        return (
            dict(zip(names, self.towers(x.flat, training=training))),
            dict(
                zip(
                    (n for n in names if n in self.config.through),
                    self.otherwise(x.flat, training=training),
                )
            ),
        )

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        outputs, otherwise = self.steps(x, training)
        for task in self._in_order:
            switch = outputs[self.config.through[task]]
            outputs[task] = mixture_logit(switch, outputs[task], otherwise[task])
        self.keep_for_cut(x.flat, *self._actions(outputs))
        return {t.conditional: outputs[t.name] for t in self.tasks}

    def _actions(self, outputs: Mapping[str, Any]) -> list[Any]:
        return [outputs[a] for a in sorted(set(self.config.through.values()))]
