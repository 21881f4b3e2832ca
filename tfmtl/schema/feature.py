"""Features: what a model may read, and how each raw column becomes numbers."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import pydantic
from pydantic import Field, model_validator

from tfmtl.schema.base import Name, Spec

Side = Literal["user", "item", "context"]


class Vocabulary(Spec):
    """A set of values that one or several features share, learnt on the training split.

    Ids: 0 is "missing", then `oov_buckets` rows for unknown values, then the known
    values by falling frequency. New values can be appended without moving old rows.
    """

    max_size: int | None = Field(default=None, ge=1)
    """Keep at most this many values, the most frequent first."""
    min_count: int = Field(default=1, ge=1)
    """Keep only values seen at least so often in the training split."""
    oov_buckets: int = Field(default=1, ge=1)
    """Rows for values outside the vocabulary, chosen by hash."""
    hash_buckets: int | None = Field(default=None, ge=2)
    """Hash every value into so many rows instead of learning a vocabulary."""

    @model_validator(mode="after")
    def _hash_or_learn(self) -> Vocabulary:
        if self.hash_buckets is not None and (self.max_size or self.min_count > 1):
            raise ValueError(
                "`hash_buckets` excludes `max_size` and `min_count`: a hashed "
                "vocabulary learns no values"
            )
        return self


class _Feature(Spec):
    name: Name
    """Name in the model, its signature and its reports."""
    side: Side = "context"
    """Whether it describes the user, the item or the request."""


class _ColumnFeature(_Feature):
    column: str | None = None
    """The source's column; the feature's name where absent."""

    @property
    def source(self) -> str:
        """The raw column this feature reads."""
        return self.column or self.name


class _Embedded(Spec):
    dim: int = Field(default=16, ge=1)
    """Width of the embedding."""
    own_table: bool = False
    """Keep the embedding out of the stacked table of its width (own learning rate)."""


class CategoricalFeature(_ColumnFeature, _Embedded):
    """One value out of many; null has an id of its own, apart from unknown values."""

    kind: Literal["categorical"] = "categorical"
    vocabulary: str | None = None
    """A vocabulary of `dataset.vocabularies`; one of its own where absent."""


class MultivalentFeature(_ColumnFeature, _Embedded):
    """A set of values (genres, tags): embedded each, pooled to one vector."""

    kind: Literal["multivalent"] = "multivalent"
    vocabulary: str | None = None
    """A vocabulary of `dataset.vocabularies`; one of its own where absent."""
    max_length: int = Field(default=20, ge=1)
    """Keep at most so many values of a row, the first ones."""
    pooling: Literal["mean", "sum"] = "mean"
    """How the values' embeddings become one vector."""
    separator: str | None = Field(default=None, min_length=1)
    """Splits a text column; absent where the column is a list already."""


class SequenceColumn(Spec):
    """One of the aligned columns of a sequence."""

    name: Name
    """Its input is `<sequence>_<name>`."""
    column: str | None = None
    """The source's column; its name where absent."""
    vocabulary: str | None = None
    """A vocabulary of `dataset.vocabularies`; one of its own where absent."""
    boundaries: tuple[float, ...] | None = None
    """Bucket boundaries, rising: the column is numeric (an age, a duration)."""
    dim: int = Field(default=16, ge=1)
    """Width of the embedding."""

    @property
    def source(self) -> str:
        """The raw column."""
        return self.column or self.name

    @model_validator(mode="after")
    def _rising(self) -> SequenceColumn:
        _check_boundaries(self.boundaries)
        if self.boundaries is not None and self.vocabulary is not None:
            raise ValueError("`boundaries` (numeric) excludes `vocabulary` (values)")
        return self


class SequenceFeature(_Feature):
    """A user's past events, oldest first; several aligned columns describe each event.

    A position whose first column is null is dropped with all its aligned values.
    """

    kind: Literal["sequence"] = "sequence"
    columns: tuple[SequenceColumn, ...] = Field(min_length=1)
    """What describes an event; of one length in each row."""
    max_length: int = Field(default=50, ge=1)
    """Keep at most so many events, the newest."""
    separator: str | None = Field(default=None, min_length=1)
    """Splits text columns; absent where the columns are lists already."""
    pooling: Literal["mean", "sum", "attention", "none"] = "mean"
    """How the flat model input sees it; `attention`: scored by `query`."""
    query: str | None = None
    """A categorical feature (the item) that attention compares the events with; its
    width must be that of the first column."""

    @model_validator(mode="after")
    def _attention_needs_query(self) -> SequenceFeature:
        if (self.pooling == "attention") != (self.query is not None):
            raise ValueError(
                "`query` names the feature that `pooling: attention` scores with; give "
                f"both or neither. Received: pooling={self.pooling!r}, "
                f"query={self.query!r}"
            )
        return self


