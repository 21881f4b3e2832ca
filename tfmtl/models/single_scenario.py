"""SingleScenario: one whole network per task and scenario, the other control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.grouped import CellDense, Tiles, from_tiles, tile_rows, to_tiles
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SingleScenarioConfig(ModelConfig):
    """Settings of SingleScenario."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each network below its tower."""


class _Pairs(NamedTuple):
    """Rows matched with the scenarios whose networks read them: N >= B pairs.

    Attributes:
        flat: [N, T, D].
        row: [N] int32, the row of each pair.
        tiles: Where the pairs lie.
        unknown: [B] bool.
    """

    flat: Any
    row: Any
    tiles: Tiles
    unknown: Any


class SingleScenario(MultiTaskModel):
    """S x T networks that share nothing, embeddings included.

    s_t = h_{p,t}(f_{p,t}(x_{p,t})),   p the row's scenario

    A row of an unknown scenario gets the mean logit of all S networks, and trains none.
    """

    Config = SingleScenarioConfig
    citation = "control: independent networks, one per task and scenario"
    config: SingleScenarioConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scenarios = self.manifest.dataset.scenario_values
        wrong = [t.name for t in self.tasks if t.classes]
        if not self.scenarios or wrong:
            raise ConfigError(
                "SingleScenario needs `dataset.scenario` and no multiclass task. "
                f"Received: scenarios {list(self.scenarios)}, multiclass {wrong}"
            )
        self.embedding = None
        self.embeddings = [
            self.make_embedding(f"embedding_{t.name}", partitions=len(self.scenarios))
            for t in self.tasks
        ]
        names = [t.name for t in self.tasks]
        widths = [*self.config.units, *self.config.tower_units]
        self.cells = [
            CellDense(
                self.scenarios,
                names,
                width,
                "relu",
                seed=self.seed_for("cells", i),
                name=f"cells_{i}",
            )
            for i, width in enumerate(widths)
        ]
        self.dropouts = [
            Dropout(
                self.config.dropout, self.seed_for("dropout", i), name=f"dropout_{i}"
            )
            for i in range(len(widths))
        ]
        bias = [[self.initial_bias(t, s) for t in self.tasks] for s in self.scenarios]
        self.heads = CellDense(
            self.scenarios,
            names,
            1,
            seed=self.seed_for("heads"),
            initial_bias=bias,
            name="heads",
        )

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        count = len(self.scenarios)
        scenario = tf.cast(features["scenario"], tf.int32)
        unknown = scenario >= count  # [B]
        wanted = tf.one_hot(scenario, count, True, False, dtype=tf.bool)
        pairs = tf.cast(
            tf.where(tf.transpose(wanted | unknown[:, None])), tf.int32
        )  # [N, 2]: scenario, row
        network, row = pairs[:, 0], pairs[:, 1]
        gathered = {k: tf.gather(v, row) for k, v in features.items()}
        # An unknown scenario's row looks to each network like one of its own.
        gathered["scenario"] = network
        flat = tf.stack(
            [
                e(gathered, training=training, partition=network).flat
                for e in self.embeddings
            ],
            axis=1,
        )
        return _Pairs(flat, row, tile_rows(network, count), unknown)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        hidden = to_tiles(x.flat, x.tiles)  # [K, R, T, D]
        for layer, dropout in zip(self.cells, self.dropouts):
            hidden = dropout(layer(hidden, x.tiles.scenario), training=training)
        tiled = self.heads(hidden, x.tiles.scenario)  # [K, R, T, 1]
        pairs = tf.cast(from_tiles(tiled, x.tiles)[..., 0], tf.float32)  # [N, T]
        rows = tf.math.unsorted_segment_mean(pairs, x.row, tf.size(x.unknown))
        rows = tf.where(x.unknown[:, None], tf.stop_gradient(rows), rows)  # [B, T]
        return {t.conditional: rows[:, i] for i, t in enumerate(self.tasks)}
