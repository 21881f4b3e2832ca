"""DUPN: one user representation from the behaviour sequence, for many tasks.

Y. Ni, D. Ou, S. Liu, X. Li, W. Ou, A. Zeng, L. Si, "Perceive Your Users in Depth:
Learning Universal User Representations from Multiple E-commerce Tasks", KDD 2018.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.attention import ContextAttention
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.property_lstm import PropertyGatedLSTM
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.behaviour import BehaviourConfig, BehaviourModel, side_by_side
from tfmtl.schema.feature import VectorFeature


class DUPNConfig(BehaviourConfig):
    """Settings of DUPN."""

    properties: Literal["all", "bplstm", "bpatt", "nobp"] = "all"
    """Where a behaviour's property acts: everywhere, in the LSTM's gates alone, in the
    attention alone, nowhere."""
    item_columns: tuple[str, ...] | None = None
    """Columns of the sequence that say what was acted on; where absent, those of a
    vocabulary that an item-side feature has too, or else the first."""
    property_columns: tuple[str, ...] | None = None
    """Columns that say how: the kind of act, its age, the page; the rest where
    absent."""
    lstm_units: int = Field(default=128, ge=1)
    """Width of the LSTM's state."""
    attention_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of the attention's hidden layers."""
    item_vectors: str | None = None
    """The ablation `w2v`: a vector feature of a side table (word2vec over the users'
    sequences), read instead of learning a table for its key, in the sequence and in the
    heads."""


