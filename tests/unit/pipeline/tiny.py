"""Small data specifications and batches for tests without Beam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.validate import Place, Validator
from tfmtl.schema.dataset import DatasetSpec

DATASET: dict[str, Any] = {
    "features": [{"name": "item", "kind": "categorical"}],
    "tasks": [{"name": "click", "label": "click"}],
    "split": {"by": "hash", "column": "item"},
}


def spec(**changes: Any) -> DatasetSpec:
    """`DATASET` with parts replaced."""
    return DatasetSpec.model_validate(DATASET | changes)


def validated(
    dataset: DatasetSpec, columns: dict[str, Any], path: str = "log.parquet"
) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """The canonical columns of the good rows, and the dead letters.

    Args:
        dataset: The data specification.
        columns: Raw columns: lists or arrays.
        path: File they come from.
    """
    batch = pa.record_batch({n: pa.array(v) for n, v in columns.items()})
    place = Place(0, path, np.arange(batch.num_rows))
    good, dead = Validator(dataset)(batch, place)
    return good.to_pydict(), [] if dead is None else dead.to_pylist()
