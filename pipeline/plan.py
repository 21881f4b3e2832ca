"""What the job does to each raw column, worked out once from the data specification."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pyarrow as pa

from tfmtl.schema.dataset import DatasetSpec, VocabularyUse, vocabulary_names
from tfmtl.schema.feature import (
    CrossFeature,
    FeatureSpec,
    MultivalentFeature,
    NumericFeature,
    SequenceFeature,
    TimeFeature,
    VectorFeature,
)
from tfmtl.schema.manifest import RecordColumn, VocabularyStats
from tfmtl.schema.split import GivenSplit, HashSplit

MISSING_TIME = -(2**63)
"""What a missing time is served as."""

SPLIT, ORDER, ORDER_2, GROUP = "#split", "#order", "#order2", "#group"
"""Helper columns of canonical batches; `#` cannot stand in the name of a feature."""

TRAIN, VALIDATION, TEST, DROPPED, BY_TIME, SAMPLED_OUT = 0, 1, 2, 3, 4, 5
"""Codes of the `#split` column."""

Kind = Literal["string", "float", "time", "strings", "floats", "vector"]


@dataclasses.dataclass(frozen=True)
class RawInput:
    """One input of the transform graph and the raw column it comes from.

    Attributes:
        name: Of the graph's input.
        column: Of the source.
        kind: What the canonical column holds.
        separator: Splits a text column into a list.
        unit: Of a plain number in a time column.
        size: Width of a vector.
        sequence: The sequence feature it is an aligned column of.
        max_length: How many values of a list the graph keeps at most.
        newest: Whether it keeps the last values (a sequence) or the first (a set).
        kept: Texts of a file without types that stay as they are.
    """

    name: str
    column: str
    kind: Kind
    separator: str | None = None
    unit: str = "s"
    size: int = 0
    sequence: str | None = None
    max_length: int = 0
    newest: bool = False
    kept: tuple[str, ...] = ()


def raw_inputs(dataset: DatasetSpec) -> tuple[RawInput, ...]:
    """The inputs of the transform graph, in the order of `manifest.served_inputs`."""
    inputs: list[RawInput] = []
    for feature in dataset.features:
        inputs += _inputs(feature)
    if dataset.scenario is not None:
        scenario = dataset.scenario
        inputs.append(
            RawInput("scenario", scenario.column, "string", kept=scenario.values)
        )
    return tuple(inputs)


def _inputs(feature: FeatureSpec) -> list[RawInput]:
    if isinstance(feature, CrossFeature):
        return []
    if isinstance(feature, VectorFeature):
        if feature.table is not None:
            return []
        return [RawInput(feature.name, feature.source, "vector", size=feature.size)]
    if isinstance(feature, SequenceFeature):
        return [
            RawInput(
                f"{feature.name}_{c.name}",
                c.source,
                "strings" if c.boundaries is None else "floats",
                separator=feature.separator,
                sequence=feature.name,
                max_length=feature.max_length,
                newest=True,
            )
            for c in feature.columns
        ]
    if isinstance(feature, MultivalentFeature):
        return [
            RawInput(
                feature.name,
                feature.source,
                "strings",
                separator=feature.separator,
                max_length=feature.max_length,
            )
        ]
    if isinstance(feature, NumericFeature):
        return [RawInput(feature.name, feature.source, "float")]
    if isinstance(feature, TimeFeature):
        return [RawInput(feature.name, feature.source, "time", unit=feature.unit)]
    return [RawInput(feature.name, feature.source, "string")]


def raw_columns(dataset: DatasetSpec) -> tuple[str, ...]:
    """Every column of the source that the job reads, sorted."""
    names = {i.column for i in raw_inputs(dataset)}
    for task in dataset.tasks:
        names |= task.columns
    keys = dataset.keys
    names |= {k for k in (keys.row, keys.user, keys.group, keys.timestamp) if k}
    if isinstance(dataset.split, HashSplit | GivenSplit):
        names.add(dataset.split.column)
    return tuple(sorted(names))


def list_columns(dataset: DatasetSpec) -> dict[str, str | None]:
    """Columns that must be lists, or text with a separator: column to separator."""
    return {
        i.column: i.separator
        for i in raw_inputs(dataset)
        if i.kind in ("strings", "floats", "vector")
    }


def vocabulary_uses(dataset: DatasetSpec) -> list[VocabularyUse]:
    """Which input uses which vocabulary, over all features."""
    return [use for feature in dataset.features for use in vocabulary_names(feature)]


def learnt_vocabularies(dataset: DatasetSpec) -> dict[str, list[str]]:
    """Vocabularies that are learnt, not hashed, to the inputs that use them."""
    learnt: dict[str, list[str]] = {}
    for use in vocabulary_uses(dataset):
        if dataset.vocabulary(use.vocabulary).hash_buckets is None:
            learnt.setdefault(use.vocabulary, []).append(use.input)
    return learnt


def canonical_schema(dataset: DatasetSpec) -> pa.Schema:
    """Schema of the batches between validation and transform."""
    types: dict[str, pa.DataType] = {
        "string": pa.large_string(),
        "float": pa.float32(),
        "time": pa.int64(),
        "strings": pa.large_list(pa.large_string()),
        "floats": pa.large_list(pa.float32()),
    }
    fields = [
        (
            i.name,
            pa.list_(pa.float32(), i.size) if i.kind == "vector" else types[i.kind],
        )
        for i in raw_inputs(dataset)
    ]
    for task in dataset.tasks:
        fields.append((f"label/{task.name}", pa.float32()))
        if task.weight is not None:
            fields.append((f"weight/{task.name}", pa.float32()))
        if task.teacher is not None:
            fields.append((f"teacher/{task.name}", pa.float32()))
    for key in ("row", "user", "group"):
        if getattr(dataset.keys, key) is not None:
            fields.append((f"key/{key}", pa.large_string()))
    if dataset.keys.timestamp is not None:
        fields.append(("key/timestamp", pa.int64()))
    fields += [(SPLIT, pa.int8()), (ORDER, pa.uint64())]
    if dataset.deduplicate:
        fields.append((ORDER_2, pa.uint64()))
    if dataset.keys.group is not None:
        fields.append((GROUP, pa.uint64()))
    return pa.schema(fields)


def record_columns(
    dataset: DatasetSpec,
    vocabularies: dict[str, VocabularyStats],
    boundaries: dict[str, list[float]],
) -> tuple[RecordColumn, ...]:
    """The columns of the records: transformed features, scenario, labels, keys.

    Args:
        dataset: The data specification.
        vocabularies: Fitted (or hashed) vocabularies.
        boundaries: Of bucketized numeric features.
    """
    columns: list[RecordColumn] = []
    for feature in dataset.features:
        columns += _feature_columns(dataset, feature, vocabularies, boundaries)
    if dataset.scenario is not None:
        columns.append(
            RecordColumn(
                name="scenario", dtype="int", rows=len(dataset.scenario.values) + 1
            )
        )
    for task in dataset.tasks:
        columns.append(RecordColumn(name=f"label/{task.name}", dtype="float"))
        if task.weight is not None:
            columns.append(RecordColumn(name=f"weight/{task.name}", dtype="float"))
        if task.teacher is not None:
            columns.append(RecordColumn(name=f"teacher/{task.name}", dtype="float"))
    for key in ("row", "user", "group"):
        if getattr(dataset.keys, key) is not None:
            columns.append(RecordColumn(name=f"key/{key}", dtype="bytes"))
    if dataset.keys.timestamp is not None:
        columns.append(RecordColumn(name="key/timestamp", dtype="int"))
    return tuple(columns)


def _feature_columns(
    dataset: DatasetSpec,
    feature: FeatureSpec,
    vocabularies: dict[str, VocabularyStats],
    boundaries: dict[str, list[float]],
) -> list[RecordColumn]:
    uses = {u.input: u.vocabulary for u in vocabulary_names(feature)}

    def ids(name: str, size: int | None = None) -> RecordColumn:
        return RecordColumn(
            name=name,
            dtype="int",
            shape="scalar" if size is None else "ragged",
            size=size,
            rows=vocabularies[uses[name]].rows,
            vocabulary=uses[name],
        )

    match feature.kind:
        case "categorical":
            return [ids(feature.name)]
        case "multivalent":
            return [ids(feature.name, feature.max_length)]
        case "sequence":
            return [
                ids(f"{feature.name}_{c.name}", feature.max_length)
                if c.boundaries is None
                else RecordColumn(
                    name=f"{feature.name}_{c.name}",
                    dtype="int",
                    shape="ragged",
                    size=feature.max_length,
                    rows=len(c.boundaries) + 2,
                )
                for c in feature.columns
            ]
        case "numeric" if feature.transform == "bucketize":
            rows = len(boundaries[feature.name]) + 2
            return [RecordColumn(name=feature.name, dtype="int", rows=rows)]
        case "numeric":
            parts = [RecordColumn(name=feature.name, dtype="float")]
            if feature.indicator:
                name = f"{feature.name}_missing"
                parts.append(RecordColumn(name=name, dtype="float"))
            return parts
        case "time":
            rows_of = {"hour": 25, "weekday": 8}
            return [
                RecordColumn(name=f"{feature.name}_{p}", dtype="int", rows=rows_of[p])
                for p in feature.parts
            ]
        case "vector" if feature.table is None:
            return [
                RecordColumn(
                    name=feature.name, dtype="float", shape="vector", size=feature.size
                )
            ]
        case "cross":
            name = feature.name
            return [RecordColumn(name=name, dtype="int", rows=feature.buckets + 1)]
        case _:
            return []
