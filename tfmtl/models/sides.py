"""Which features a model may read of the user and request without knowing the item."""

from __future__ import annotations

from collections.abc import Sequence

from tfmtl.errors import ConfigError
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import (
    CrossFeature,
    FeatureSpec,
    SequenceFeature,
    Side,
    VectorFeature,
)


def features_by_side(
    dataset: DatasetSpec, without: Sequence[str] = ()
) -> dict[Side, tuple[str, ...]]:
    """Side to names of features, by what they are computed from.

    A cross is of the item if one of its parts is, else of the context if one is; the
    vector of a side table is of the side of its key, where that is the item.

    Args:
        dataset: The data.
        without: Names to leave out.
    """
    result: dict[Side, tuple[str, ...]] = {"user": (), "item": (), "context": ()}
    for feature in dataset.features:
        if feature.name not in without:
            side = side_of(dataset, feature)
            result[side] = (*result[side], feature.name)
    return result


def id_feature(dataset: DatasetSpec, side: str, chosen: str | None, where: str) -> str:
    """The categorical feature that names the user or the item.

    Args:
        dataset: The data.
        side: `user` or `item`.
        chosen: The configured name; the side's only categorical feature where None.
        where: The setting, for the message.

    Raises:
        ConfigError: There is no such feature, or more than one to choose from.
    """
    legal = [f.name for f in dataset.features if f.kind == "categorical"]
    of_side = [
        f.name for f in dataset.features if f.kind == "categorical" and f.side == side
    ]
    if chosen is None and len(of_side) == 1:
        return of_side[0]
    if chosen is None or chosen not in legal:
        raise ConfigError(
            f"`model.config.{where}` must name the categorical feature that "
            f"identifies the {side}. Received: {chosen!r}; of that side: "
            f"{of_side}, categorical: {legal}"
        )
    return chosen


def side_of(dataset: DatasetSpec, feature: FeatureSpec) -> Side:
    """What the feature is computed from."""
    declared = {f.name: f.side for f in dataset.features}
    if isinstance(feature, CrossFeature):
        parts = {declared[name] for name in feature.of}
        for side in ("item", "context"):
            if side in parts:
                return side
        return "user"
    if isinstance(feature, VectorFeature) and feature.table is not None:
        key = declared[dataset.side_tables[feature.table].feature]
        return "item" if key == "item" else feature.side
    return feature.side


def pooled_without_items(dataset: DatasetSpec) -> list[FeatureSpec]:
    """Sequences that attend with an item, made to be pooled by their mean instead."""
    declared = {f.name: f.side for f in dataset.features}
    return [
        f.model_copy(update={"pooling": "mean", "query": None})
        for f in dataset.features
        if isinstance(f, SequenceFeature)
        and f.query is not None
        and declared[f.query] == "item"
    ]


def mixed_crosses(dataset: DatasetSpec) -> list[str]:
    """Names of the crosses of an item's feature with another side's."""
    declared = {f.name: f.side for f in dataset.features}
    sides = {
        f.name: {declared[part] for part in f.of}
        for f in dataset.features
        if isinstance(f, CrossFeature)
    }
    return [name for name, of in sides.items() if "item" in of and len(of) > 1]
