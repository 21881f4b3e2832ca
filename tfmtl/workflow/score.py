"""Raw rows -> predictions, without a server."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.served import ServedBatch, read_served
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.export.saved_model import load_signature, serving_module, versions_in
from tfmtl.files import atomic_file, atomic_write
from tfmtl.progress import Listener, Silent
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.fusion import SCORE, FusionChoice
from tfmtl.schema.manifest import EXPORT_FILE, RowCounts, read_export
from tfmtl.training.rundir import RUN
from tfmtl.workflow.fusion import fusion_of
from tfmtl.workflow.restore import restore

_REASONS = 5  # that are told; the file of counts has all


def score(
    model_or_run: str | pathlib.Path,
    inputs: Sequence[str] | str,
    output: str | pathlib.Path,
    *,
    dataset: str | pathlib.Path | None = None,
    snapshot: str | None = None,
    fusion: FusionChoice = "found",
    listener: Listener | None = None,
) -> RowCounts:
    """Predicts every row of raw files with an export or a run.

    The graph is the served one, so that predictions are the server's. Each row read is
    either scored or rejected. Beside `scores.parquet` lie `scores.counts.json` (rows
    read, scored and rejected, and the reasons) and, where rows were rejected,
    `scores.rejected.parquet`: dead letters like those of `preprocess`, with `reason`,
    `file`, `file_row`, `line` and the raw columns as text.

    Args:
        model_or_run: A version of an exported model, its base directory (the newest
            version then), or a run directory.
        inputs: Files or globs: Parquet, CSV or Avro, with the columns of training but
            for labels.
        output: The Parquet file to write, the scored rows in the order of the files:
            `row`, the row key, or `file` and `file_row` where the data have no key; and
            each output.
        dataset: Where a run's data set lies now, if it was moved.
        snapshot: Of a run, the model of this task's own best step; the run's choice
            where None.
        fusion: Which weights of a run make the output `score`: see
            `workflow.fusion.fusion_of`. An export has those that it was made with.
            `form: rank` is left out, since a file's rows come in blocks, not in lists.
        listener: Told about the progress.

    Returns:
        The counts; `written` are the scored rows.

    Raises:
        ConfigError: An argument is wrong.
        DataError: Model, run or files are damaged, or no row can be scored.
    """
    listener = listener or Silent()
    patterns = [inputs] if isinstance(inputs, str) else list(inputs)
    path = pathlib.Path(model_or_run)
    spec, predict = _load(path, dataset, snapshot, fusion, listener)
    listener.stage("score")
    path = pathlib.Path(output)
    reasons: collections.Counter[str] = collections.Counter()
    # The scores come last: where they are, counts and dead letters are theirs.
    with contextlib.ExitStack() as outer, contextlib.ExitStack() as inner:
        scores = _Sink(path, outer)
        rejected = _Sink(rejected_path(path), inner)
        for batch in read_served(spec, patterns):
            if isinstance(batch, ServedBatch):
                scores.write(_table(batch, predict(batch.inputs)))
                listener.advance(len(batch.file_row))
            else:
                rejected.write(batch)
                reasons.update(batch["reason"].to_pylist())
        if not scores.rows:
            told = dict(reasons.most_common(_REASONS))
            raise DataError(
                f"all {rejected.rows} rows were rejected; reasons: {told}"
                if rejected.rows
                else f"the files of {patterns} hold no rows"
            )
        if not rejected.rows:
            rejected.path.unlink(missing_ok=True)
        counts = RowCounts(
            read=scores.rows + rejected.rows,
            written=scores.rows,
            rejected=rejected.rows,
        )
        _write_counts(path, counts, reasons)
    for reason, number in reasons.most_common(_REASONS):
        listener.note(f"{number:,} rows rejected: {reason}")
    return counts


def rejected_path(output: pathlib.Path) -> pathlib.Path:
    """Where the dead letters of a file of scores lie."""
    return output.with_suffix(".rejected.parquet")


class _Sink:
    """A Parquet file that takes its schema from the first table.

    Args:
        path: The file; it appears, whole, when the stack is unwound without an error.
        stack: Holds what is open.
    """

    def __init__(self, path: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self.path = path
        self.rows = 0
        self._stack = stack
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Appends a table."""
        if self._writer is None:
            partial = self._stack.enter_context(atomic_file(self.path))
            writer = pq.ParquetWriter(partial, table.schema)
            self._writer = self._stack.enter_context(writer)
        self._writer.write_table(table)
        self.rows += table.num_rows


def _write_counts(
    output: pathlib.Path, counts: RowCounts, reasons: collections.Counter[str]
) -> None:
    document = {
        "read": counts.read,
        "scored": counts.written,
        "rejected": counts.rejected,
        "reasons": dict(reasons.most_common()),
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    atomic_write(output.with_suffix(".counts.json"), text)


def _load(
    path: pathlib.Path,
    dataset: Any,
    snapshot: str | None,
    fusion: FusionChoice,
    listener: Listener,
) -> tuple[DatasetSpec, Any]:
    """The data specification and a function from served inputs to NumPy outputs."""
    if (path / RUN).is_file():
        restored = restore(path, dataset, snapshot=snapshot)
        if restored.same_dataset is False:
            listener.note(
                f"the data set {str(restored.dataset)!r} is another one than the "
                "run's: raw values go through its transform graph"
            )
        outputs = restored.experiment.export.outputs
        fused = fusion_of(path, restored.experiment, fusion)
        module = serving_module(restored.model, restored.dataset, outputs, fused)
        spec, function = (
            restored.manifest.dataset,
            module.signatures()["serving_default"],
        )
    else:
        versions = list(versions_in(path).values())
        version = path if (path / EXPORT_FILE).is_file() else None
        if version is None and versions:
            version = versions[-1]
        if version is None:
            raise ConfigError(
                "`model_or_run` must be a run directory, a version of an exported "
                f"model, or its base directory. Received: {str(path)!r}"
            )
        if snapshot is not None:
            raise ConfigError(
                "`snapshot` is for a run: an exported model is one model. Received: "
                f"{snapshot!r} with the model {str(version)!r}"
            )
        if dataset is not None:
            raise ConfigError(
                "`dataset` is for a run: an exported model holds its transform graph. "
                f"Received: {str(dataset)!r} with the model {str(version)!r}"
            )
        if fusion != "found":
            raise ConfigError(
                "`fusion` is for a run: an exported model has the weights it was made "
                f"with. Received: {fusion!r} with the model {str(version)!r}"
            )
        card = read_export(version)
        fused = card.fusion
        spec, function = card.dataset, load_signature(version)
    left_out = SCORE if fused is not None and fused.form == "rank" else None
    if left_out:
        listener.note(
            f"`{SCORE}` is left out: `form: rank` compares the rows of a list, and the "
            "rows of a file come in blocks. See tfmtl.fusion.scores.fuse"
        )

    def predict(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(values) for name, values in columns.items()}
        answer = function(**tensors).items()
        return {k: v.numpy() for k, v in answer if k != left_out}

    return spec, predict


def _table(batch: ServedBatch, outputs: dict[str, np.ndarray]) -> pa.Table:
    columns: dict[str, Any] = {"row": batch.key}
    if batch.key is None:
        file = pa.array([batch.path] * len(batch.file_row), pa.string())
        columns = {"file": file, "file_row": pa.array(batch.file_row, pa.int64())}
    for name, values in sorted(outputs.items()):
        many = values.ndim > 1
        kind = pa.list_(pa.float32()) if many else pa.float32()
        columns[name] = pa.array(list(values) if many else values, kind)
    return pa.table(columns)
