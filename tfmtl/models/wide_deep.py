"""Wide & Deep: a linear model and a network, trained as one.

H.-T. Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.wide import make_wide


class WideDeepConfig(ModelConfig):
    """Settings of Wide & Deep."""

    deep_units: tuple[int, ...] = Field(default=(1024, 512, 128), min_length=1)
    """Widths of the network that all tasks share."""
    tower_units: tuple[int, ...] = ()
    """Widths of each task's hidden layers above it; the paper has one task and none."""
    wide_features: tuple[str, ...] | None = None
    """What the linear part reads; all features where absent."""


class _Views(NamedTuple):
    """The same batch as each part sees it: the network's input, the linear logits."""

    deep: Embedded
    wide: list[Any]


class WideDeep(MultiTaskModel):
    """Sum of a linear model's and a network's logits.

    s_t = w_wide,t . [x, phi(x)] + w_deep,t . a(x) + b_t

    x are ids and numbers, phi the cross features, a the last layer of a ReLU network on
    the embedded features without the crosses. The two parts share no table. One loss
    trains both; the paper's optimizers are FTRL with L1 for the linear part and AdaGrad
    for the network: `embedding/wide: {class: Ftrl, l1: ...}` and `default: {class:
    Adagrad}`. The linear weights of numbers are in `task/*`.
    """

    Config = WideDeepConfig
    citation = (
        "H.-T. Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016"
    )
    config: WideDeepConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        features = self.manifest.dataset.features
        crosses = [f.name for f in features if f.kind == "cross"]
        self.embedding = self.make_embedding("embedding", exclude=crosses)
        self.wide = make_wide(self, self.config.wide_features, bias=False)
        self.deep = StackedMLP(
            1,
            self.config.deep_units,
            seed=self.seed_for("deep"),
            dropout=self.config.dropout,
            name="deep",
        )
        self.towers = self.make_towers()

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        deep = self.embedding(features, training=training)
        self.keep_for_inspection(**deep.inspect)
        return _Views(deep, self.wide(features, training=training))

    def represent(self, x: Embedded, training: bool) -> Any:
        last = self.deep(x.flat, training=training)[:, 0]  # [B, H]
        self.keep_for_cut(last)
        return last

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        network = super().logits(x.deep, training)
        return {
            output: network[output] + wide
            for output, wide in zip((t.conditional for t in self.tasks), x.wide)
        }
