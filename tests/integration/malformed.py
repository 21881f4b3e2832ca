"""What the table of malformed inputs works with: small files, commands, a server."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.integration.small import Chain
from tfmtl.schema.manifest import read_dataset

DATASET: dict[str, Any] = {
    "features": [
        {"name": "item", "kind": "categorical", "dim": 2},
        {"name": "price", "kind": "numeric"},
    ],
    "scenario": {"column": "page", "values": ["home", "search"]},
    "tasks": [{"name": "click", "label": "clicked"}],
    "keys": {"row": "row", "timestamp": "time"},
    "split": {"by": "time", "validation": 0.2, "test": 0.2},
}
"""Its columns fit a CSV file, too."""

WIDE: dict[str, Any] = {
    **DATASET,
    "features": [
        *DATASET["features"],
        {"name": "vec", "kind": "vector", "size": 2},
        {
            "name": "hist",
            "kind": "sequence",
            "max_length": 3,
            "columns": [
                {"name": "item", "column": "hist_item", "dim": 2},
                {"name": "age", "column": "hist_age", "boundaries": [1, 9], "dim": 2},
            ],
        },
    ],
    "tasks": [
        {"name": "click", "label": "clicked"},
        {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3},
        {"name": "buy", "label": "bought", "weight": "paid"},
        {
            "name": "dwell",
            "label": "seconds",
            "type": "regression",
            "transform": "log1p",
        },
    ],
}
"""Lists, a vector, weights, and a task of each type."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of an input.

    Attributes:
        code: Exit code or HTTP status; "kept" or "dead letter" for a row.
        text: What the user reads: the message, or the reason.
    """

    code: int | str
    text: str


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a case may use.

    Attributes:
        chain: The shared chain; read only.
        folder: An empty folder.
        tfmtl: Runs a command in this process.
        url: Of a server of the chain's model, which takes bodies up to 64 KiB.
        rows: Row to what became of it, see `preprocess_rows`.
    """

    chain: Chain
    folder: pathlib.Path
    tfmtl: Callable[..., Any]
    url: str
    rows: dict[str, Answer]

    def run(self, *arguments: object) -> Answer:
        """A command's exit code, and standard error; no output, no traceback."""
        result = self.tfmtl(*arguments)
        assert "Traceback" not in result.err, result.err
        return Answer(result.code, result.err)

    def file(self, name: str, content: str | bytes) -> pathlib.Path:
        """A file of this content."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def preprocess(self, file: object, dataset: dict[str, Any] = DATASET) -> Answer:
        """`tfmtl preprocess` of a file; whatever goes wrong, nothing is left behind."""
        experiment = self.file("experiment.yaml", yaml.safe_dump(document(dataset)))
        output = self.folder / "dataset"
        answer = self.run("preprocess", experiment, "--input", file, "--output", output)
        assert not list(self.folder.glob("*dataset*")), "something was written"
        return answer

    def check(self, text: str, name: str = "experiment.yaml") -> Answer:
        """`tfmtl config check` of a file."""
        return self.run("config", "check", self.file(name, text))

    def check_document(self, changed: dict[str, Any]) -> Answer:
        """`tfmtl config check` of a document."""
        return self.check(yaml.safe_dump(changed))

    def train(self, *arguments: object, dataset: object = None) -> Answer:
        """`tfmtl train` of the chain's experiment; it must not finish."""
        run = self.folder / "run"
        answer = self.run(
            *("train", self.chain.experiment),
            *("--dataset", dataset or self.chain.dataset, "--run", run),
            *arguments,
        )
        assert not (run / "result.json").exists()
        return answer

    def post(self, content: str | bytes, path: str = "small:predict") -> Answer:
        """The answer to a REST request, whose error is JSON."""
        url = f"{self.url}/v1/models/{path}"
        reply = httpx.post(url, content=content, timeout=60)
        document = reply.json()
        assert set(document) == {"error"}
        return Answer(reply.status_code, document["error"])

    def instance(self, **changes: Any) -> str:
        """The body of a predict request of one row, with inputs changed."""
        row: dict[str, Any] = {
            "user_id": "u", "item_id": "i", "user_city": "c", "scenario": "feed",
            "user_interests": [""], "item_price": 1.0, "item_age_days": 1.0,
            "item_content": [0.0] * 8, "shown": 0, "hist_item": [""],
            "hist_action": [""], "hist_age": [0.0],
        }  # fmt: skip
        return json.dumps({"instances": [row | changes]})


