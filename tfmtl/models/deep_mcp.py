"""DeepMCP: prediction, helped in training by matching and correlation.

W. Ouyang, X. Zhang, S. Ren, L. Li, Z. Liu, Y. Du, "Representation Learning-Assisted
Click-Through Rate Prediction", IJCAI 2019, arXiv 1906.04365.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded, columns_of
from tfmtl.layers.pooling import masked_mean
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.tanh_encoder import TanhEncoder
from tfmtl.models.base import ExtraLoss, ModelConfig, MultiTaskModel
from tfmtl.models.behaviour import side_by_side
from tfmtl.models.sides import features_by_side, id_feature, mixed_crosses
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import SequenceFeature, VectorFeature
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.samples import SampleSpec


class DeepMCPConfig(ModelConfig):
    """Settings of DeepMCP."""

    units: tuple[int, ...] = (512, 256)
    """Widths of the prediction subnet's layers that all tasks share."""
    tower_units: tuple[int, ...] = ()
    """Widths of each task's own hidden layers above them; may be empty."""
    alpha: float = Field(default=5.0, ge=0)
    """Weight of the matching loss; with 0 there is no matching subnet (DeepCP)."""
    beta: float = Field(default=0.01, ge=0)
    """Weight of the correlation loss; with 0 there is no correlation subnet (DeepMP),
    and nothing is drawn."""
    task: str | None = None
    """The binary task whose label matching is trained on, and whose positive rows are
    what a user clicked; the first binary one where absent."""
    item: str | None = None
    """The feature that names the item, by which negatives are counted; the item side's
    only categorical one where absent."""
    matching_units: tuple[int, ...] = Field(default=(512, 256), min_length=1)
    """Widths of both matching networks; the last is the width of the inner product."""
    correlation_units: tuple[int, ...] = Field(default=(512, 256), min_length=1)
    """Widths of the correlation network; likewise."""
    window: int = Field(default=5, ge=1)
    """A context item is one of so many that the user clicked before the target, or
    after it."""
    negatives: int = Field(default=4, ge=1)
    """Negative items of a pair."""
    negative_power: float = Field(default=0.75, ge=0)
    """An item is a negative in proportion to its clicks to this power."""


class _Input(NamedTuple):
    """The embedded batch, and the columns it was made of."""

    embedded: Embedded
    features: Mapping[str, Any]


class DeepMCP(MultiTaskModel):
    """Deep matching, correlation and prediction; the last alone is served.

    Prediction:   s_p = MLP(all fields),                  L_p = BCE(y, sigmoid(s_p))
    Matching:     v_u = MLP_u(user and query fields),     v_a = MLP_a(item fields)
                  s_m = v_u . v_a,                        L_m = BCE(y, sigmoid(s_m))
    Correlation:  m(.) = MLP_c(item fields), one network for the target t, its context
                  item c and Q negatives n_q
                  L_c = mean over pairs of
                        -log sigmoid(m_t . m_c) - sum_q log sigmoid(-m_t . m_q)
    L = L_p + alpha L_m + beta L_c

    MLP_u, MLP_a and MLP_c end in tanh and share with prediction the embeddings alone.
    The target is a row with a click; its context is an item that the same user clicked
    at most `window` clicks before or after. Weights, widths and Q are those of the
    authors' code; `window` and `negative_power` are unconfirmed (word2vec's values).

    Several tasks share the layers `units`; one task with no `tower_units` is the
    paper's. Each clicked row has one context item, drawn anew in every epoch, where the
    paper lists all pairs in batches of their own: users weigh alike, whatever their
    windows hold. A negative may by chance be the target. A cross of a user's and an
    item's feature is in the prediction only; in matching, a sequence that attends to
    the item is pooled by its mean. MLP_c reads the target, too, without the dropouts of
    the embeddings. The scenario's embedding counts as a query field.
    """

    Config = DeepMCPConfig
    citation = (
        "W. Ouyang et al., Representation Learning-Assisted Click-Through Rate "
        "Prediction, IJCAI 2019"
    )
    config: DeepMCPConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, dataset = self.config, self.manifest.dataset
        helped = config.alpha > 0 or config.beta > 0
        self.task = _task(dataset, config.task) if helped else None
        self.item_features = _item_features(dataset) if helped else ()
        self._drawn = self.samples(self.manifest, config)
        self.trunk = StackedMLP(
            1,
            config.units,
            seed=self.seed_for("trunk"),
            dropout=config.dropout,
            name="trunk",
        )
        self.towers = self.make_towers()
        if config.alpha:
            self.matching_user = self._encoder("matching_user", config.matching_units)
            self.matching_item = self._encoder("matching_item", config.matching_units)
        if config.beta:
            self.correlation = self._encoder("correlation", config.correlation_units)
        self._correlation_loss: Any = None

    @classmethod
    def samples(cls, manifest: DatasetManifest, config: Any) -> SampleSpec | None:
        if not config.beta:
            return None
        dataset = manifest.dataset
        return SampleSpec(
            task=_task(dataset, config.task),
            columns=_item_columns(manifest),
            item=id_feature(dataset, "item", config.item, "item"),
            window=config.window,
            negatives=config.negatives,
            power=config.negative_power,
        )

    def embed(self, features: Mapping[str, Any], training: bool) -> _Input:
        self._correlation_loss = tf.zeros([])
        x: Embedded = self.embedding(features, training=training)
        self.keep_for_inspection(**x.inspect)
        return _Input(x, features)

    def represent(self, x: Any, training: bool) -> Any:
        shared = self.trunk(x.embedded.flat, training=training)[:, 0]  # [B, H]
        self.keep_for_cut(shared)
        return shared

    def training_outputs(self, x: _Input, outputs: Mapping[str, Any]) -> dict[str, Any]:
        if self.config.beta:
            self._correlation_loss = self._correlate(x.features)
        return {_MATCHING: self._match(x.embedded)} if self.config.alpha else {}

    def extra_losses(self) -> dict[str, ExtraLoss]:
        if not self.config.alpha:
            return {}
        assert self.task is not None
        return {_MATCHING: ExtraLoss(self.task, self.config.alpha)}

    def aux_losses(self) -> dict[str, Any]:
        if not self.config.beta:
            return {}
        return {"correlation": self.config.beta * self._correlation_loss}

    def _match(self, x: Embedded) -> Any:
        """s_m, [B]."""
        user, item = self.match(x)
        products = tf.cast(user, tf.float32) * tf.cast(item, tf.float32)
        return tf.reduce_sum(products, axis=1)

    def match(self, x: Embedded) -> tuple[Any, Any]:
        """v_u and v_a of a training batch, [B, k] each."""
        dataset = self.manifest.dataset
        sides = features_by_side(dataset, without=mixed_crosses(dataset))
        items = set(sides["item"])
        blind = {
            f.name: masked_mean(*x.sequences[f.name])
            for f in dataset.features
            if isinstance(f, SequenceFeature)
            and f.pooling == "attention"
            and f.query in items
        }
        x_user = x._replace(features={**x.features, **blind})
        user = side_by_side(x_user, (*sides["user"], *sides["context"]), scenario=True)
        if user is None:
            raise ConfigError(
                "DeepMCP's matching needs features of side `user` or `context`. "
                "Received: none; set `model.config.alpha: 0` to do without"
            )
        item = x.of(self.item_features)
        return (
            self.matching_user(user, training=True),
            self.matching_item(item, training=True),
        )

    def _correlate(self, features: Mapping[str, Any]) -> Any:
        """L_c, 0 where nothing was drawn."""
        assert self._drawn is not None
        names = self._drawn.columns
        if "context/mask" not in features:
            # Such a batch only creates the variables.
            self.encode_items({n: features[n] for n in names})
            return tf.zeros([])
        pairs = tf.where(features["context/mask"])[:, 0]  # [P]
        count, width = tf.size(pairs), 2 + self._drawn.negatives
        items = {}
        for name in names:
            parts = [features[name][:, None], features[f"context/{name}"][:, None]]
            parts.append(features[f"negative/{name}"])
            picked = tf.concat([tf.gather(p, pairs) for p in parts], axis=1)
            shape = [count * width, *picked.shape[2:]]
            items[name] = tf.reshape(picked, shape)  # [P * (2 + Q), ...]
        encoded = self.encode_items(items)
        encoded = tf.reshape(encoded, [count, width, encoded.shape[-1]])
        return correlation_loss(encoded)

    def encode_items(self, items: Mapping[str, Any]) -> Any:
        """m(.) of items by their record columns: [N, ...] -> [N, k]."""
        x = self.embedding(dict(items), only=self.item_features)
        return self.correlation(x.of(self.item_features), training=True)

    def _encoder(self, name: str, units: tuple[int, ...]) -> TanhEncoder:
        return TanhEncoder(
            units, seed=self.seed_for(name), dropout=self.config.dropout, name=name
        )


