"""Rows per second: blocks read by `tfmtl.data` against one-row records, same data.

    python -m benchmarks.reading [--rows 400000] [--repeats 5]

The rival is the usual fast layout: `TFRecordDataset -> batch -> parse_example` over one
`tf.train.Example` a row, `batch` rows parsed at once and batches parsed in parallel. It
is measured as it stands, and with the `shuffle` of rows that training needs, whose
buffer is as large as our pool. Ours is measured shuffled, exactly and resumably, and in
the order of the files.

All four read the same rows of 20 ids, 6 numbers and a label from the page cache, and
take turns, so that other load on the machine meets all of them; a figure is the median
over the repeats. `start` is from asking for an epoch to its first batch: `first` builds
the graphs, `later` is any later epoch. `steady` is from there to the end of the epoch,
drawn inside a graph as training draws; an epoch of ours goes over the files several
times, or it would be over in no time. `CPU` is the processor's time in the steady
state, which other load disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.read import Reader
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.testing.records import write_records

INTS, FLOATS, BATCH, POOL_BLOCKS, BLOCK_ROWS = 20, 6, 4096, 8, 4096
PASSES = 10
"""How often an epoch of blocks goes over the files."""

OURS, OURS_UNSHUFFLED = "blocks, shuffled", "blocks, in order"
RIVAL, RIVAL_SHUFFLED = "one-row records, in order", "one-row records, shuffled"


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one way of reading.

    Attributes:
        first: Seconds to the first batch ever.
        later: Seconds to the first batch of a later epoch, median.
        steady: Rows/s from there on, median.
        cpu: Seconds of processor time per million rows from there on, median.
    """

    first: float
    later: float
    steady: float
    cpu: float


def measure(rows: int = 400_000, repeats: int = 5) -> dict[str, Figures]:
    """Figures of all four ways of reading.

    Args:
        rows: In the files.
        repeats: Epochs of each way after the first one, which is not counted.
    """
    spec, columns = _schema()
    draw = np.random.default_rng(0)
    values: dict[str, Any] = {f"c{i}": draw.integers(1, 999, rows) for i in range(INTS)}
    values |= {f"n{i}": draw.normal(size=rows) for i in range(FLOATS)}
    values["label/click"] = draw.integers(0, 2, rows).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for layout in ("blocks", "rows"):
            directory = pathlib.Path(folder) / layout
            manifest = write_records(
                directory,
                spec,
                columns,
                {"train": values},
                block_rows=BLOCK_ROWS,
                files=4,
                layout=layout,
            )
            made[layout] = (directory, manifest)
        blocks, long = made["blocks"][0], _repeated(made["blocks"][1])
        ways = {
            name: Reader(
                blocks,
                long,
                ("train",),
                BATCH,
                shuffle=shuffle,
                pool_blocks=POOL_BLOCKS,
            ).epoch
            for name, shuffle in ((OURS, "rows"), (OURS_UNSHUFFLED, "none"))
        }
        ways[RIVAL] = _usual(*made["rows"], shuffle=False)
        ways[RIVAL_SHUFFLED] = _usual(*made["rows"], shuffle=True)
        runs = {name: _runs(epoch) for name, epoch in ways.items()}
        found: dict[str, list[_Run]] = {name: [] for name in ways}
        for _ in range(1 + repeats):
            for name, run in runs.items():
                found[name].append(next(run))
    return {name: _summary(measured) for name, measured in found.items()}


def _schema() -> tuple[DatasetSpec, tuple[RecordColumn, ...]]:
    features: list[dict[str, Any]] = [
        {"name": f"c{i}", "kind": "categorical"} for i in range(INTS)
    ]
    features += [
        {"name": f"n{i}", "kind": "numeric", "indicator": False} for i in range(FLOATS)
    ]
    spec = DatasetSpec.model_validate(
        {
            "features": features,
            "tasks": [{"name": "click", "label": "click"}],
            "split": {"by": "hash", "column": "row"},
        }
    )
    columns = [RecordColumn(name=f"c{i}", dtype="int", rows=1000) for i in range(INTS)]
    columns += [RecordColumn(name=f"n{i}", dtype="float") for i in range(FLOATS)]
    columns.append(RecordColumn(name="label/click", dtype="float"))
    return spec, tuple(columns)


