"""MMoE+ESMM: MMoE's experts and gates below ESMM's funnel.

A combination without a paper of its own; see those of MMoE and of ESMM.
"""

from __future__ import annotations

from typing import Annotated, Literal

from tfmtl.models.joint_loss import joint_only
from tfmtl.models.mmoe import MMoE, MMoEConfig


class MMoEESMMConfig(MMoEConfig):
    """Settings of MMoE+ESMM."""

    given_loss: Annotated[
        Literal["joint"],
        joint_only("with the loss on the rows with a click it is MMoE"),
    ] = "joint"
    """`buy` over all rows."""


class MMoEESMM(MMoE):
    """MMoE whose tasks are the steps of a funnel, trained on products.

    z_t = sum_e g^t(x)_e f_e(x)                MMoE
    s_t = h_t(z_t)
    p_t = product of sigmoid(s_u) over t and the steps above it
    L   = sum_t l(y_t, p_t)                    over all impressions, as in ESMM

    A funnel may branch: several tasks may be given the same one. All losses below a
    step move its gate and tower. With one expert it is ESMM on a shared bottom.
    """

    Config = MMoEESMMConfig
    citation = (
        "MMoE (J. Ma et al., KDD 2018) with the funnel of ESMM (X. Ma et al., SIGIR "
        "2018); no paper of its own"
    )
    config: MMoEESMMConfig
