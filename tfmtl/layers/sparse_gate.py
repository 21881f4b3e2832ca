"""A gate that uses k of E experts a row, and what keeps all of them in use."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import step_seed

MIN_NOISE = 1e-2
"""The noise's standard deviation is kept above it: the load divides by it."""


class SparseGate(NamedTuple):
    """What a sparse gate says of a batch.

    Attributes:
        weights: [B, E], k of them above 0 in each row, sum 1.
        load: [B, E], chance that an expert is among a row's k, given the other
            experts' noise; None where it is undefined (no noise, or k = E).
    """

    weights: Any
    load: Any


@keras.utils.register_keras_serializable("tfmtl")
class NoisyTopKGate(keras.layers.Layer):
    """Softmax over the k largest of E noisy logits.

        H(x)_i = (x W_g)_i + n_i softplus((x W_noise)_i),   n_i ~ N(0, 1)
        G(x)   = softmax(KeepTopK(H(x), k))

    Without noise outside training. Both kernels start at 0, so that noise alone decides
    at first and all experts are used alike. Always float32: a logit off in the third
    digit picks another expert. With k = 1 the weight is 1 whatever the logits, and only
    the load teaches the gate.

    Args:
        num_experts: E.
        active: k.
        seed: Of the noise.
        noisy: Whether there is noise in training.

    Raises:
        ValueError: k is not in 1..E.

    References:
        N. Shazeer et al., "Outrageously Large Neural Networks: The Sparsely-Gated
        Mixture-of-Experts Layer", ICLR 2017, equations 3 to 5 and appendix A.
    """

    def __init__(
        self,
        num_experts: int,
        active: int,
        *,
        seed: int,
        noisy: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not 1 <= active <= num_experts:
            raise ValueError(
                f"`active` must be in 1..{num_experts}, the number of experts. "
                f"Received: {active}"
            )
        self.num_experts = num_experts
        self.active = active
        self.seed = seed
        self.noisy = noisy

    def build(self, input_shape: Any) -> None:
        shape = [int(input_shape[-1]), self.num_experts]
        self.kernel = self.add_weight("kernel", shape, initializer="zeros")
        if self.noisy:
            self.noise_kernel = self.add_weight(
                "noise_kernel", shape, initializer="zeros"
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> SparseGate:
        """[B, D] -> weights and load."""
        clean = tf.matmul(inputs, self.kernel)  # [B, E]
        if not (training and self.noisy):
            return SparseGate(top_k_softmax(clean, self.active), None)
        deviation = tf.nn.softplus(tf.matmul(inputs, self.noise_kernel))
        deviation = tf.maximum(deviation, MIN_NOISE)
        noise = tf.random.stateless_normal(tf.shape(clean), step_seed(self.seed))
        noisy = clean + noise * deviation
        load = None
        if self.active < self.num_experts:
            load = selection_probability(clean, noisy, deviation, self.active)
        return SparseGate(top_k_softmax(noisy, self.active), load)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "active": self.active,
            "seed": self.seed,
            "noisy": self.noisy,
        }


def top_k_softmax(logits: Any, k: int) -> Any:
    """Softmax over each row's k largest logits [B, E], 0 elsewhere.

    Of equal logits the first count as larger: k are chosen, never more.
    """
    if k == logits.shape[-1]:
        return tf.nn.softmax(logits, axis=-1)
    _, chosen = tf.math.top_k(logits, k)
    return tf.nn.softmax(tf.where(_is_in(chosen, logits), logits, -math.inf), axis=-1)


def selection_probability(clean: Any, noisy: Any, deviation: Any, k: int) -> Any:
    """Chance that an expert is among the k largest if its own noise is drawn anew.

        P(x, i) = Phi((clean_i - kth_excluding(noisy, k, i)) / deviation_i)

    Args:
        clean: [B, E], logits without noise.
        noisy: [B, E], logits with it.
        deviation: [B, E], standard deviation of the noise.
        k: Below E.

    Returns:
        [B, E].
    """
    values, chosen = tf.math.top_k(noisy, k + 1)
    inside = _is_in(chosen[:, :k], noisy)  # [B, E]
    # Without i, the k-th largest is the next one where i is among the k itself.
    threshold = tf.where(inside, values[:, k:], values[:, k - 1 : k])
    z = (clean - threshold) / deviation
    return 0.5 * tf.math.erfc(-z / math.sqrt(2.0))


def squared_variation(amounts: Any) -> Any:
    """Squared coefficient of variation, Var / mean^2, of [E] amounts: 0 where they are
    equal, E - 1 where one has all."""
    mean = tf.reduce_mean(amounts)
    return tf.math.reduce_variance(amounts) / (tf.square(mean) + 1e-10)


def _is_in(chosen: Any, like: Any) -> Any:
    """Indices [B, k] -> bool [B, E]."""
    return tf.reduce_any(tf.one_hot(chosen, like.shape[-1], True, False), axis=1)