def _repeated(manifest: DatasetManifest) -> DatasetManifest:
    """The same files several times over, as one epoch."""
    split = manifest.splits["train"]
    long = split.model_copy(
        update={"files": split.files * PASSES, "rows": split.rows * PASSES}
    )
    return manifest.model_copy(update={"splits": {"train": long}})


def _usual(
    directory: pathlib.Path, manifest: DatasetManifest, *, shuffle: bool
) -> Callable[[int], tf.data.Dataset]:
    kinds = {"int": tf.int64, "float": tf.float32}
    features = {
        c.name: tf.io.FixedLenFeature([], kinds[c.dtype]) for c in manifest.columns
    }
    files = [str(directory / f.path) for f in manifest.splits["train"].files]

    def epoch(number: int) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(files, buffer_size=1 << 20)
        if shuffle:
            records = records.shuffle(POOL_BLOCKS * BLOCK_ROWS, seed=number)
        return (
            records.batch(BATCH)
            .map(
                lambda s: tf.io.parse_example(s, features),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .prefetch(tf.data.AUTOTUNE)
        )

    return epoch


@dataclasses.dataclass(frozen=True)
class _Run:
    """One epoch: seconds to the first batch; rows after it, their seconds and CPU's."""

    start: float
    rows: int
    seconds: float
    cpu: float


def _runs(epoch: Callable[[int], tf.data.Dataset]) -> Iterator[_Run]:
    """One epoch after the other."""

    @tf.function(autograph=False)
    def drain(iterator: Any) -> Any:
        """Rows of all batches left."""

        def more(rows: Any, going: Any) -> Any:
            del rows
            return going

        def draw(rows: Any, going: Any) -> Any:
            del going
            batch = iterator.get_next_as_optional()
            going = batch.has_value()
            count = tf.cond(
                going,
                lambda: tf.shape(tf.nest.flatten(batch.get_value())[0])[0],
                lambda: 0,
            )
            return rows + count, going

        rows, _ = tf.while_loop(more, draw, (0, True), parallel_iterations=1)
        return rows

    number = 0
    while True:
        began = time.perf_counter()
        iterator = iter(epoch(number))
        next(iterator)
        started = time.perf_counter()
        if number == 0:
            # The tracing of the loop itself is not the reader's.
            drain.get_concrete_function(iterator)
        cpu, drawing = time.process_time(), time.perf_counter()
        rows = int(drain(iterator))
        yield _Run(
            started - began,
            rows,
            time.perf_counter() - drawing,
            time.process_time() - cpu,
        )
        # What the end of an epoch costs is no part of the next one's start.
        del iterator
        number += 1


def _summary(runs: list[_Run]) -> Figures:
    first, *later = runs
    return Figures(
        first=first.start,
        later=statistics.median(r.start for r in later),
        steady=statistics.median(r.rows / r.seconds for r in later),
        cpu=statistics.median(r.cpu / r.rows * 1e6 for r in later),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.rows, options.repeats)
    print(f"{'':<27}{'start, first':>14}{'later':>10}{'steady':>18}{'CPU':>18}")
    for name, figures in found.items():
        print(
            f"{name:<27}{figures.first:>12.2f} s{figures.later:>8.2f} s"
            f"{figures.steady:>11,.0f} rows/s{figures.cpu:>11.2f} s/M rows"
        )
    for what, ours, rival in (
        ("ours shuffled, the rival in order (target: at least 10)", OURS, RIVAL),
        ("both shuffled", OURS, RIVAL_SHUFFLED),
        ("both in order", OURS_UNSHUFFLED, RIVAL),
    ):
        clock = found[ours].steady / found[rival].steady
        cpu = found[rival].cpu / found[ours].cpu
        print(f"ratio {clock:>6.1f}, by CPU {cpu:>6.1f}  {what}")


if __name__ == "__main__":
    main()
