"""STAR: one network for all scenarios, each multiplying it by leaves of its own.

X.-R. Sheng, L. Zhao, G. Zhou, X. Ding, B. Dai, Q. Luo, S. Yang, J. Lv, C. Zhang,
H. Deng, X. Zhu, "One Model to Serve All: Star Topology Adaptive Recommender for
Multi-Domain CTR Prediction", CIKM 2021, arXiv 2101.11427.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.partitioned_norm import PartitionedNorm
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.star import Leaf, Path, StarMLP
from tfmtl.layers.star_towers import StarTowers
from tfmtl.layers.towers import Towers
from tfmtl.models.base import ModelConfig, MultiTaskModel


class STARConfig(ModelConfig):
    """Settings of STAR."""

    star_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of the star layers that all tasks share."""
    leaf: Leaf = "full"
    """`full`: a scenario's factor has the kernel's shape; `rank1`: it is the product of
    a factor for each input and one for each output."""
    path: Path = "tiles"
    """How rows meet full kernels: sorted by scenario, or each with all scenarios'
    kernels, which costs S times as much and can win for few and narrow ones."""
    leaf_l2: float = Field(default=0.0, ge=0)
    """Weight of the sum of (W_p - 1)^2 in the loss: leaves are pulled towards no
    change."""
    auxiliary_features: tuple[str, ...] = ()
    """Features that describe the scenario: read by the auxiliary network beside the
    scenario's embedding, and by the main network like all others."""
    auxiliary_units: tuple[int, ...] = Field(default=(16,), min_length=1)
    """Widths of the auxiliary network's hidden layers."""
    norm_rho: float = Field(default=0.99, gt=0, lt=1)
    """What the moving moments keep of themselves at an average update."""
    norm_epsilon: float = Field(default=1e-3, gt=0)
    """Added to the variances of the normalisation."""
    norm_min_rows: int = Field(default=2, ge=1)
    """Rows of a scenario in a batch from which on its moments are used."""


class STAR(MultiTaskModel):
    """Star topology adaptive recommender, for any number of tasks.

    z'    = (gamma * gamma_p) * (z - mu_p) / sqrt(v_p + eps) + (beta + beta_p)
            partitioned normalisation of the embedded input, p the row's scenario
    W*_p  = W * W_p,   b*_p = b + b_p,   h = ReLU(W*_p^T h + b*_p)     star layers
    s_t   = m_t(h) + a_t([e_p ; c])
            m_t star layers, the last one linear; a_t the auxiliary network, which reads
            the scenario's embedding e_p and features c that describe the scenario

    The paper has one task. Here tasks share the first star layers and the auxiliary
    network's hidden layers; task t adds `tower_units` and its output as star layers
    whose centre is its own, and whose leaves belong to scenario and task. One task is
    the paper's network of all these layers. There is no loss on a_t alone.

    An unknown scenario is the shared centre: W, b, gamma, beta, the moments of all
    rows, and the mean of the scenarios' embeddings.

    The start is unconfirmed: gamma = gamma_p = 1, W_p = 1, all beta and b_p = 0, so
    that all scenarios start as one network. W is drawn as everywhere in this package.
    Deviations: batches mix scenarios, where the paper's hold one each; the main network
    does not read e_p, a constant within a scenario, which normalising would blow up.
    Public code differs: moments of the whole batch for every scenario and none kept for
    serving, ReLU and BatchNorm on the logit, two random factors, gamma + gamma_p, the
    input instead of e_p in the auxiliary network, NaN from scenarios that are absent.
    """

    Config = STARConfig
    citation = (
        "X.-R. Sheng et al., One Model to Serve All: Star Topology Adaptive "
        "Recommender for Multi-Domain CTR Prediction, CIKM 2021"
    )
    config: STARConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, scenarios = self.config, self.manifest.dataset.scenario_values
        if not scenarios:
            raise ConfigError("STAR needs `dataset.scenario`. Received: none")
        self._check_auxiliary_features()
        self.norm = PartitionedNorm(
            scenarios,
            config.norm_rho,
            config.norm_epsilon,
            config.norm_min_rows,
            name="norm",
        )
        star: dict[str, Any] = {
            "dropout": config.dropout,
            "leaf": config.leaf,
            "path": config.path,
        }
        self.star = StarMLP(
            scenarios,
            config.star_units,
            seed=self.seed_for("star"),
            name="star",
            **star,
        )
        outputs = [t.width for t in self.tasks]
        self.towers = StarTowers(
            scenarios,
            [t.name for t in self.tasks],
            config.tower_units,
            outputs,
            seed=self.seed_for("towers"),
            initial_bias=[self.initial_output(t) for t in self.tasks],
            name="towers",
            **star,
        )
        self.auxiliary = StackedMLP(
            1,
            config.auxiliary_units,
            seed=self.seed_for("auxiliary"),
            dropout=config.dropout,
            name="auxiliary",
        )
        self.auxiliary_towers = Towers(
            [f"task/{t.name}" for t in self.tasks],
            (),
            outputs,
            seed=self.seed_for("auxiliary_towers"),
            name="auxiliary_towers",
        )

    def _check_auxiliary_features(self) -> None:
        legal = [
            f.name
            for f in self.manifest.dataset.features
            if not (f.kind == "sequence" and f.pooling == "none")
        ]
        wrong = sorted({*self.config.auxiliary_features} - {*legal})
        if wrong:
            raise ConfigError(
                "`model.config.auxiliary_features` must name features with a vector. "
                f"Received: {wrong}; there are {legal}"
            )

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        main, auxiliary = self._main(x, training), self._auxiliary(x, training)
        return {t.conditional: main[i] + auxiliary[i] for i, t in enumerate(self.tasks)}

    def _main(self, x: Embedded, training: bool) -> list[Any]:
        """Partitioned normalisation and star layers: T logits, [B] or [B, C]."""
        count = len(self.norm.scenarios)
        scenario = tf.minimum(x.scenario, count)
        # The scenario's embedding comes last in the flat input.
        own = x.flat[:, : -x.scenario_vector.shape[1]]  # [B, D]
        hidden, tiles = self.norm(own, scenario, training=training), None
        if self.star.layers[0].tiled:
            tiles = tile_rows(scenario, count + 1)
            hidden = to_tiles(hidden, tiles)
        hidden = self.star(hidden, scenario, tiles, training=training)
        self.keep_for_cut(hidden)
        logits = self.towers(hidden, scenario, tiles, training=training)
        if tiles is not None:
            logits = [from_tiles(s, tiles) for s in logits]
        logits = [tf.cast(s, tf.float32) for s in logits]
        return [s if t.width > 1 else s[:, 0] for s, t in zip(logits, self.tasks)]

    def _auxiliary(self, x: Embedded, training: bool) -> list[Any]:
        """The auxiliary network: T logits, [B] or [B, C]."""
        inputs = x.scenario_vector
        if self.config.auxiliary_features:
            more = x.of(self.config.auxiliary_features)
            inputs = tf.concat([inputs, more], axis=1)
        hidden = self.auxiliary(inputs, training=training)[:, 0]  # [B, H]
        self.keep_for_cut(hidden)
        logits: list[Any] = self.auxiliary_towers(hidden, training=training)
        return logits

    def aux_losses(self) -> dict[str, Any]:
        if not self.config.leaf_l2:
            return {}
        penalty = self.star.leaf_penalty() + self.towers.leaf_penalty()
        return {"leaf_l2": self.config.leaf_l2 * penalty}
