"""Wide: logistic regression on ids, numbers and crosses.

The wide part alone of H.-T. Cheng et al., "Wide & Deep Learning for Recommender
Systems", DLRS 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tfmtl.errors import ConfigError
from tfmtl.layers.wide import WideLinear
from tfmtl.models.base import ModelConfig, MultiTaskModel


class WideConfig(ModelConfig):
    """Settings of Wide."""

    interaction: Literal["none"] = "none"
    """Not for a linear model: cross features say which pairs count."""
    tower_units: tuple[()] = ()
    """A linear model has no hidden layers."""
    dropout: float = Field(default=0.0, ge=0, le=0)
    """A linear model has no hidden layers to drop from; `regularization.id_dropout` and
    `feature_dropout` act."""
    wide_features: tuple[str, ...] | None = None
    """What it reads; all features where absent."""


class Wide(MultiTaskModel):
    """Linear model of ids, numbers and crosses, one for each task.

    s_t = w_t . [x, phi(x)] + b_t,   phi_k(x) = prod_i x_i^{c_ki}

    phi are the cross features: 1 where all parts are (hashed), else 0. The paper's
    optimizer is FTRL with L1: `optimizers: {default: {class: Ftrl, l1: ...}}`.
    """

    Config = WideConfig
    citation = (
        "H.-T. Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016 "
        "(the wide part)"
    )
    config: WideConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.embedding = None
        self.wide = make_wide(self, self.config.wide_features, bias=True)

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        return self.wide(features, training=training)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        return {t.conditional: logit for t, logit in zip(self.tasks, x)}


def make_wide(
    model: MultiTaskModel, features: tuple[str, ...] | None, bias: bool
) -> WideLinear:
    """The linear part of a model.

    Args:
        model: Has tasks and a data set.
        features: What is read; all where None.
        bias: Whether it has biases, started at the base rates.

    Raises:
        ConfigError: A feature is unknown.
    """
    names = [f.name for f in model.manifest.dataset.features]
    read = names if features is None else list(features)
    unknown = sorted(set(read) - set(names))
    if unknown or not read:
        raise ConfigError(
            f"`model.config.wide_features` must hold names out of {names}, at least "
            f"one. Received: {read}"
        )
    return WideLinear(
        model.manifest,
        model.regularization,
        [f"task/{t.name}" for t in model.tasks],
        [t.width for t in model.tasks],
        seed=model.seed_for("wide"),
        exclude=[n for n in names if n not in read],
        side_tables=model.side_tables,
        initial_bias=[model.initial_output(t) for t in model.tasks] if bias else None,
        name="wide",
    )