def document(dataset: dict[str, Any] = DATASET, **changes: Any) -> dict[str, Any]:
    """An experiment on a data specification, with values at dotted paths replaced.

    Args:
        dataset: The data specification.
        **changes: Path (`__` for the dot) to value.
    """
    whole: dict[str, Any] = {
        "name": "tiny",
        "dataset": copy.deepcopy(dataset),
        "model": {"class": "SharedBottom"},
    }
    for path, value in changes.items():
        *keys, last = path.split("__")
        node: Any = whole
        for key in keys:
            if isinstance(node, list):
                node = node[int(key)]
            else:
                node = node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value
    return whole


GOOD: dict[str, Any] = {
    "item": "a",
    "price": "1.5",
    "page": "home",
    "clicked": "1",
    "vec": [0.0, 1.0],
    "hist_item": ["a", "b"],
    "hist_age": [1.0, 2.0],
    "grade": 1.0,
    "bought": 0.0,
    "paid": 1.0,
    "seconds": 3.0,
}
"""A row of `WIDE` without fault. Text where a cell of the column is to be no number."""

TYPES = {
    "item": pa.binary(),
    "hist_item": pa.list_(pa.string()),
    "hist_age": pa.list_(pa.float64()),
    "vec": pa.list_(pa.float64()),
    "time": pa.string(),
}


def preprocess_rows(
    folder: pathlib.Path, rows: dict[str, dict[str, Any]], csv: dict[str, str]
) -> dict[str, Answer]:
    """Preprocesses bad rows among good ones and tells what became of each.

    Args:
        folder: To write to.
        rows: Row key to the cells that differ from `GOOD`; a Parquet file of `WIDE`.
        csv: Row key to a line of a CSV file of `DATASET`. The key must stand in it. The
            first one is the first row of the file, the rest stand behind the good ones.

    Returns:
        Row key to a dead letter with its reason, or to "kept" with what the records
        hold. `counts` has the counts of both jobs.
    """
    from pipeline.preprocess import run
    from tfmtl.schema.load import parse_experiment

    every = {f"good{n}": {} for n in range(60)} | rows
    cells = [
        GOOD | {"row": key, "time": str(1_600_000_000 + n)} | changes
        for n, (key, changes) in enumerate(every.items())
    ]
    table = pa.table(
        {c: pa.array([r[c] for r in cells], TYPES.get(c)) for c in cells[0]}
    )
    pq.write_table(table, folder / "rows.parquet")
    good = [f"c{n},a,1.5,home,1,{1_600_000_000 + n}" for n in range(60)]
    first, *others = csv.values()
    text = "\n".join(["row,item,price,page,clicked,time", first, *good, *others])
    (folder / "rows.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    found: dict[str, Answer] = {}
    for name, dataset in (("rows.parquet", WIDE), ("rows.csv", DATASET)):
        out = folder / f"{name}.dataset"
        manifest = run(
            parse_experiment(document(dataset)), str(folder / name), out, block_rows=64
        )
        assert manifest.counts.balanced
        keys = list(rows) if dataset is WIDE else list(csv)
        found |= _dead_letters(out, keys) | _kept(out, keys)
        found[f"{name} counts"] = Answer("counts", manifest.counts.model_dump_json())
    return found


def _dead_letters(dataset: pathlib.Path, keys: list[str]) -> dict[str, Answer]:
    found = {}
    for row in pq.read_table(dataset / "rejected").to_pylist():
        text = row["line"] or row["row"]
        for key in keys:
            if key in text:
                found[key] = Answer("dead letter", row["reason"])
    return found


def _kept(dataset: pathlib.Path, keys: list[str]) -> dict[str, Answer]:
    from tests.unit.pipeline.records import read_blocks

    manifest = read_dataset(dataset)
    found = {}
    for split in manifest.splits:
        for row in read_blocks(dataset, manifest, split):
            key = row["key/row"].decode()
            if key in keys:
                parts = [f"{n}={row[n]}" for n in ("scenario", "item", "label/click")]
                found[key] = Answer("kept", " ".join(parts))
    return found