class NumericFeature(_ColumnFeature):
    """A number. Null becomes the mean of the training split, plus an indicator."""

    kind: Literal["numeric"] = "numeric"
    transform: Literal["none", "zscore", "log1p", "bucketize"] = "zscore"
    """`log1p` is sign(x)·log(1 + |x|), standardised; `bucketize` embeds a bucket id."""
    buckets: int | None = Field(default=None, ge=2)
    """Number of quantile buckets."""
    boundaries: tuple[float, ...] | None = None
    """Or explicit bucket boundaries, rising."""
    dim: int = Field(default=8, ge=1)
    """Width of the bucket embedding."""
    indicator: bool = True
    """Add a 0/1 input that says "was null"."""

    @model_validator(mode="after")
    def _buckets_or_boundaries(self) -> NumericFeature:
        _check_boundaries(self.boundaries)
        given = (self.buckets is not None) + (self.boundaries is not None)
        if given != (self.transform == "bucketize"):
            raise ValueError(
                "`transform: bucketize` needs exactly one of `buckets` and "
                "`boundaries`, other transforms neither. Received: "
                f"transform={self.transform!r}, buckets={self.buckets}, "
                f"boundaries={self.boundaries}"
            )
        return self


class TimeFeature(_ColumnFeature):
    """Parts of a timestamp, each embedded: the hour of the day, the day of the week."""

    kind: Literal["time"] = "time"
    parts: tuple[Literal["hour", "weekday"], ...] = ("hour", "weekday")
    """Which parts are embedded."""
    unit: Literal["s", "ms", "us"] = "s"
    """Unit of an integer column since 1970-01-01; Arrow timestamps bring theirs."""
    utc_offset_hours: float = Field(default=0.0, ge=-14, le=14)
    """Local time minus UTC."""
    dim: int = Field(default=8, ge=1)
    """Width of each part's embedding."""


class VectorFeature(_ColumnFeature):
    """A dense vector of fixed size: in a column, or once per item in a side table."""

    kind: Literal["vector"] = "vector"
    size: int = Field(ge=1)
    """Numbers in a vector."""
    table: str | None = None
    """A table of `dataset.side_tables`; `column` is then a column of that table."""
    trainable: bool = False
    """Fine-tune the vectors of a side table."""
    project: int | None = Field(default=None, ge=1)
    """Learn a linear projection to this width before anything else reads it."""


class CrossFeature(_Feature, _Embedded):
    """The combination of two or more categorical features, hashed."""

    kind: Literal["cross"] = "cross"
    of: tuple[str, ...] = Field(min_length=2)
    """Names of the categorical features."""
    buckets: int = Field(ge=2)
    """Combinations are hashed into so many rows."""


FeatureSpec = Annotated[
    CategoricalFeature
    | MultivalentFeature
    | SequenceFeature
    | NumericFeature
    | TimeFeature
    | VectorFeature
    | CrossFeature,
    pydantic.Field(discriminator="kind"),
]


def has_ids(feature: FeatureSpec) -> bool:
    """Whether the feature is looked up in an embedding table."""
    if isinstance(feature, NumericFeature):
        return feature.transform == "bucketize"
    return not isinstance(feature, VectorFeature)


class SideTable(Spec):
    """A table joined by key and stored once, not once a row: an item's text vector."""

    path: str
    """Parquet file, absolute or relative to the experiment file."""
    key: str
    """Its key column."""
    feature: str
    """The categorical feature whose value is the key."""


def _check_boundaries(boundaries: tuple[float, ...] | None) -> None:
    if boundaries is not None and (
        not boundaries or any(b <= a for a, b in itertools.pairwise(boundaries))
    ):
        raise ValueError(
            f"`boundaries` must be rising numbers, at least one. Received: {boundaries}"
        )
