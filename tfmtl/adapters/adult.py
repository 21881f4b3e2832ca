"""Adult (UCI): income and marriage of 48,842 people, the MMoE paper's kind of test.

Becker & Kohavi, "Adult", UCI Machine Learning Repository, 1996. Reads `adult.data` and
`adult.test`. A row is a person; the test file is the test split, 10 % of the other one
are for validation. Labels: `income_high` (over 50K) and `never_married`.

`marital_status` is the source of a label and no input; `relationship` (husband, wife)
nearly is, so the experiment leaves it out. `fnlwgt` is a survey weight, no property of
the person. Equal rows are different people and stay. `?` is null.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import hashing, locate, raw, writing
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE = "https://archive.ics.uci.edu/dataset/2/adult"
COLUMNS = {
    "age": raw.INT,
    "workclass": raw.OPTIONAL_STRING,
    "fnlwgt": raw.INT,
    "education": raw.OPTIONAL_STRING,
    "education_num": raw.INT,
    "marital_status": raw.OPTIONAL_STRING,
    "occupation": raw.OPTIONAL_STRING,
    "relationship": raw.OPTIONAL_STRING,
    "race": raw.OPTIONAL_STRING,
    "sex": raw.OPTIONAL_STRING,
    "capital_gain": raw.INT,
    "capital_loss": raw.INT,
    "hours_per_week": raw.INT,
    "native_country": raw.OPTIONAL_STRING,
    "income": raw.STRING,
}


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    listener.stage("read", None)
    rejects = raw.Rejects()
    train_file = locate.find(source, ["adult.data"], "adult.data", SOURCE)[0]
    test_file = locate.find(source, ["adult.test"], "adult.test", SOURCE)[0]
    parts = [_people(f, rejects) for f in (train_file, test_file)]
    held = hashing.split(np.arange(parts[0].num_rows), validation=0.1, test=0.0)
    split = np.concatenate([held, np.full(parts[1].num_rows, 2)])
    table = with_split(pa.concat_tables(parts), split)
    return write_people("adult", table, [train_file, test_file], rejects, out, listener)


def _people(file: pathlib.Path, rejects: raw.Rejects) -> pa.Table:
    table = raw.read_table(
        file, COLUMNS, rejects, names=list(COLUMNS), quoted=False, comment="|"
    )
    table, wrong = set_aside(
        table, pc.match_substring_regex(table["income"], r"^\s*[<>]=?50K\.?\s*$")
    )
    rejects.add(file.name, wrong, ["income: neither <=50K nor >50K"] * len(wrong))
    return with_labels(table, pc.match_substring(table["income"], ">50K"))


def set_aside(table: pa.Table, good: pa.ChunkedArray) -> tuple[pa.Table, list[str]]:
    """The rows where `good`, and the text of the others."""
    rows = table.filter(pc.invert(good)).to_pylist()
    return table.filter(good), [",".join(str(v) for v in r.values()) for r in rows]


def with_labels(table: pa.Table, high: pa.ChunkedArray) -> pa.Table:
    """Adds the labels `income_high` and `never_married`; `?` becomes null."""
    never = pc.starts_with(pc.utf8_lower(table["marital_status"]), "never")
    null = pa.scalar(None, pa.string())
    for number, field in enumerate(table.schema):
        if field.type == pa.string():
            column = table[field.name]
            known = pc.if_else(pc.equal(column, "?"), null, column)
            table = table.set_column(number, field.name, known)
    return table.append_column("income_high", pc.cast(high, pa.int64())).append_column(
        "never_married", pc.cast(never, pa.int64())
    )


def with_split(table: pa.Table, split: np.ndarray) -> pa.Table:
    """Adds the row's number and the name of its split."""
    names = pa.array(hashing.SPLIT_NAMES).take(pa.array(split))
    return table.append_column(
        "row_id", pa.array(np.arange(table.num_rows))
    ).append_column("split", names)


def write_people(
    name: str,
    table: pa.Table,
    files: list[pathlib.Path],
    rejects: raw.Rejects,
    out: pathlib.Path,
    listener: Listener,
) -> PrepareSummary:
    """Writes a census table and says what was in it."""
    listener.stage("write", table.num_rows)
    bounds = writing.parts(table.num_rows)
    slices = (table.slice(first, last - first) for first, last in bounds)
    written = writing.write_logs(out, slices, listener)
    rejects.write(out)
    labels = ("income_high", "never_married")
    return PrepareSummary(
        name=name,
        rows_read=table.num_rows + len(rejects),
        rows_written=written,
        duplicates_dropped=0,
        rows_rejected=len(rejects),
        positive_rates={c: writing.rate(pc.drop_null(table[c])) for c in labels},
        rows_by_scenario=writing.counts(table["sex"]),
        files=tuple(f.name for f in files),
        notes=("equal rows are different people: none is dropped",),
    )
