"""ESMM: every step of a funnel over all impressions.

X. Ma, L. Zhao, G. Huang, Z. Wang, Z. Hu, X. Zhu, K. Gai, "Entire Space Multi-Task
Model: An Effective Approach for Estimating Post-Click Conversion Rate", SIGIR 2018,
arXiv 1804.07931.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.funnel import joint_logit
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.joint_loss import joint_only


class ESMMConfig(ModelConfig):
    """Settings of ESMM."""

    tower_units: tuple[int, ...] = (360, 200, 80)
    """Widths of each tower's hidden layers, from the embedded input up."""
    given_loss: Annotated[
        Literal["joint"],
        joint_only("the model has no loss on the rows with a click alone"),
    ] = "joint"
    """`buy` over all rows."""
    detach_given: bool = False
    """Whether the loss of a step leaves the towers of the steps above it alone, a
    variant: in the paper the loss of click and buy moves the tower of click, too."""


class ESMM(MultiTaskModel):
    """Entire space multi-task model: a tower a step, trained on products.

    s_t = h_t(v)                               one tower a step; v the shared embeddings
    p(buy | click, x) = sigmoid(s_buy)         p_cvr
    p(click and buy | x) = p_ctr p_cvr         p_ctcvr
    L = sum_i l(y_i, p_ctr) + l(y_i z_i, p_ctr p_cvr)  over all impressions, section 2.3

    There is no loss on p_cvr itself. With q = p_ctr p_cvr and no click,
    dL/ds_cvr = q (1 - p_cvr) / (1 - q) > 0: where clicks are rare p_cvr is pushed down,
    a known bias of the method. A funnel of any length multiplies all its steps. The
    product is taken in log space.

    Deviations: one logit a tower where the paper has a two-way softmax, the same model;
    features are pooled once for all towers, which is the same for pooling without
    weights. Unlike code that goes by this name, no loss over the clicked rows is added.
    """

    Config = ESMMConfig
    citation = (
        "X. Ma et al., Entire Space Multi-Task Model: An Effective Approach for "
        "Estimating Post-Click Conversion Rate, SIGIR 2018"
    )
    config: ESMMConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        self.keep_for_cut(x.flat)
        return x.flat

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        outputs = super().logits(x, training)
        if self.config.detach_given:
            for task in self.tasks:
                own, *above = (outputs[t.conditional] for t in self.funnel(task))
                if above and task.type == "binary":
                    detached = [tf.stop_gradient(s) for s in above]
                    outputs[task.name] = joint_logit(own, *detached)
        return outputs
