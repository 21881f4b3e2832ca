"""Item vectors by word2vec over the users' behaviour sequences, as a side table.

T. Mikolov et al., "Distributed Representations of Words and Phrases and their
Compositionality", NeurIPS 2013, by gensim: skip-gram with negative samples, a user's
sequence of items being a sentence.

Rows of the training split alone are read, and the sequence of a row is older than the
row: where rows are divided by time, no event of the validation or test period is seen.
The rule is the job's, over all rows with a time, those that the job rejects included.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import columns, sources, split
from pipeline.plan import BY_TIME, DROPPED, MISSING_TIME, TRAIN
from tfmtl.errors import ConfigError, DataError
from tfmtl.files import atomic_file
from tfmtl.schema.base import Spec
from tfmtl.schema.dataset import DatasetSpec, vocabulary_names
from tfmtl.schema.feature import CategoricalFeature, SequenceFeature
from tfmtl.schema.split import HashSplit

KEY, VECTOR = "item", "vector"
"""Columns of the table that is written."""


class ItemVectors(Spec):
    """Settings of word2vec."""

    size: int = Field(default=32, ge=1)
    """Numbers in a vector."""
    window: int = Field(default=5, ge=1)
    """Events on each side that are predicted from one, at most."""
    negatives: int = Field(default=5, ge=1)
    """Negative samples for each pair."""
    epochs: int = Field(default=20, ge=1)
    """Passes over all sequences."""
    min_count: int = Field(default=2, ge=1)
    """Items with fewer events get no vector."""
    seed: int = Field(default=0, ge=0)
    """Of initial values and samples."""
    workers: int = Field(default=1, ge=1)
    """Threads; with more than one, the result depends on chance."""


class Trained(NamedTuple):
    """What was learnt, and from how much.

    Attributes:
        vectors: Item to [size], in order of falling frequency.
        sentences: Sequences of two or more events.
        events: In them.
        rare: Items below `min_count`.
    """

    vectors: dict[str, np.ndarray]
    sentences: int
    events: int
    rare: int


def run(
    dataset: DatasetSpec,
    inputs: Sequence[str],
    column: str,
    output: str | os.PathLike[str],
    settings: ItemVectors | None = None,
) -> Trained:
    """Learns vectors from raw logs and writes them as a side table.

    The file has the columns `item` (text) and `vector` (float32 lists).

    Args:
        dataset: Of the experiment; its split says which rows are read.
        inputs: Files or globs, as for the Beam job.
        column: The raw column of a sequence feature that holds items.
        output: The Parquet file.
        settings: Of word2vec.

    Raises:
        ConfigError: The column is no column of a sequence, or gensim is missing.
        DataError: No two items stand together in any sequence.
    """
    settings = settings or ItemVectors()
    found = train(sentences(dataset, inputs, column), settings)
    table = pa.table(
        {
            KEY: pa.array(list(found.vectors), pa.string()),
            VECTOR: pa.array(list(found.vectors.values()), pa.list_(pa.float32())),
        }
    )
    with atomic_file(pathlib.Path(output)) as file:
        pq.write_table(table, file, compression="zstd")
    return found


def train(found: Sequence[Sequence[str]], settings: ItemVectors) -> Trained:
    """Skip-gram vectors of the items; the same for the same seed and one worker.

    Args:
        found: Sequences of items, oldest first.
        settings: Of word2vec.

    Raises:
        ConfigError: gensim is missing.
        DataError: No two items stand together in any sequence.
    """
    try:
        from gensim.models import Word2Vec as Gensim
    except ImportError as error:
        raise ConfigError(
            "item vectors need the package gensim. Install it: pip install 'tfmtl[w2v]'"
        ) from error
    # Alone, an event has no neighbour to predict.
    kept = [list(sequence) for sequence in found if len(sequence) > 1]
    logging.getLogger("gensim").setLevel(logging.ERROR)
    # No down-sampling of frequent items: ids have no counterpart of "the".
    model = Gensim(
        vector_size=settings.size,
        window=settings.window,
        negative=settings.negatives,
        min_count=settings.min_count,
        seed=settings.seed,
        workers=settings.workers,
        sg=1,
        sample=0,
    )
    items = {item for sequence in kept for item in sequence}
    model.build_vocab(kept)
    if not len(model.wv):
        raise DataError(
            f"no item stands in {settings.min_count} or more events of sequences with "
            f"two events or more, in the training split. Received: {len(found)} "
            f"sequences, {len(kept)} of them with two events, {len(items)} items"
        )
    model.train(kept, total_examples=len(kept), epochs=settings.epochs)
    return Trained(
        {item: model.wv[item] for item in model.wv.index_to_key},
        len(kept),
        sum(map(len, kept)),
        len(items) - len(model.wv),
    )


def sentences(
    dataset: DatasetSpec, inputs: Sequence[str], column: str
) -> list[list[str]]:
    """The sequences of the training rows, each event once as far as rows tell.

    With keys of user and time, the overlapping sequences of a user's rows are put
    together to one. Else each row's sequence stands alone.

    Args:
        dataset: Of the experiment.
        inputs: Files or globs.
        column: The raw column with the items.

    Raises:
        ConfigError: The column is no column of a sequence.
    """
    feature, _ = _find(dataset, column)
    keys = dataset.keys
    paths = sources.resolve(list(inputs))
    needed = {column, keys.timestamp, keys.user, getattr(dataset.split, "column", None)}
    names = sorted(n for n in needed if n is not None)
    parts = [
        _read(dataset, batch, column, feature.separator, sources.has_types(unit.path))
        for unit in sources.inspect(paths, names).units
        for batch in sources.read(unit, names)
        if isinstance(batch, pa.RecordBatch)
    ]
    if not parts:
        return []
    rows = _Rows(*(np.concatenate(part) for part in zip(*parts)))
    codes = rows.code
    timed = (rows.time != MISSING_TIME) & (codes == BY_TIME)
    rule = split.time_rule(dataset, *np.unique(rows.time[timed], return_counts=True))
    if rule is not None:
        codes = np.where(timed, rule.assign(rows.time), DROPPED)
    kept = np.flatnonzero(codes == TRAIN)
    if keys.user is None or keys.timestamp is None:
        return [items for items in rows.items[kept] if items]
    order = kept[np.lexsort((rows.time[kept], rows.user[kept].astype(str)))]
    return [items for items in _joined(rows.user[order], rows.items[order]) if items]


class _Rows(NamedTuple):
    """Columns of rows: [rows] each; `items` and `user` hold Python objects."""

    code: np.ndarray
    time: np.ndarray
    user: np.ndarray
    items: np.ndarray


def item_feature(dataset: DatasetSpec, column: str) -> str:
    """The categorical feature that has the vocabulary of a sequence's column.

    Args:
        dataset: Of the experiment.
        column: The raw column of a sequence.

    Raises:
        ConfigError: The column is no column of a sequence, or no feature has its
            vocabulary, so that no side table could be joined to it.
    """
    _, vocabulary = _find(dataset, column)
    for feature in dataset.features:
        if isinstance(feature, CategoricalFeature):
            (use,) = vocabulary_names(feature)
            if use.vocabulary == vocabulary:
                return feature.name
    raise ConfigError(
        f"`column` must have the vocabulary of a categorical feature, whose values the "
        f"side table's rows are. Received: {column!r}, of the vocabulary {vocabulary!r}"
    )


def _find(dataset: DatasetSpec, column: str) -> tuple[SequenceFeature, str]:
    """The sequence that reads a raw column of items, and the column's vocabulary."""
    legal = []
    for feature in dataset.features:
        if isinstance(feature, SequenceFeature):
            for part in (c for c in feature.columns if c.boundaries is None):
                if part.source == column:
                    own = f"{feature.name}_{part.name}"
                    return feature, part.vocabulary or own
                legal.append(part.source)
    raise ConfigError(
        "`column` must be a raw column of a sequence feature that holds items. "
        f"Received: {column!r}; there are: {legal}"
    )


