"""The gate neural unit: a prior scales what it is told to scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense


@keras.utils.register_keras_serializable("tfmtl")
class GateUnit(keras.layers.Layer):
    """Factors around 1 that a prior decides: [B, p] -> [B, T, D].

        x'    = relu(x W + b)
        delta = gamma * sigmoid(x' W' + b'),   0 < delta < gamma

    With gamma = 2 a logit of 0 leaves alone what is scaled.

    Args:
        units: Width of x'.
        outputs: D.
        seed: Of the kernels.
        owners: Groups of W' and b', T of them, the first layer being common; one set of
            factors that claims no group where None.
        gamma: The largest factor.
        neutral: Start with W' = b' = 0: all factors at gamma / 2.

    References:
        J. Chang et al., "PEPNet: Parameter and Embedding Personalized Network for
        Infusing with Personalized Prior Information", KDD 2023, arXiv 2302.01115.
    """

    def __init__(
        self,
        units: int,
        outputs: int,
        *,
        seed: int,
        owners: Sequence[str] | None = None,
        gamma: float = 2.0,
        neutral: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.outputs = outputs
        self.seed = seed
        self.owners = tuple(owners) if owners is not None else None
        self.gamma = gamma
        self.neutral = neutral
        self.prior = StackedDense(
            1, units, "relu", seed=child_seed(seed, "prior"), name="prior"
        )
        self.factors = StackedDense(
            1 if owners is None else len(owners),
            outputs,
            "sigmoid",
            seed=child_seed(seed, "factors"),
            owners=owners,
            scale=0.0 if neutral else None,
            name="factors",
        )

    def call(self, inputs: Any) -> Any:
        """Computes factors.

        Args:
            inputs: [B, p].

        Returns:
            Factors [B, T, D], and x' [B, units] that they are made of.
        """
        hidden = tf.squeeze(self.prior(inputs), 1)
        return self.gamma * self.factors(hidden), hidden

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its W' and b'."""
        return self.factors.variable_groups()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "outputs": self.outputs,
            "seed": self.seed,
            "owners": self.owners,
            "gamma": self.gamma,
            "neutral": self.neutral,
        }
