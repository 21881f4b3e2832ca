"""RnR: rank first, rate after consumption.

G. Hadash, O. Sar Shalom, R. Osadchy, "Rank and Rate: Multi-task Learning for
Recommender Systems", RecSys 2018, arXiv 1807.11698.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError
from tfmtl.layers.bias_table import BiasTable
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.ids import rows_of
from tfmtl.layers.stacked import StackedDense
from tfmtl.models.base import ModelConfig, MultiTaskModel


class RnRConfig(ModelConfig):
    """Settings of RnR."""

    user: str | None = None
    """The feature that names the user; the user side's only categorical one where
    absent."""
    item: str | None = None
    """The feature that names the item, of the same width; likewise."""
    rating: tuple[str, ...] | None = None
    """Tasks judged after consumption; the regression tasks where absent. All others are
    ranked."""
    units: int = Field(default=32, ge=1)
    """Width of the layer that both sides of the rating share."""
    activation: Literal["relu", "tanh", "linear"] = "tanh"
    """Of that layer."""
    deviation_l2: float = Field(default=0.01, ge=0)
    """Half the squared norm of an item's deviation, averaged over rows, times this:
    without it the rating forgets the item's own vector."""


class _Pair(NamedTuple):
    """A batch's users and items: vectors [B, k] and ids [B]."""

    user: Any
    item: Any
    user_id: Any
    item_id: Any


