"""The data side of an experiment: everything the Beam job needs to know."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from tfmtl.schema.base import Spec
from tfmtl.schema.feature import (
    CategoricalFeature,
    CrossFeature,
    FeatureSpec,
    MultivalentFeature,
    SequenceFeature,
    SideTable,
    VectorFeature,
    Vocabulary,
)
from tfmtl.schema.sampling import SamplingSpec
from tfmtl.schema.split import BoundarySplit, SplitSpec, TimeSplit
from tfmtl.schema.task import ScenarioSpec, TaskSpec

_MODEL_ONLY = (
    "dim",
    "own_table",
    "side",
    "pooling",
    "query",
    "project",
    "trainable",
    "loss",
    "role",
    "normalization",
    "smearing",
)


class KeySpec(Spec):
    """The columns that say which row this is: for grouping, splitting, joining back."""

    row: str | None = None
    """Identifies a row; predictions carry it."""
    user: str | None = None
    """GAUC groups by it, the bootstrap resamples it; rows where it is missing are in no
    group, and are resampled one by one."""
    group: str | None = None
    """A request or list: its rows stay together."""
    timestamp: str | None = None
    """Integer, float or Arrow timestamp; splits by time need it."""
    timestamp_unit: str = Field(default="s", pattern="^(s|ms|us)$")
    """`s`, `ms` or `us`: the unit of a number since 1970-01-01."""


class DatasetSpec(Spec):
    """Features, vocabularies, scenario, tasks, keys and split of one data set."""

    vocabularies: dict[str, Vocabulary] = {}
    """Named vocabularies; features that name the same one share values."""
    side_tables: dict[str, SideTable] = {}
    """Tables of vectors, by the name that vector features give as `table`."""
    features: tuple[FeatureSpec, ...] = Field(min_length=1)
    """What the model reads."""
    scenario: ScenarioSpec | None = None
    """The scenarios; leave out where there is only one."""
    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    """What the model predicts."""
    keys: KeySpec = KeySpec()
    """Which row it is."""
    split: SplitSpec
    """Which rows train, choose and test."""
    deduplicate: bool = False
    """Drop exact duplicates of a row (all columns read), keeping one."""
    sampling: SamplingSpec | None = None
    """Keep only a share of the training rows without a positive."""

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSpec:
        _check_unique("feature", [f.name for f in self.features])
        _check_unique("task", [t.name for t in self.tasks])
        reserved = ["scenario"] if self.scenario else []
        _check_unique(
            "input", [i for f in self.features for i in inputs_of(f)] + reserved
        )
        self._check_vocabularies()
        self._check_references()
        self._check_tasks()
        self._check_keys()
        if self.sampling is not None:
            self.sampling.check(self.tasks, self.scenario_values)
        return self

    def _check_vocabularies(self) -> None:
        used = set()
        for feature in self.features:
            for use in vocabulary_names(feature):
                if use.declared and use.vocabulary not in self.vocabularies:
                    hint = _hint(use.vocabulary, self.vocabularies)
                    raise ValueError(
                        f"feature {feature.name!r} uses vocabulary "
                        f"{use.vocabulary!r}, which is not declared; declared: "
                        f"{sorted(self.vocabularies)}{hint}"
                    )
                used.add(use.vocabulary)
        unused = sorted(set(self.vocabularies) - used)
        if unused:
            raise ValueError(f"no feature uses the declared vocabularies {unused}")

    def _check_references(self) -> None:
        categorical = {
            f.name: f for f in self.features if isinstance(f, CategoricalFeature)
        }
        for feature in self.features:
            if isinstance(feature, CrossFeature):
                for name in feature.of:
                    _check_categorical(f"feature {feature.name!r}", name, categorical)
            elif isinstance(feature, SequenceFeature) and feature.query:
                where = f"feature {feature.name!r}"
                query = _check_categorical(where, feature.query, categorical)
                if query.dim != feature.columns[0].dim:
                    raise ValueError(
                        f"{where}: the query {query.name!r} and the first column must "
                        f"have one width. Received: {query.dim} and "
                        f"{feature.columns[0].dim}"
                    )
            elif isinstance(feature, VectorFeature) and (
                feature.table not in (None, *self.side_tables)
            ):
                raise ValueError(
                    f"feature {feature.name!r} reads side table {feature.table!r}; "
                    f"declared: {sorted(self.side_tables)}"
                )
        for name, table in self.side_tables.items():
            where = f"side table {name!r}"
            key = _check_categorical(where, table.feature, categorical)
            if self.vocabulary(vocabulary_names(key)[0].vocabulary).hash_buckets:
                raise ValueError(
                    f"{where} is keyed by {table.feature!r}, whose vocabulary is "
                    "hashed: two keys may share a row. Learn it instead"
                )

    def _check_tasks(self) -> None:
        by_name = {t.name: t for t in self.tasks}
        for task in self.tasks:
            seen = [task.name]
            while (given := by_name[seen[-1]].given) is not None:
                if given not in by_name or by_name[given].type != "binary":
                    raise ValueError(
                        f"task {seen[-1]!r} is given {given!r}, which is no binary "
                        f"task; tasks: {sorted(by_name)}{_hint(given, by_name)}"
                    )
                if by_name[given].width > 1:
                    raise ValueError(
                        f"task {seen[-1]!r} is given {given!r}, whose loss has "
                        f"{by_name[given].width} outputs a row: no funnel multiplies "
                        "those"
                    )
                if given in seen:
                    raise ValueError(f"tasks depend on each other: {[*seen, given]}")
                seen.append(given)
            if task.given and task.type == "multiclass":
                raise ValueError(
                    f"task {task.name!r}: `given` is for binary and regression tasks"
                )
            if task.fitted.reads_scenario and self.scenario is None:
                raise ValueError(
                    f"task {task.name!r}: a loss `within` a scenario needs "
                    "`dataset.scenario`. Received: none"
                )
        if all(t.role == "auxiliary" for t in self.tasks):
            raise ValueError("at least one task must have `role: main`")
        labels = {c for t in self.tasks for c in t.columns}
        for feature in self.features:
            for column in raw_columns(feature):
                if column in labels and not isinstance(feature, VectorFeature):
                    raise ValueError(
                        f"feature {feature.name!r} reads column {column!r}, which a "
                        "task's label, population or weight reads too: the model would "
                        "see its answer"
                    )

    def _check_keys(self) -> None:
        if (
            isinstance(self.split, TimeSplit | BoundarySplit)
            and not self.keys.timestamp
        ):
            raise ValueError(
                f"`split: {{by: {self.split.by}}}` needs `keys: {{timestamp: column}}`"
            )

    def vocabulary(self, name: str) -> Vocabulary:
        """The vocabulary of this name; the default one where it is not declared."""
        return self.vocabularies.get(name, Vocabulary())

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of all tasks, in the order of the file."""
        return tuple(t.name for t in self.tasks)

    @property
    def scenario_values(self) -> tuple[str, ...]:
        """Known scenarios; empty where the experiment has none."""
        return self.scenario.values if self.scenario else ()

    def records_part(self) -> dict[str, Any]:
        """What of this specification the records of a data set depend on.

        Widths of embeddings, poolings, losses, roles and how sampling is corrected are
        the model's affair: they may change without another run of the Beam job.
        """
        part = self.model_dump(mode="json", exclude={"side_tables"})
        # Not the vocabularies: their keys are names that the user chose.
        for item in _mappings([part["features"], part["tasks"], part["scenario"]]):
            for key in _MODEL_ONLY:
                item.pop(key, None)
        if part["sampling"] is not None:
            part["sampling"].pop("correction")
        part["side_tables"] = {
            name: table.model_dump(exclude={"path"})
            for name, table in self.side_tables.items()
        }
        return part

    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of this specification: the schema hash."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class VocabularyUse(Spec):
    """Which vocabulary an input of a feature uses."""

    input: str
    vocabulary: str
    declared: bool


