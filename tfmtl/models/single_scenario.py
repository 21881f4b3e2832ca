"""SingleScenario: one whole network per task and scenario, the other control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.grouped import CellDense, from_tiles, tile_rows, to_tiles
from tfmtl.layers.pairs import Pairs, pair_rows
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SingleScenarioConfig(ModelConfig):
    """Settings of SingleScenario."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each network below its tower."""


class _Input(NamedTuple):
    """What the networks read.

    Attributes:
        flat: [N, T, D], for each pair of a row and a scenario.
        pairs: The pairs.
    """

    flat: Any
    pairs: Pairs


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
        pairs = pair_rows(features["scenario"], len(self.scenarios))
        gathered = pairs.features(features)
        flat = tf.stack(
            [
                e(gathered, training=training, partition=pairs.scenario).flat
                for e in self.embeddings
            ],
            axis=1,
        )
        return _Input(flat, pairs)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        tiles = tile_rows(x.pairs.scenario, len(self.scenarios))
        hidden = to_tiles(x.flat, tiles)  # [K, R, T, D]
        for layer, dropout in zip(self.cells, self.dropouts):
            hidden = dropout(layer(hidden, tiles.scenario), training=training)
        tiled = self.heads(hidden, tiles.scenario)  # [K, R, T, 1]
        pairs = tf.cast(from_tiles(tiled, tiles)[..., 0], tf.float32)  # [N, T]
        rows = x.pairs.answers(pairs)  # [B, T]
        return {t.conditional: rows[:, i] for i, t in enumerate(self.tasks)}
