"""AliExpress: search impressions of several countries' markets, click and conversion.

Li et al., "Improving Multi-Scenario Learning to Rank in E-commerce by Exploiting Task
Relationships in the Label Space", CIKM 2020. Reads `*.csv` files with the columns
search_id, categorical_1 .. 16, numerical_1 .. 63, click, conversion. The market is the
scenario; it is in the name of the file or its folder (`AliExpress_NL/train.csv`), and
null where neither tells. A file named test is the test split, and 10 % of the searches
of the others are for validation; without one it is 80/10/10 by search. Files are
streamed.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import locate, raw, writing
from tfmtl.adapters.ali_ccp import part_of, split_column
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE = "https://tianchi.aliyun.com/dataset/74690"
MARKETS = ("NL", "FR", "US", "ES", "RU")
COLUMNS = (
    {"search_id": raw.INT}
    | {f"categorical_{i}": raw.OPTIONAL_STRING for i in range(1, 17)}
    | {f"numerical_{i}": raw.OPTIONAL_FLOAT for i in range(1, 64)}
    | {"click": raw.FLAG, "conversion": raw.FLAG}
)


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    rejects = raw.Rejects()
    patterns = ["*[Aa]li[Ee]xpress*.csv", "train.csv", "*.csv"]
    first = locate.find(source, patterns, "AliExpress_*/train.csv", SOURCE)
    files = sorted({*first, *locate.find_optional(source, ["test.csv"])})
    # Folders of several markets hold files of equal names.
    files = sorted({other for file in files for other in source.rglob(file.name)})
    listener.stage("write", None)
    tally = writing.Tally(("click", "conversion"), "market")
    written = writing.write_logs(out, tally.watch(_blocks(files, rejects)), listener)
    rejects.write(out)
    return PrepareSummary(
        name="aliexpress",
        rows_read=written + len(rejects),
        rows_written=written,
        duplicates_dropped=0,
        rows_rejected=len(rejects),
        positive_rates=tally.rates(),
        rows_by_scenario=tally.scenarios(),
        files=tuple(str(f.relative_to(source)) for f in files),
    )


def market_of(file: pathlib.Path) -> str | None:
    """The market in the name of a file or its folder, as a word of its own."""
    for name in (file.name, file.parent.name):
        for word in re.split(r"[^A-Za-z]+", name):
            if word.upper() in MARKETS:
                return word.upper()
    return None


def _blocks(files: list[pathlib.Path], rejects: raw.Rejects) -> Iterator[pa.Table]:
    parts = [part_of(file) for file in files]
    start = 0
    for file, part in zip(files, parts):
        market = market_of(file)
        code = MARKETS.index(market) if market else len(MARKETS)
        for block in raw.read_blocks(file, COLUMNS, rejects):
            rows = block.num_rows
            search = block["search_id"].to_numpy().astype(np.int64)
            group = pc.binary_join_element_wise(
                market or "", pc.cast(block["search_id"], pa.string()), "-"
            )
            split = split_column(part, parts, search * 8 + code)
            yield (
                block.append_column("row_id", pa.array(np.arange(start, start + rows)))
                .append_column("market", pa.array([market] * rows, pa.string()))
                .append_column("search", group)
                .append_column("split", split)
            )
            start += rows