class DUPN(BehaviourModel):
    """Deep user perception network.

    h_t   = PropertyGatedLSTM(e_t, p_t)            p_t in the gates only
    a     = softmax_t(MLP([h_t; p_t; q; u]))       ReLU layers 128, 64, then a score
    rep   = [sum_t a_t h_t; u]                     for all tasks
    heads   ctr: MLP([rep; item]), ppp: MLP(rep),
            l2r: ReLU(MLP(rep)) . ranking features

    e_t are the item columns of step t, p_t its property columns, u a ReLU layer on the
    user's profile and q the features of the request.

    Ablations: `properties: nobp | bplstm | bpatt`, and `item_vectors` for w2v.

    Deviations: u also reads the scenario, which the paper does not have; q is the
    features' embeddings side by side. The paper's dropout "rate 0.8" is read as what is
    kept: `dropout: 0.2`. The paper's widths of e_t and p_t (124, 48) are the data set's
    affair.
    """

    Config = DUPNConfig
    citation = (
        "Y. Ni et al., Perceive Your Users in Depth: Learning Universal User "
        "Representations from Multiple E-commerce Tasks, KDD 2018"
    )
    config: DUPNConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.item_columns, self.property_columns = self._columns()
        vectors = self._vectors()
        sequence = self.roles.sequence
        read = {
            sequence.columns[0].name,  # it says how long the history is
            *self.item_columns,
            *self.property_columns,
        }
        columns = tuple(c for c in sequence.columns if c.name in read)
        self._widths = {c.name: vectors.get(c.name, c.dim) for c in columns}
        self.embedding = self.read(
            sequence.model_copy(update={"columns": columns}),
            keep=[config.item_vectors] if config.item_vectors else [],
            vectors={f"{sequence.name}_{c}": config.item_vectors for c in vectors},
        )
        self.profile = StackedMLP(
            1,
            [config.user_units],
            seed=self.seed_for("profile"),
            dropout=config.dropout,
            name="profile",
        )
        self.lstm = PropertyGatedLSTM(
            config.lstm_units, seed=self.seed_for("lstm"), name="lstm"
        )
        self.attention = ContextAttention(
            config.attention_units,
            seed=self.seed_for("attention"),
            dropout=config.dropout,
            name="attention",
        )

    def represent(self, x: Embedded, training: bool) -> Any:
        name, where = self.roles.sequence.name, self.config.properties
        items, properties, mask = self._steps(x)  # [B, L, e], [B, L, p], [B, L]
        profile = side_by_side(x, self.roles.user, scenario=True)
        query = side_by_side(x, self.roles.query)
        user = None
        if profile is not None:
            user = self.profile(profile, training=training)[:, 0]  # [B, U]

        gated = (items, properties) if where in ("all", "bplstm") else items
        hidden = self.lstm(gated, mask=mask)  # [B, L, H]

        steps = hidden
        if where in ("all", "bpatt"):
            steps = tf.concat([hidden, properties], axis=2)
        context = [part for part in (query, user) if part is not None]
        scored = (steps, tf.concat(context, axis=1)) if context else steps
        pooled, weights = self.attention(scored, hidden, mask, training=training)
        self.keep_for_inspection(**{f"{name}/attention": weights})
        return pooled if user is None else tf.concat([pooled, user], axis=1)

    def _steps(self, x: Embedded) -> tuple[Any, Any, Any]:
        """Items [B, L, e], properties [B, L, p] or None, and mask [B, L]."""
        values, mask = x.sequences[self.roles.sequence.name]
        split = tf.split(values, list(self._widths.values()), axis=2)
        of = dict(zip(self._widths, split))
        items = tf.concat([of[c] for c in self.item_columns], axis=2)
        if not self.property_columns:
            return items, None, mask
        return items, tf.concat([of[c] for c in self.property_columns], axis=2), mask

    def left_out(self) -> tuple[str, ...]:
        """The feature whose learnt table `item_vectors` replaces."""
        if self.config.item_vectors is None:
            return ()
        dataset = self.manifest.dataset
        tables = {
            f.name: f.table
            for f in dataset.features
            if isinstance(f, VectorFeature) and f.table is not None
        }
        table = tables.get(self.config.item_vectors)
        if table is None:
            raise ConfigError(
                "`model.config.item_vectors` must name a vector feature with a side "
                f"table. Received: {self.config.item_vectors!r}; there are: "
                f"{sorted(tables)}"
            )
        return (dataset.side_tables[table].feature,)

    def _columns(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Item columns, and property columns (none where they act nowhere)."""
        config, sequence = self.config, self.roles.sequence
        names = [c.name for c in sequence.columns]
        items, properties = config.item_columns, config.property_columns
        if items is None:
            items = self._columns_of_items() or tuple(names[:1])
        if properties is None:
            properties = tuple(n for n in names if n not in items)
        wrong = {*items, *properties} - {*names} or {*items} & {*properties}
        if wrong or not items:
            raise ConfigError(
                "`model.config.item_columns` (at least one) and `property_columns` "
                f"must be columns of {sequence.name!r}, none in both. Received: "
                f"{list(items)} and {list(properties)}; columns: {names}"
            )
        if config.properties == "nobp":
            return items, ()
        if not properties:
            raise ConfigError(
                f"`model.config.properties: {config.properties}` needs property "
                f"columns beside {list(items)} in {sequence.name!r}, whose columns are "
                f"{names}; `nobp` needs none"
            )
        return items, properties

    def _columns_of_items(self) -> tuple[str, ...]:
        """Columns of a vocabulary that a feature of the item has too."""
        sequence = self.roles.sequence
        of_items = set(self.features_of_side("item"))
        known = {c.vocabulary for c in self.manifest.columns if c.name in of_items}
        known.discard(None)
        return tuple(
            c.name for c in sequence.columns if self._vocabulary(c.name) in known
        )

    def _vocabulary(self, column: str) -> str | None:
        name = f"{self.roles.sequence.name}_{column}"
        return self.manifest.column(name).vocabulary

    def _vectors(self) -> dict[str, int]:
        """Item column to the width of the vectors that it is read from, if any."""
        if self.config.item_vectors is None:
            return {}
        (key,) = self.left_out()
        vocabulary = self.manifest.column(key).vocabulary
        columns = [c for c in self.item_columns if self._vocabulary(c) == vocabulary]
        if not columns:
            raise ConfigError(
                f"`model.config.item_vectors` are vectors of {key!r}, so that an item "
                f"column must have its vocabulary {vocabulary!r}. Received: "
                f"{ {c: self._vocabulary(c) for c in self.item_columns} }"
            )
        features = {f.name: f for f in self.manifest.dataset.features}
        vector = features[self.config.item_vectors]
        assert isinstance(vector, VectorFeature)
        return dict.fromkeys(columns, vector.size)
