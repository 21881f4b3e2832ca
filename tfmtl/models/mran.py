"""MRAN: relations between tasks, between features, and between both, by attention.

J. Zhao, B. Du, L. Sun, F. Zhuang, W. Lv, H. Xiong, "Multiple Relational Attention
Network for Multi-task Learning", KDD 2019.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.initializers import NormalRows
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.self_attention import SelfAttention
from tfmtl.layers.stacked import StackedDense
from tfmtl.models.base import ModelConfig, MultiTaskModel


class MRANConfig(ModelConfig):
    """Settings of MRAN."""

    width: int = Field(default=32, ge=1)
    """k, of the tokens that features and tasks become."""
    heads: int = Field(default=4, ge=1)
    """Heads of each self-attention; divides `width`."""
    attention_l2: float = Field(default=0.0, ge=0)
    """Squared norm of the task-task attention, averaged over heads, times this."""

    @model_validator(mode="after")
    def _heads_divide(self) -> MRANConfig:
        if self.width % self.heads:
            raise ValueError(
                f"`heads` must divide `width`. Received: {self.heads}, {self.width}"
            )
        return self


class MRAN(MultiTaskModel):
    """Attention between tasks, between features, and from tasks to features.

    Q   = LN(Q0 + MHA(Q0))                    task-task, Q0 [T, k] learnt
    X'  = LN(X + MHA(X))                      feature-feature, X [B, F, k]
    A   = softmax(Q W_q (X' W_k)^T / sqrt(k)) task-feature, [B, T, F]
    z_t = LN(q_t W_o + sum_f A_tf X'_f W_v)
    s_t = MLP_t(z_t)

    The paper makes the task representations from the labels of the training data and
    drops that part for serving. Here they are learnt tokens, so that training and
    serving are one function and no label is read; LayerNorm stands for its batch
    normalisation, for the same reason. A feature becomes a token by a linear map of its
    vector; the scenario is one of the tokens.
    """

    Config = MRANConfig
    citation = (
        "J. Zhao et al., Multiple Relational Attention Network for Multi-task "
        "Learning, KDD 2019"
    )
    config: MRANConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.tokens = _FeatureTokens(
            config.width, seed=self.seed_for("tokens"), name="tokens"
        )
        self.task_tokens = _TaskTokens(
            tuple(t.name for t in self.tasks),
            config.width,
            seed=self.seed_for("task_tokens"),
            name="task_tokens",
        )
        self.between_tasks = SelfAttention(
            config.heads, seed=self.seed_for("between_tasks"), name="between_tasks"
        )
        self.between_features = SelfAttention(
            config.heads,
            seed=self.seed_for("between_features"),
            name="between_features",
        )
        self.query, self.own, self.key, self.value = (
            StackedDense(
                1, config.width, seed=self.seed_for(part), use_bias=False, name=part
            )
            for part in ("query", "own", "key", "value")
        )
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.dropout = Dropout(config.dropout, self.seed_for("dropout"), name="dropout")
        self.towers = self.make_towers()
        self._task_attention: Any = None

    def represent(self, x: Embedded, training: bool) -> Any:
        tokens = self.tokens(x)  # [B, F, k]
        tasks, between = self.between_tasks(self.task_tokens.stack()[None])
        tasks = tasks[0]  # [T, k]
        features, _ = self.between_features(tokens)
        self._task_attention = between if training else None
        query = self.query(tasks)[:, 0]
        scores = tf.einsum("tk,bfk->btf", query, self._map(self.key, features))
        scores = tf.cast(scores, tf.float32) / self.config.width**0.5
        alignment = tf.nn.softmax(scores, axis=-1)  # [B, T, F]
        values = self._map(self.value, features)
        read = tf.einsum("btf,bfk->btk", tf.cast(alignment, values.dtype), values)
        mixed = self.norm(self.own(tasks)[:, 0] + read)  # [B, T, k]
        self.keep_for_cut(mixed)
        self.keep_for_inspection(alignment=alignment, task_attention=between[0])
        return self.dropout(mixed, training=training)

    @staticmethod
    def _map(layer: StackedDense, tokens: Any) -> Any:
        """A linear map of every token, [B, F, k] -> [B, F, k]."""
        flat = layer(tf.reshape(tokens, [-1, tokens.shape[2]]))
        return tf.reshape(flat, [-1, *tokens.shape[1:]])

    def aux_losses(self) -> dict[str, Any]:
        if not self.config.attention_l2 or self._task_attention is None:
            return {}
        heads = tf.reduce_sum(tf.square(self._task_attention), axis=[2, 3])
        return {"task_attention": self.config.attention_l2 * tf.reduce_mean(heads)}


class _FeatureTokens(keras.layers.Layer):
    """A linear map of each feature's vector to [B, F, k], one einsum a width.

    Args:
        width: k.
        seed: Of the kernels.
    """

    def __init__(self, width: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.seed = seed
        self._maps: dict[str, StackedDense] = {}

    def call(self, x: Embedded) -> Any:
        vectors = dict(x.features)
        if x.scenario_vector is not None:
            vectors["scenario"] = x.scenario_vector
        by_width: dict[str, list[Any]] = {}
        for vector in vectors.values():
            by_width.setdefault(f"from_{vector.shape[1]}", []).append(vector)
        tokens = []
        for size, members in by_width.items():
            if size not in self._maps:
                self._maps[size] = StackedDense(
                    len(members),
                    self.width,
                    seed=child_seed(self.seed, size),
                    name=size,
                )
            tokens.append(self._maps[size](tf.stack(members, axis=1)))
        return tf.concat(tokens, axis=1)


class _TaskTokens(keras.layers.Layer):
    """A learnt vector for each task, [T, k].

    Args:
        tasks: Their names.
        width: k.
        seed: Of the vectors.
    """

    def __init__(
        self, tasks: tuple[str, ...], width: int, *, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._vectors = [
            self.add_weight(
                f"{task}/token",
                [width],
                initializer=NormalRows(child_seed(seed, task), width**-0.5),
            )
            for task in tasks
        ]

    def stack(self) -> Any:
        """[T, k]."""
        return tf.cast(tf.stack(self._vectors), self.compute_dtype)