class _Scale(keras.layers.Layer):
    """h_t of each owner: [B, k] -> [B, T], sum_k h_tk v_k; starts as the plain sum."""

    def __init__(self, owners: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.owners = owners
        self._weights: list[Any] = []

    def build(self, input_shape: Any) -> None:
        self._weights = [
            self.add_weight(f"{o}/scale", [input_shape[-1]], initializer="ones")
            for o in self.owners
        ]
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        scales = tf.cast(tf.stack(self._weights, axis=1), inputs.dtype)  # [k, T]
        return tf.cast(tf.matmul(inputs, scales), tf.float32)

    def variable_groups(self) -> dict[str, list[Any]]:
        return {o: [w] for o, w in zip(self.owners, self._weights)}


class RnR(MultiTaskModel):
    """Ranking by a dot product, rating by a dot product after a deviation.

    s_rank = p_u . q_i + b_i
    r      = mu + b'_u + b'_i + phi(p_u) . phi(q_i + delta_i)
    phi(v) = activation(W v + c), one W and c for both sides

    delta_i, what consumption changes in the perception of item i, starts at 0 and is
    learnt by the ratings alone. That the layer is shared, and what it reads, is the
    paper's; its width and activation are not known from the text and are settings.

    The paper has one task of each kind. Where there are more of one kind, each weighs
    the products by a vector of its own, which starts at ones:
    s_t = h_t . (p_u * q_i) + b_ti.
    """

    Config = RnRConfig
    citation = (
        "G. Hadash et al., Rank and Rate: Multi-task Learning for Recommender Systems, "
        "RecSys 2018"
    )
    config: RnRConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.user = self.id_feature("user", config.user, "user")
        self.item = self.id_feature("item", config.item, "item")
        self.rating = self._rated()
        self.ranking = tuple(t.name for t in self.tasks if t.name not in self.rating)
        others = [
            f.name
            for f in self.manifest.dataset.features
            if f.name not in (self.user, self.item)
        ]
        self.embedding = self.make_embedding(
            "embedding", exclude=others, use_scenario=False
        )
        self._check_widths()
        users, items = (self.manifest.column(n).rows for n in (self.user, self.item))
        assert users is not None
        assert items is not None
        start = {t.name: self.initial_bias(t) for t in self.tasks}
        rank, rate = ([f"task/{n}" for n in k] for k in (self.ranking, self.rating))
        self.popularity = BiasTable(
            rank, items, [start[n] for n in self.ranking], name="popularity"
        )
        self.item_habit = BiasTable(
            rate, items, [start[n] for n in self.rating], name="item_habit"
        )
        self.user_habit = BiasTable(rate, users, name="user_habit")
        self.deviation = _Deviation(items, self._width(self.item), name="deviation")
        self.perception = StackedDense(
            1,
            config.units,
            config.activation,
            seed=self.seed_for("perception"),
            name="perception",
        )
        # Two, so that user and item lose different parts.
        self.dropouts = [
            Dropout(config.dropout, self.seed_for("dropout", side), name=f"drop_{side}")
            for side in ("user", "item")
        ]
        self.rank_scale = _Scale(tuple(rank), name="rank_scale") if rank[1:] else None
        self.rate_scale = _Scale(tuple(rate), name="rate_scale") if rate[1:] else None

    def _rated(self) -> tuple[str, ...]:
        names = [t.name for t in self.tasks]
        if self.wide_tasks:
            raise ConfigError(
                "RnR has no multiclass tasks, nor others with several outputs. "
                f"Received: {self.wide_tasks}"
            )
        chosen = self.config.rating
        if chosen is None:
            chosen = tuple(t.name for t in self.tasks if t.type == "regression")
        if not set(chosen) < set(names) or not chosen:
            raise ConfigError(
                "RnR needs tasks to rank and tasks to rate: `model.config.rating` must "
                f"name some, not all. Received: {list(chosen)}; tasks: {names}"
            )
        return tuple(n for n in names if n in chosen)

    def _width(self, name: str) -> int:
        (feature,) = (f for f in self.manifest.dataset.features if f.name == name)
        width: int = feature.dim  # type: ignore[union-attr]
        return width

    def _check_widths(self) -> None:
        user, item = self._width(self.user), self._width(self.item)
        if user != item:
            raise ConfigError(
                "RnR multiplies the user's and the item's vectors: their `dim` must be "
                f"equal. Received: {self.user!r} {user}, {self.item!r} {item}"
            )

    def embed(self, features: Mapping[str, Any], training: bool) -> _Pair:
        x = self.embedding(features, training=training)
        return _Pair(
            x.fields[self.user],
            x.fields[self.item],
            features[self.user],
            features[self.item],
        )

    def logits(self, x: _Pair, training: bool) -> dict[str, Any]:
        self.keep_for_cut(x.user, x.item)
        ranked = self._products(self.rank_scale, x.user, x.item)
        ranked += self.popularity(x.item_id)  # [B, ranked tasks]
        delta = self.deviation(x.item_id, training=training)
        item = x.item + tf.cast(delta, x.item.dtype)
        sides = [
            drop(self.perception(v)[:, 0], training=training)
            for drop, v in zip(self.dropouts, (x.user, item))
        ]
        rated = self._products(self.rate_scale, *sides)
        rated += self.user_habit(x.user_id) + self.item_habit(x.item_id)
        found = {n: ranked[:, i] for i, n in enumerate(self.ranking)}
        found |= {n: rated[:, i] for i, n in enumerate(self.rating)}
        return {t.conditional: found[t.name] for t in self.tasks}

    @staticmethod
    def _products(scale: Any, left: Any, right: Any) -> Any:
        """[B, k], [B, k] -> [B, T]."""
        product = left * right
        if scale is not None:
            return scale(product)
        total = tf.reduce_sum(product, axis=1, keepdims=True)
        return tf.cast(total, tf.float32)

    def aux_losses(self) -> dict[str, Any]:
        if self.deviation.penalty is None:
            return {}
        return {"deviation": self.config.deviation_l2 * self.deviation.penalty}


class _Deviation(keras.layers.Layer):
    """delta_i of each item: [B] -> [B, k]; starts at 0.

    Args:
        rows: Of the table.
        width: k.
    """

    def __init__(self, rows: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        self.width = width
        self.penalty: Any = None

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(
            "table",
            [self.rows, self.width],
            initializer="zeros",
            dtype=tf.float32,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, index: Any, training: bool = False) -> Any:
        delta = tf.gather(self.table, rows_of(index, self.rows))
        norm = tf.reduce_mean(tf.reduce_sum(tf.square(delta), axis=1))
        self.penalty = 0.5 * norm if training else None
        return delta

    def variable_groups(self) -> dict[str, list[Any]]:
        """`embedding/deviation`."""
        return {"embedding/deviation": [self.table]}
