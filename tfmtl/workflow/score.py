"""Raw rows -> predictions, without a server."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.served import ServedBatch, read_served
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.export.saved_model import load_signature, serving_module
from tfmtl.files import atomic_file
from tfmtl.progress import Listener, Silent
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import EXPORT_FILE, read_export
from tfmtl.training.rundir import RUN
from tfmtl.workflow.restore import restore


def score(
    model_or_run: str | pathlib.Path,
    inputs: Sequence[str] | str,
    output: str | pathlib.Path,
    *,
    dataset: str | pathlib.Path | None = None,
    listener: Listener | None = None,
) -> int:
    """Predicts every row of raw files with an export or a run.

    The graph is the served one, so that predictions are the server's.

    Args:
        model_or_run: A version of an exported model, its base directory (the newest
            version then), or a run directory.
        inputs: Files or globs: Parquet, CSV or Avro, with the columns of training but
            for labels.
        output: The Parquet file to write, one row for each row read, in order: the row
            key where the data have one, each output, and `error` for a row that does
            not parse (its outputs are null).
        dataset: Where a run's data set lies now, if it was moved.
        listener: Told about the progress.

    Returns:
        Rows written.

    Raises:
        ConfigError: An argument is wrong.
        DataError: Model, run or files are damaged.
    """
    listener = listener or Silent()
    patterns = [inputs] if isinstance(inputs, str) else list(inputs)
    spec, predict = _load(pathlib.Path(model_or_run), dataset)
    listener.stage("score")
    total = 0
    with atomic_file(output) as partial:
        writer: pq.ParquetWriter | None = None
        for batch in read_served(spec, patterns):
            table = _table(batch, predict(batch.inputs))
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            total += table.num_rows
            listener.advance(table.num_rows)
        if writer is None:
            raise DataError(f"the files of {patterns} hold no rows")
        writer.close()
    return total


def _load(path: pathlib.Path, dataset: Any) -> tuple[DatasetSpec, Any]:
    """The data specification and a function from served inputs to NumPy outputs."""
    if (path / RUN).is_file():
        restored = restore(path, dataset)
        outputs = restored.experiment.export.outputs
        module = serving_module(restored.model, restored.dataset, outputs)
        spec, function = (
            restored.manifest.dataset,
            module.signatures()["serving_default"],
        )
    else:
        versions = sorted(
            (p for p in path.glob("*") if p.name.isdigit()), key=lambda p: int(p.name)
        )
        version = (
            path
            if (path / EXPORT_FILE).is_file()
            else (versions[-1] if versions else None)
        )
        if version is None:
            raise ConfigError(
                "`model_or_run` must be a run directory, a version of an exported "
                f"model, or its base directory. Received: {str(path)!r}"
            )
        spec, function = read_export(version).dataset, load_signature(version)

    def predict(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(values) for name, values in columns.items()}
        return {k: v.numpy() for k, v in function(**tensors).items()}

    return spec, predict


def _table(batch: ServedBatch, outputs: dict[str, np.ndarray]) -> pa.Table:
    columns: dict[str, Any] = {}
    if batch.key is not None:
        columns["row"] = batch.key
    failed = np.array([e is not None for e in batch.errors])
    for name, values in sorted(outputs.items()):
        if values.ndim > 1:
            column = pa.array(list(values), pa.list_(pa.float32()), mask=failed)
        else:
            column = pa.array(values, pa.float32(), mask=failed)
        columns[name] = column
    columns["error"] = pa.array(batch.errors, pa.string())
    return pa.table(columns)