def _read(
    dataset: DatasetSpec,
    batch: pa.RecordBatch,
    column: str,
    separator: str | None,
    typed: bool,
) -> _Rows:
    raw = {n: batch.column(n) for n in batch.schema.names}
    count, keys = batch.num_rows, dataset.keys
    codes, bad = split.by_column(dataset, raw, count, not typed)
    if isinstance(dataset.split, HashSplit):
        # By a hash of the whole row, of which only some columns are read here.
        text, _ = columns.strings(raw[dataset.split.column], not typed)
        bad = bad | pc.equal(text, "").to_numpy(zero_copy_only=False)
    time = np.full(count, MISSING_TIME, np.int64)
    if keys.timestamp is not None:
        time, wrong = columns.times(raw[keys.timestamp], keys.timestamp_unit, "us")
        bad = bad | wrong
    user = np.full(count, "", object)
    if keys.user is not None:
        text, _ = columns.strings(raw[keys.user], not typed)
        user = text.to_numpy(zero_copy_only=False)
    flat, lengths = columns.lists(raw[column], separator)
    values, _ = columns.strings(flat, not typed)
    listed = values.to_pylist()
    items = np.empty(count, object)
    end = 0
    for row, length in enumerate(lengths):
        items[row] = [v for v in listed[end : end + length] if v]
        end += length
    return _Rows(np.where(bad, DROPPED, codes), time, user, items)


def _joined(users: np.ndarray, items: np.ndarray) -> Iterator[list[str]]:
    """A sequence a user; rows without a user stand alone."""
    whole: list[str] = []
    before: list[str] = []
    last = None
    for user, row in zip(users, items):
        if user != last or not user:
            yield whole
            whole, before, last = [], [], user
        whole += row[len(row) - new_events(before, row) :]
        before = row
    yield whole


def new_events(before: Sequence[Any], now: Sequence[Any]) -> int:
    """How many events at the end of a sequence an earlier one of the user lacks.

    The fewest with which the rest is the earlier sequence, or its end where the log cut
    the oldest events off.

    Args:
        before: The earlier sequence.
        now: The later one.
    """
    for new in range(len(now)):
        rest = len(now) - new
        if rest <= len(before) and list(before[len(before) - rest :]) == list(
            now[:rest]
        ):
            return new
    return len(now)