def vocabulary_names(feature: FeatureSpec) -> list[VocabularyUse]:
    """The vocabularies of a feature's inputs, their own (`<input>`) where not named."""
    uses: list[VocabularyUse] = []
    parts: list[tuple[str, str | None]] = []
    if isinstance(feature, CategoricalFeature | MultivalentFeature):
        parts = [(feature.name, feature.vocabulary)]
    elif isinstance(feature, SequenceFeature):
        parts = [
            (f"{feature.name}_{c.name}", c.vocabulary)
            for c in feature.columns
            if c.boundaries is None
        ]
    for name, vocabulary in parts:
        uses.append(
            VocabularyUse(
                input=name,
                vocabulary=vocabulary or name,
                declared=vocabulary is not None,
            )
        )
    return uses


def inputs_of(feature: FeatureSpec) -> list[str]:
    """Names of the served model's inputs that a feature adds.

    A sequence has one per aligned column, `<sequence>_<column>`; a cross and a vector
    of a side table have none.
    """
    if isinstance(feature, SequenceFeature):
        return [f"{feature.name}_{c.name}" for c in feature.columns]
    if isinstance(feature, CrossFeature):
        return []
    if isinstance(feature, VectorFeature) and feature.table is not None:
        return []
    return [feature.name]


def raw_columns(feature: FeatureSpec) -> list[str]:
    """The source's columns a feature reads, in the order of `inputs_of`."""
    if isinstance(feature, SequenceFeature):
        return [c.source for c in feature.columns]
    return [feature.source] if inputs_of(feature) else []  # type: ignore[union-attr]


def model_only(path: str) -> bool:
    """Whether a dotted path leads to something that no record depends on.

    Args:
        path: Such as `dataset.features.price.dim`.
    """
    _, part, *keys = [*path.split("."), ""]
    if part in ("features", "tasks"):
        keys = keys[1:]  # the first one is an item's name
    elif part != "scenario":
        return path == "dataset.sampling.correction"
    return any(key in _MODEL_ONLY for key in keys)


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _mappings(item)


def _check_categorical(
    where: str, name: str, categorical: Mapping[str, CategoricalFeature]
) -> CategoricalFeature:
    """The categorical feature that something refers to."""
    if name not in categorical:
        raise ValueError(
            f"{where} refers to {name!r}, which is no categorical feature; those are: "
            f"{sorted(categorical)}{_hint(name, categorical)}"
        )
    return categorical[name]


def _check_unique(what: str, names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"{what} names must be distinct. Received twice: {twice}")


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean {close[0]!r}?" if close else ""
