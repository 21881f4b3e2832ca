"""SingleScenario: one whole network per task and scenario, the other control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.pairs import Paired, pair_rows
from tfmtl.layers.scenario_dense import ScenarioDense
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SingleScenarioConfig(ModelConfig):
    """Settings of SingleScenario."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each network below its tower."""


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
        self.scenarios = self.scenarios_of_cells()
        self.embedding = None
        self.embeddings = [
            self.make_embedding(f"embedding_{t.name}", partitions=len(self.scenarios))
            for t in self.tasks
        ]
        names = [t.name for t in self.tasks]
        widths = [*self.config.units, *self.config.tower_units]
        self.cells = [
            ScenarioDense(
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
        self.heads = ScenarioDense(
            self.scenarios,
            names,
            1,
            seed=self.seed_for("heads"),
            initial_bias=self.initial_cell_bias(),
            name="heads",
        )

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        pairs = pair_rows(features["scenario"], len(self.scenarios))
        gathered = pairs.features(features)
        flat = tf.stack(
            [
                e(gathered, training=training, partition=pairs.scenario).flat
                for e in self.embeddings
            ],
            axis=1,
        )
        return Paired(flat, pairs)  # [N, T, D]

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        tiles = tile_rows(x.pairs.scenario, len(self.scenarios))
        hidden = to_tiles(x.inputs, tiles)  # [K, R, T, D]
        for layer, dropout in zip(self.cells, self.dropouts):
            hidden = dropout(layer(hidden, tiles.scenario), training=training)
        tiled = self.heads(hidden, tiles.scenario)  # [K, R, T, 1]
        pairs = tf.cast(from_tiles(tiled, tiles)[..., 0], tf.float32)  # [N, T]
        rows = x.pairs.answers(pairs)  # [B, T]
        return {t.conditional: rows[:, i] for i, t in enumerate(self.tasks)}
