"""CNNMax: convolutions over the behaviour sequence, a baseline of DUPN.

L. Zheng, V. Noroozi, P. Yu, "Joint Deep Modeling of Users and Items Using Reviews for
Recommendation", WSDM 2017; on behaviours instead of words in Y. Ni et al., "Perceive
Your Users in Depth", KDD 2018, section 4.2.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.window_max import WindowMax
from tfmtl.models.behaviour import BehaviourConfig, BehaviourModel, side_by_side


class CNNMaxConfig(BehaviourConfig):
    """Settings of CNNMax."""

    windows: tuple[int, ...] = Field(default=tuple(range(1, 11)), min_length=1)
    """Window sizes."""
    kernels: int = Field(default=64, ge=1)
    """Kernels of each window size."""
    behaviour_units: int = Field(default=128, ge=1)
    """Width of what the sequence becomes."""


class CNNMax(BehaviourModel):
    """Convolutions over the behaviour sequence, maximum over time.

    z_w = max_t ReLU(conv_w(x)_t)                  windows w = 1..10, 64 kernels each
    v   = ReLU(W [z_1; ...; z_10] + b)             the user by behaviour
    u   = ReLU(W' [profile; request] + b')         the user by profile
    heads as DUPN's, on rep = [v; u]

    x_t are all columns of step t. The heads and u are this project's reading: the paper
    says of this baseline only what becomes of the sequence.
    """

    Config = CNNMaxConfig
    citation = (
        "L. Zheng et al., Joint Deep Modeling of Users and Items Using Reviews for "
        "Recommendation, WSDM 2017"
    )
    config: CNNMaxConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.embedding = self.read()
        self.convolutions = WindowMax(
            config.windows,
            config.kernels,
            seed=self.seed_for("convolutions"),
            name="convolutions",
        )
        self.behaviour, self.profile = (
            StackedMLP(
                1,
                [width],
                seed=self.seed_for(name),
                dropout=config.dropout,
                name=name,
            )
            for name, width in (
                ("behaviour", config.behaviour_units),
                ("profile", config.user_units),
            )
        )

    def represent(self, x: Embedded, training: bool) -> Any:
        steps, mask = x.sequences[self.roles.sequence.name]  # [B, L, d], [B, L]
        strongest = self.convolutions(steps, mask=mask)  # [B, W K]
        behaviour = self.behaviour(strongest, training=training)[:, 0]
        read = (*self.roles.user, *self.roles.query)
        profile = side_by_side(x, read, scenario=True)
        if profile is None:
            return behaviour
        user = self.profile(profile, training=training)[:, 0]
        return tf.concat([behaviour, user], axis=1)