_MATCHING = "matching/logit"


def correlation_loss(encoded: Any) -> Any:
    """Skip-gram with negatives, summed over them, and averaged over pairs.

    Args:
        encoded: [P, 2 + Q, k], target, context and negatives of each pair.

    Returns:
        Scalar float32; 0 where P is 0.
    """
    encoded = tf.cast(encoded, tf.float32)
    target, others = encoded[:, 0], encoded[:, 1:]
    logits = tf.einsum("pk,pqk->pq", target, others)  # [P, 1 + Q]
    labels = tf.one_hot(tf.zeros_like(logits[:, 0], tf.int32), logits.shape[1])
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
    pairs = tf.cast(tf.shape(losses)[0], tf.float32)
    return tf.reduce_sum(losses) / tf.maximum(pairs, 1.0)


def _task(dataset: DatasetSpec, chosen: str | None) -> str:
    legal = [t.name for t in dataset.tasks if t.type == "binary" and t.width == 1]
    if chosen is None and legal:
        return legal[0]
    if chosen is None or chosen not in legal:
        raise ConfigError(
            "`model.config.task` must name a binary task, whose positive rows are "
            f"clicks. Received: {chosen!r}; binary tasks: {legal}"
        )
    return chosen


def _item_features(dataset: DatasetSpec) -> tuple[str, ...]:
    """What describes an item by itself, and has a vector."""
    names = features_by_side(dataset, without=mixed_crosses(dataset))["item"]
    by_name = {f.name: f for f in dataset.features}
    found = tuple(n for n in names if _has_vector(by_name[n], names))
    if not found:
        raise ConfigError(
            "DeepMCP needs features of side `item` that have a vector. Received: "
            f"{list(names)}"
        )
    return found


def _has_vector(feature: Any, names: tuple[str, ...]) -> bool:
    if not isinstance(feature, SequenceFeature):
        return True
    if feature.pooling == "attention":
        return feature.query in names
    return feature.pooling != "none"


def _item_columns(manifest: DatasetManifest) -> tuple[str, ...]:
    """Record columns that the features of an item are made of."""
    dataset = manifest.dataset
    names = _item_features(dataset)
    features = [f for f in dataset.features if f.name in names]
    columns = [c for cs in columns_of(manifest, features).values() for c in cs]
    columns += [
        dataset.side_tables[f.table].feature
        for f in features
        if isinstance(f, VectorFeature) and f.table is not None
    ]
    return tuple(dict.fromkeys(columns))
