"""Embeddings cut into a shared part and one of each task's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl.errors import ConfigError
from tfmtl.schema.feature import FeatureSpec


class Split(NamedTuple):
    """How to embed.

    Attributes:
        shared: Features with the width of their shared part.
        own: Features with the width of a task's part.
        not_own: Names of the features that have no such part.
    """

    shared: tuple[FeatureSpec, ...]
    own: tuple[FeatureSpec, ...]
    not_own: tuple[str, ...]


def split_tables(features: Sequence[FeatureSpec], tasks: int) -> Split:
    """Cuts each table's width into tasks + 1 parts; the shared one takes what is over.

    Numbers, vectors and tables narrower than that stay shared, and so does a sequence
    whose first column is: the tables' numbers are as many as before.

    Raises:
        ConfigError: Nothing can be cut.
    """
    parts = tasks + 1
    shared: list[FeatureSpec] = []
    own: list[FeatureSpec] = []
    rest: list[str] = []
    for feature in features:
        has_table = feature.kind not in ("vector", "numeric", "sequence") or (
            feature.kind == "numeric" and feature.transform == "bucketize"
        )
        if feature.kind == "sequence" and feature.columns[0].dim >= parts:
            held = [c for c in feature.columns if c.dim >= parts]
            cut = tuple(
                _with_dim(c, c.dim - tasks * (c.dim // parts)) if c in held else c
                for c in feature.columns
            )
            shared.append(feature.model_copy(update={"columns": cut}))
            cut = tuple(_with_dim(c, c.dim // parts) for c in held)
            own.append(feature.model_copy(update={"columns": cut}))
        elif has_table and feature.dim >= parts:  # type: ignore[union-attr]
            dim: int = feature.dim  # type: ignore[union-attr]
            width = dim // parts
            shared.append(_with_dim(feature, dim - tasks * width))
            own.append(_with_dim(feature, width))
        else:
            rest.append(feature.name)
    if not own:
        raise ConfigError(
            "`model.config.task_embeddings` needs a feature whose `dim` is at least "
            f"{parts}, tasks + 1. Received: {[f.name for f in features]}"
        )
    return Split(tuple(shared), tuple(own), tuple(rest))


def _with_dim(spec: Any, dim: int) -> Any:
    return spec.model_copy(update={"dim": dim})
