"""Which training rows `dataset.sampling` keeps; a pure function of the row and a seed.

No random generator is asked: the same rows are kept by any number of workers, in any
order, and by a second run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import hashing, plan
from pipeline.labels import joint_label
from pipeline.sinks import Cells
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import SamplingStats, StratumCounts
from tfmtl.schema.sampling import ALL, effects, without_correction

_HASH_SEED = 0x5A3D  # apart from that of splits


@dataclasses.dataclass
class Sampled:
    """Counts of the training rows of one shard, or of several.

    Attributes:
        sure: Rows that are always kept.
        candidates: int64 [S + 1], rows that the rate decides on; the last one is every
            other scenario.
        kept: int64 [S + 1], of these, rows that were kept.
        exposed: Task to the candidates in the population of its own output.
        before: Rows and labels of all of them.
    """

    sure: int
    candidates: np.ndarray
    kept: np.ndarray
    exposed: dict[str, int]
    before: Cells

    def merge(self, other: Sampled) -> None:
        """Adds the counts of another part."""
        self.sure += other.sure
        self.candidates += other.candidates
        self.kept += other.kept
        for task, rows in other.exposed.items():
            self.exposed[task] += rows
        self.before.merge(other.before)


def without_sampled_out(
    dataset: DatasetSpec, table: pa.Table, codes: np.ndarray
) -> np.ndarray:
    """Codes of the splits, `SAMPLED_OUT` where a training row is left out.

    Args:
        dataset: The data specification.
        table: Canonical rows.
        codes: int8 [rows], codes of their splits.
    """
    spec = dataset.sampling
    if spec is None:
        return codes
    rates = np.array(spec.rates(dataset.scenario_values))[scenario_ids(dataset, table)]
    share = hashing.unit_interval(_hashes(dataset, table))
    out = (codes == plan.TRAIN) & ~sure_rows(dataset, table) & (share >= rates)
    return np.where(out, plan.SAMPLED_OUT, codes).astype(np.int8)


def sure_rows(dataset: DatasetSpec, table: pa.Table) -> np.ndarray:
    """Rows that are positive for a task of `keep`: bool [rows]."""
    assert dataset.sampling is not None
    sure = np.zeros(table.num_rows, bool)
    for task in dataset.sampling.keep:
        sure |= _joint(dataset, table, task) == 1
    return sure


def scenario_ids(dataset: DatasetSpec, table: pa.Table) -> np.ndarray:
    """Position of each row's scenario, S for every other value: int64 [rows]."""
    known = dataset.scenario_values
    if not known:
        return np.zeros(table.num_rows, np.int64)
    values = pa.array(known, pa.large_string())
    found = pc.fill_null(pc.index_in(table["scenario"], value_set=values), len(known))
    return np.asarray(found.to_numpy()).astype(np.int64)


def count(dataset: DatasetSpec, table: pa.Table, codes: np.ndarray) -> Sampled:
    """Counts the training rows of a shard, before and after sampling.

    Args:
        dataset: The data specification.
        table: Canonical rows.
        codes: What `without_sampled_out` answered.
    """
    train = (codes == plan.TRAIN) | (codes == plan.SAMPLED_OUT)
    written = codes[train] == plan.TRAIN
    table = table.filter(pa.array(train))
    sure, ids = sure_rows(dataset, table), scenario_ids(dataset, table)
    width = len(dataset.scenario_values) + 1
    exposed = {}
    for task in dataset.tasks:
        known = ~np.isnan(_label(table, task.name))
        if task.given is not None:
            known &= _joint(dataset, table, task.given) == 1
        exposed[task.name] = int((known & ~sure).sum())
    before = Cells.empty(dataset)
    start = 0
    for batch in table.to_batches():
        before.add(batch, ids[start : start + batch.num_rows])
        start += batch.num_rows
    return Sampled(
        int(sure.sum()),
        np.bincount(ids[~sure], minlength=width),
        np.bincount(ids[~sure & written], minlength=width),
        exposed,
        before,
    )


def finish(
    dataset: DatasetSpec, parts: Iterable[Sampled | None]
) -> tuple[SamplingStats | None, list[str]]:
    """Adds up what the shards counted.

    Returns:
        What the manifest says, None without sampling; and warnings.
    """
    spec = dataset.sampling
    if spec is None:
        return None, []
    known = dataset.scenario_values
    width = len(known) + 1
    total = Sampled(
        0,
        np.zeros(width, np.int64),
        np.zeros(width, np.int64),
        dict.fromkeys(dataset.task_names, 0),
        Cells.empty(dataset),
    )
    for part in parts:
        if part is not None:
            total.merge(part)
    names = (*known, "unknown") if known else (ALL,)
    before = total.before
    stats = SamplingStats(
        sure=total.sure,
        strata={
            name: StratumCounts(rate=rate, candidates=int(rows), kept=int(kept))
            for name, rate, rows, kept in zip(
                names, spec.rates(known), total.candidates, total.kept
            )
        },
        exposed=total.exposed,
        tasks={t: before.stats(t) for t in before.labelled},
        cells={
            t: {s: before.stats(t, i) for i, s in enumerate(names)}
            for t in (before.labelled if known else ())
        },
    )
    warnings = []
    if not total.sure:
        warnings.append(
            f"`dataset.sampling.keep` = {list(spec.keep)}: no training row is positive"
        )
    if spec.correction in ("export", "training"):
        wrong = without_correction(effects(dataset.tasks, spec, stats.exposed), spec)
        warnings += [wrong] if wrong else []
    return stats, warnings


def _label(table: pa.Table, task: str) -> np.ndarray:
    return np.asarray(table[f"label/{task}"].to_numpy())


def _joint(dataset: DatasetSpec, table: pa.Table, task: str) -> np.ndarray:
    """Label of the joint output: 1 where all steps of the funnel are."""
    tasks = {t.name: t for t in dataset.tasks}
    labels = {n: _label(table, n) for n in tasks}
    return joint_label(tasks[task], tasks, labels)


def _hashes(dataset: DatasetSpec, table: pa.Table) -> np.ndarray:
    """A hash of each row's key, of its content where it has none: uint64 [rows]."""
    assert dataset.sampling is not None
    hashes = np.zeros(table.num_rows, np.uint64)
    alone = np.ones(table.num_rows, bool)
    if dataset.keys.row is not None:
        keys = table["key/row"].combine_chunks()
        hashes = hashing.hash_array(keys, _HASH_SEED).copy()
        alone = pc.equal(keys, "").to_numpy(zero_copy_only=False)
    if alone.any():
        rows = table.filter(pa.array(alone))
        names = sorted(n for n in table.column_names if not n.startswith("#"))
        content = [rows[n].combine_chunks() for n in names]
        hashes[alone] = hashing.hash_rows(content, _HASH_SEED)
    return hashing.mix(hashes ^ hashing.seed_of(dataset.sampling.seed))
