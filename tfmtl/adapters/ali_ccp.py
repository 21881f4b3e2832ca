"""Ali-CCP: Taobao's clicks and purchases, in two forms that are passed around.

Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating
Post-Click Conversion Rate", SIGIR 2018. Reads either

- `ali_ccp_train*.csv`, `ali_ccp_val*.csv`, `ali_ccp_test*.csv`: the columns `click`,
  `purchase`, the publisher's field numbers (101 the user, 205 the item, 301 the
  scenario ...) one value each, and `D...` statistics (the form of the multi-scenario
  literature), or
- the text form of ESMM code: `number,click,purchase,field:value,field:value ...` in
  `*.txt` files, fields in any order and number. The fields of `LISTS` become lists, of
  the others the first value counts, and null where there is none.

Rows are impressions; `301` is the scenario. `split` is the part that the file's name
says; where there is no validation or test file, it is 80/10/10 by a hash of the row's
number. Files are streamed: 85 million rows pass through in the memory of one block.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import hashing, locate, raw, writing
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE = "https://tianchi.aliyun.com/dataset/408"
SINGLE = [
    "101",
    "121",
    "122",
    "124",
    "125",
    "126",
    "127",
    "128",
    "129",
    "205",
    "206",
    "207",
    "216",
    "301",
]
"""Fields of one value in both forms."""
LISTS = ["210", "508", "509", "702", "853", "109_14", "110_14", "127_14", "150_14"]
"""Fields that may have several values; one each in the CSV form."""
STATISTICS = [
    f"D{f}"
    for f in ["109_14", "110_14", "127_14", "150_14", "508", "509", "702", "853"]
]
COLUMNS = (
    {"click": raw.FLAG, "purchase": raw.FLAG}
    | dict.fromkeys((*SINGLE, *LISTS), raw.OPTIONAL_STRING)
    | dict.fromkeys(STATISTICS, raw.OPTIONAL_FLOAT)
)
_PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
_LINE = r"^\s*\d+\s*,\s*[01]\s*,\s*[01]\s*(,\s*\w+:[^,:]+\s*)+$"


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    rejects = raw.Rejects()
    text = False
    files = locate.find_optional(source, ["ali_ccp*.csv"])
    if not files:
        text = True
        patterns = ["*esmm*.txt", "*ccp*.txt", "*.txt"]
        what = "ali_ccp_train.csv (and _val, _test), or ESMM's text files"
        files = locate.find(source, patterns, what, SOURCE)
    listener.stage("write", None)
    tally = writing.Tally(("click", "purchase"), "301")
    read = _esmm_blocks if text else _csv_blocks
    blocks = tally.watch(_numbered(files, read, rejects))
    written = writing.write_logs(out, blocks, listener)
    rejects.write(out)
    return PrepareSummary(
        name="ali-ccp",
        rows_read=written + len(rejects),
        rows_written=written,
        duplicates_dropped=0,
        rows_rejected=len(rejects),
        positive_rates=tally.rates(),
        rows_by_scenario=tally.scenarios(),
        files=tuple(f.name for f in files),
        notes=(f"experiment: {experiment(out)}",),
    )


def experiment(out: pathlib.Path) -> str:
    """The worked experiment that fits what was written: lists, or one value each."""
    schema = writing.schema(out)
    lists = schema is not None and pa.types.is_list(schema.field("210").type)
    return "ali-ccp-esmm" if lists else "ali-ccp"


def _numbered(
    files: list[pathlib.Path],
    read: Callable[[pathlib.Path, raw.Rejects], Iterator[pa.Table]],
    rejects: raw.Rejects,
) -> Iterator[pa.Table]:
    """Blocks with `row_id` and `split`."""
    parts = [part_of(file) for file in files]
    start = 0
    for file, part in zip(files, parts):
        for block in read(file, rejects):
            rows = np.arange(start, start + block.num_rows)
            start += block.num_rows
            yield block.append_column("row_id", pa.array(rows)).append_column(
                "split", split_column(part, parts, rows)
            )


def part_of(file: pathlib.Path) -> int | None:
    """0 train, 1 validation, 2 test by a word of the file's name; None where it has
    none."""
    words = file.name.lower().replace(".", "_").replace("-", "_").split("_")
    found = [_PARTS[word] for word in words if word in _PARTS]
    return found[0] if found else None


def split_column(
    part: int | None, parts: list[int | None], rows: np.ndarray
) -> pa.Array:
    """Names of the split: the file's, or by hash what no file is there for.

    Args:
        part: The file's own.
        parts: Those of all files.
        rows: [rows] numbers to hash.
    """
    names = pa.array(hashing.SPLIT_NAMES)
    if part in (1, 2):
        return names.take(pa.array(np.full(len(rows), part)))
    validation = 0.0 if 1 in parts else 0.1
    test = 0.0 if 2 in parts else 0.1
    return names.take(pa.array(hashing.split(rows, validation, test)))


def _csv_blocks(file: pathlib.Path, rejects: raw.Rejects) -> Iterator[pa.Table]:
    yield from raw.read_blocks(file, COLUMNS, rejects)


def _esmm_blocks(file: pathlib.Path, rejects: raw.Rejects) -> Iterator[pa.Table]:
    """The text form: each line one string, taken apart column by column."""
    columns = {"line": raw.STRING}
    # No byte of these files is \x1e, so that a line is one field.
    for block in raw.read_blocks(
        file, columns, rejects, names=["line"], delimiter="\x1e", quoted=False
    ):
        lines = block["line"].combine_chunks()
        good = pc.match_substring_regex(lines, _LINE)
        wrong = lines.filter(pc.invert(good)).to_pylist()
        reason = "not number,click,purchase,field:value,..."
        rejects.add(file.name, [line[:1000] for line in wrong], [reason] * len(wrong))
        yield _esmm_table(lines.filter(good))


def _esmm_table(lines: pa.StringArray) -> pa.Table:
    rows = len(lines)
    tokens = pc.split_pattern(lines, ",")
    labels = [
        pc.cast(pc.utf8_trim_whitespace(pc.list_element(tokens, place)), pa.int64())
        for place in (1, 2)
    ]
    columns = {"click": labels[0], "purchase": labels[1]}
    flat = pc.utf8_trim_whitespace(pc.list_flatten(tokens))
    parent = pc.list_parent_indices(tokens).to_numpy()
    parsed = pc.extract_regex(flat, r"^(?P<field>\w+):(?P<value>.+)$")
    known = pc.is_valid(parsed).to_numpy(zero_copy_only=False)
    field = pc.struct_field(parsed, "field").dictionary_encode()
    number = pc.fill_null(field.indices, -1).to_numpy()
    value = pc.struct_field(parsed, "value")
    names = field.dictionary.to_pylist()
    for name in (*SINGLE, *LISTS):
        wanted = names.index(name) if name in names else len(names)
        at = np.flatnonzero(known & (number == wanted))
        if name in LISTS:
            lengths = np.bincount(parent[at], minlength=rows)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            columns[name] = pa.ListArray.from_arrays(
                pa.array(offsets), value.take(pa.array(at))
            )
        else:
            owners, first = np.unique(parent[at], return_index=True)
            place = np.zeros(rows, np.int64)
            has = np.zeros(rows, bool)
            place[owners], has[owners] = at[first], True
            columns[name] = value.take(pa.array(place, mask=~has))
    return pa.table(columns)
