"""SoftSharing: one network per task, tied by the distance of their parameters.

L. Duong, T. Cohn, S. Bird, P. Cook, "Low Resource Dependency Parsing: Cross-lingual
Parameter Sharing in a Neural Network Parser", ACL 2015; as a baseline for many tasks:
J. Ma et al., KDD 2018 (MMoE), section 5.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SoftSharingConfig(ModelConfig):
    """Settings of SoftSharing."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each network below its tower."""
    alpha: float = Field(default=1e-3, ge=0)
    """What the squared distances of the networks are multiplied by; 0 unties them."""


class SoftSharing(MultiTaskModel):
    """A network per task, with an L2 penalty on their distances.

    s_t   = h_t(f(x; theta_t))
    Omega = alpha sum_{i<j} |theta_i - theta_j|^2
          = alpha T sum_i |theta_i - mean(theta)|^2

    Omega is added once a step. theta_t is the kernels of f; biases and towers are free.
    Which matrices Duong et al. tie, and whether the source network is frozen, is
    unconfirmed. x, the embeddings, is one for all tasks.
    """

    Config = SoftSharingConfig
    citation = (
        "L. Duong et al., Low Resource Dependency Parsing: Cross-lingual Parameter "
        "Sharing in a Neural Network Parser, ACL 2015"
    )
    config: SoftSharingConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trunks = StackedMLP(
            len(self.tasks),
            self.config.units,
            seed=self.seed_for("trunks"),
            dropout=self.config.dropout,
            owners=[f"task/{t.name}" for t in self.tasks],
            name="trunks",
        )
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        self.keep_for_cut(x.flat)
        return self.trunks(x.flat, training=training)  # [B, T, H]

    def aux_losses(self) -> dict[str, Any]:
        if self.config.alpha == 0:
            return {}
        distances = [pair_distances(layer.kernel) for layer in self.trunks.layers]
        return {"soft_sharing": self.config.alpha * tf.add_n(distances)}


def pair_distances(members: Any) -> Any:
    """Squared distances of all pairs of T members, summed, without a loop over pairs.

    Args:
        members: [T, ...].

    Returns:
        Scalar; its gradient with respect to member i is 2 T (theta_i - mean).
    """
    away = members - tf.reduce_mean(members, axis=0)
    return float(members.shape[0]) * tf.reduce_sum(tf.square(away))
