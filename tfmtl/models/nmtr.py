"""NMTR: behaviours in cascade, each score built on the one before.

C. Gao, X. He, D. Gan, X. Chen, F. Feng, Y. Li, T.-S. Chua, D. Jin, "Neural Multi-Task
Recommendation from Multi-Behavior Data", ICDE 2019; long version "Learning to Recommend
with Multiple Cascading Behaviors", TKDE 2019, arXiv 1809.08161.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import model_validator

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.bias_table import BiasTable
from tfmtl.layers.cascade import cascade
from tfmtl.layers.towers import Towers
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.joint_loss import joint_only


class NMTRConfig(ModelConfig):
    """Settings of NMTR."""

    order: tuple[str, ...] | None = None
    """All tasks from the first behaviour to the target one; as listed where absent."""
    user: str | None = None
    """The feature that names the user; the user side's only categorical one where
    absent."""
    item: str | None = None
    """The feature that names the item, likewise."""
    kind: Literal["gmf", "mlp", "neumf"] = "neumf"
    """What each behaviour's network reads: the product of the two vectors, both side by
    side, or all of that."""
    tower_units: tuple[int, ...] = (64,)
    """Widths of each behaviour's hidden layers; exactly one for `gmf`."""
    cascade: Literal["sum", "mean"] = "sum"
    """Add the score before, as in the paper, or average with it, as in its code."""
    item_bias: bool = True
    """Add a bias of the item: its own for each behaviour in `sum`, one in `mean`."""
    interaction: Literal["none"] = "none"
    """Only the user's and the item's vectors are read, by `kind`."""
    given_loss: Annotated[
        Literal["joint"],
        joint_only("the model estimates each behaviour over all rows"),
    ] = "joint"
    """`buy` over all rows."""

    @model_validator(mode="after")
    def _one_layer(self) -> NMTRConfig:
        if self.kind == "gmf" and len(self.tower_units) != 1:
            raise ValueError(
                "`tower_units` must be one width for `kind: gmf`. "
                f"Received: {self.tower_units}"
            )
        return self


class _Pair(NamedTuple):
    """A batch's users and items: vectors [B, d], and the items' ids [B]."""

    user: Any
    item: Any
    item_id: Any


class NMTR(MultiTaskModel):
    """Neural multi-task recommendation.

    p_u, q_i    embeddings that all behaviours share
    f^r = h_r . MLP_r(c),   r = 1 .. R behaviours in order
      gmf    c = p_u * q_i, one layer
      mlp    c = [p_u; q_i]
      neumf  c = [p_u; q_i; p_u * q_i]
    s^1 = f^1 + b_i^1
    s^r = f^r + s^{r-1} + b_i^r              `cascade: sum`, the paper's (unconfirmed)
    s^r = (f^r + s^{r-1}) / 2 + b_i          `cascade: mean`, the authors' code
    y^r = sigmoid(s^r),   L = sum_r lambda_r l(label^r, y^r)

    The loss of a behaviour trains the networks of those before it. lambda_r is the
    balancer's; negatives (4 a positive in the paper) are the data's. Only the two ids
    are read: other features and the scenario are not.

    Deviations: all layers have biases, and those of the outputs start every score at
    its behaviour's base rate. The authors' pairwise branch, whose sign is wrong, is
    left out.
    """

    Config = NMTRConfig
    citation = (
        "C. Gao et al., Neural Multi-Task Recommendation from Multi-Behavior Data, "
        "ICDE 2019"
    )
    config: NMTRConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.order = self._behaviours()
        self.user = self.id_feature("user", config.user, "user")
        self.item = self.id_feature("item", config.item, "item")
        if self.user == self.item:
            raise ConfigError(
                "`model.config.user` and `model.config.item` must name two features. "
                f"Received: {self.user!r} for both"
            )
        self._check_widths()
        features = self.manifest.dataset.features
        others = [f.name for f in features if f.name not in (self.user, self.item)]
        self.embedding = self.make_embedding(
            "embedding", exclude=others, use_scenario=False
        )
        *before, last = self.order
        owners = [*(f"shared/{n}" for n in before), f"task/{last}"]
        self.networks = Towers(
            owners,
            config.tower_units,
            [1] * len(owners),
            seed=self.seed_for("networks"),
            dropout=config.dropout,
            initial_bias=self._initial(),
            name="networks",
        )
        if config.item_bias:
            # One column for all is the target's alone only where nothing precedes it.
            shared = "shared/all" if before else owners[-1]
            rows = self.manifest.column(self.item).rows
            assert rows is not None
            self.popularity = BiasTable(
                owners if config.cascade == "sum" else [shared], rows, name="popularity"
            )

    def _behaviours(self) -> tuple[str, ...]:
        names = [t.name for t in self.tasks]
        kinds = {
            t.name: (t.type, t.fitted.name)
            for t in self.tasks
            if t.type != "binary" or t.width > 1
        }
        if kinds:
            raise ConfigError(
                "NMTR's behaviours must be binary tasks with one output. Received: "
                f"{kinds}"
            )
        order = self.config.order or tuple(names)
        if sorted(order) != sorted(names):
            raise ConfigError(
                "`model.config.order` must name every task once. Received: "
                f"{list(order)}; tasks: {names}"
            )
        return order

    def _check_widths(self) -> None:
        if self.config.kind == "mlp":
            return
        widths = {
            f.name: f.dim
            for f in self.manifest.dataset.features
            if f.kind == "categorical" and f.name in (self.user, self.item)
        }
        if len(set(widths.values())) > 1:
            raise ConfigError(
                f"NMTR with `kind: {self.config.kind}` multiplies the user's and the "
                f"item's vectors: their `dim` must be equal. Received: {widths}"
            )

    def _initial(self) -> list[float]:
        """Biases of f with which every s starts at its behaviour's log-odds."""
        by_name = {t.name: t for t in self.tasks}
        start = [self.initial_joint_bias(by_name[n]) for n in self.order]
        factor = 1 if self.config.cascade == "sum" else 2
        later = [factor * s - above for above, s in itertools.pairwise(start)]
        return [start[0], *later]

    def embed(self, features: Mapping[str, Any], training: bool) -> _Pair:
        fields = self.embedding(features, training=training).fields
        return _Pair(fields[self.user], fields[self.item], features[self.item])

    def represent(self, x: Any, training: bool) -> Any:
        match self.config.kind:
            case "gmf":
                read = x.user * x.item
            case "mlp":
                read = tf.concat([x.user, x.item], axis=1)
            case _:
                read = tf.concat([x.user, x.item, x.user * x.item], axis=1)
        self.keep_for_cut(read)
        return read

    def logits(self, x: _Pair, training: bool) -> dict[str, Any]:
        found = self.networks(self.represent(x, training), training=training)
        bias = tf.zeros_like(found[0])[:, None]
        if self.config.item_bias:
            bias = self.popularity(x.item_id)  # [B, R] or [B, 1]
            self.keep_for_cut(bias)
        self.keep_for_cut(*found[:-1])
        scores = cascade(tf.stack(found, axis=1), bias, self.config.cascade)  # [B, R]
        return dict(zip(self.order, tf.unstack(scores, axis=1)))
