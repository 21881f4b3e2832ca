"""What a path holds: raw files, a prepared folder, or a dataset directory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from tfmtl.adapters.profile import profile
from tfmtl.adapters.summary import SUMMARY_FILE
from tfmtl.errors import DataError
from tfmtl.schema.manifest import DATASET_FILE, read_dataset


def describe(path: str | os.PathLike[str], *, top: int = 5) -> dict[str, object]:
    """Describes data by counting, a column at a time.

    Args:
        path: A Parquet or CSV file, a folder of them, a folder that `prepare` or
            `simulate` wrote, or a dataset directory of `preprocess`.
        top: How many frequent values to name of each column.

    Returns:
        `kind`: "dataset", with its `manifest`; or "prepared" (with the `summary` of
        `prepare` or `simulate`) or "files", with `rows` and `columns`, a list of
        `profile.ColumnProfile` as dicts with `null_share`.

    Raises:
        DataError: Nothing that can be read is there.
    """
    place = pathlib.Path(path)
    if not place.exists():
        raise DataError(
            "`path` must be a Parquet or CSV file, or a folder of them. Received: "
            f"{str(place)!r}, which is not there"
        )
    if (place / DATASET_FILE).is_file():
        manifest = json.loads(read_dataset(place).model_dump_json())
        return {"kind": "dataset", "path": str(place), "manifest": manifest}
    result: dict[str, object] = {"kind": "files", "path": str(place)}
    if (place / "logs").is_dir() and (place / SUMMARY_FILE).is_file():
        result["kind"] = "prepared"
        result["summary"] = json.loads((place / SUMMARY_FILE).read_text())
        place = place / "logs"
    columns = profile(place, top=top)
    result["rows"] = columns[0].rows if columns else 0
    result["columns"] = [
        dataclasses.asdict(c) | {"null_share": c.nulls / c.rows if c.rows else 0.0}
        for c in columns
    ]
    return result
