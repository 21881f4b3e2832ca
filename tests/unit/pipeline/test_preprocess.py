"""Layouts, blocks, groups, counts, splits and refusals of the whole job."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.preprocess import main, run
from tests.unit.pipeline.conftest import (
    BLOCK_ROWS,
    Small,
    make_experiment,
    make_frame,
    write_parquet,
    write_side_table,
)
from tests.unit.pipeline.records import frozen, read_blocks, read_rows
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import read_dataset

TINY: dict[str, Any] = {
    "features": [
        {"name": "item", "kind": "categorical"},
        {"name": "price", "kind": "numeric"},
    ],
    "tasks": [{"name": "click", "label": "click"}],
    "keys": {"row": "row", "timestamp": "time"},
    "split": {"by": "time", "validation": 0.2, "test": 0.2},
}


def tiny(**changes: Any) -> Experiment:
    """An experiment with two features and one task."""
    dataset = TINY | changes
    return parse_experiment(
        {"name": "tiny", "dataset": dataset, "model": {"class": "MMoE"}}
    )


def tiny_frame(rows: int = 100) -> pd.DataFrame:
    """Rows for `tiny`."""
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "item": [f"i{k}" for k in random.integers(0, 9, rows)],
            "price": random.normal(size=rows),
            "click": random.integers(0, 2, rows),
            "time": np.arange(rows) // 2,
        }
    )


def test_manifest_on_disk_is_the_one_returned(small: Small) -> None:
    assert read_dataset(small.folder) == small.manifest
    names = {p.name for p in small.folder.iterdir()}
    assert names == {
        *("dataset.json", "transform", "vocabulary", "side"),
        *("train", "validation", "test"),
    }
    assert not list(small.folder.parent.glob(".*"))


def test_blocks_hold_whole_groups(small: Small) -> None:
    for split in ("train", "validation", "test"):
        rows = read_blocks(small.folder, small.manifest, split)
        place: dict[bytes, set[int]] = {}
        at = 0
        for file in small.manifest.splits[split].files:
            for block, size in enumerate(file.blocks):
                assert size <= BLOCK_ROWS + 7
                for row in rows[at : at + size]:
                    where = hash((file.path, block))
                    place.setdefault(row["key/group"], set()).add(where)
                at += size
        assert all(len(blocks) == 1 for blocks in place.values())


def test_rows_layout_gzip_and_csv_hold_the_same_rows(
    small: Small, tmp_path: pathlib.Path
) -> None:
    frame = small.frame.copy()
    for name in ("past_items", "past_ages", "embedding"):
        frame = frame.drop(columns=name)
    frame.to_csv(tmp_path / "log.csv.gz", index=False)
    write_parquet(frame, tmp_path / "log.parquet")
    features = [
        f
        for f in small.experiment.dataset.model_dump(mode="json")["features"]
        if f["name"] not in ("history", "embedding")
    ]
    write_side_table(tmp_path)
    experiment = make_experiment(tmp_path, features=features)
    by_rows = run(
        experiment,
        str(tmp_path / "log.parquet"),
        tmp_path / "rows",
        layout="rows",
        compression="gzip",
        shards=3,
    )
    by_blocks = run(
        experiment, [str(tmp_path / "*.csv.gz")], tmp_path / "blocks", shards=3
    )
    for split in ("train", "validation", "test"):
        one = read_rows(tmp_path / "rows", by_rows, split)
        assert len(one) == by_rows.splits[split].rows
        assert len(by_rows.splits[split].files) == 3
        assert frozen(one) == frozen(read_blocks(tmp_path / "blocks", by_blocks, split))


def test_a_second_run_gives_the_same_rows_in_the_same_order(
    tmp_path: pathlib.Path,
) -> None:
    write_parquet(tiny_frame(), tmp_path / "log.parquet")
    rows = []
    for name in ("a", "b"):
        manifest = run(tiny(), str(tmp_path / "log.parquet"), tmp_path / name, shards=2)
        rows.append(read_blocks(tmp_path / name, manifest, "train"))
    assert repr(rows[0]) == repr(rows[1])
    # They are shuffled: not in the order of the log.
    keys = [int(r["key/row"]) for r in rows[0]]
    assert keys != sorted(keys)


def test_rejected_duplicates_and_dropped_are_counted(tmp_path: pathlib.Path) -> None:
    frame = tiny_frame().astype({"click": object, "price": object})
    frame.loc[3, "click"] = 2
    frame.loc[4, "price"] = "dear"
    frame.loc[5, "item"] = "x" * 10_000_000
    frame.loc[6, "time"] = None
    frame = pd.concat([frame, frame.iloc[10:25], frame.iloc[10:12]])
    lines = frame.to_csv(index=False) + "1,2\n1,2,3,4,5,6,7\n"
    (tmp_path / "log.csv").write_text(lines)
    experiment = tiny(
        deduplicate=True,
        split={"by": "boundaries", "validation_from": 30, "test_from": 40, "gap": 2},
    )
    manifest = run(experiment, str(tmp_path / "log.csv"), tmp_path / "out")
    counts = manifest.counts
    assert (counts.read, counts.rejected, counts.duplicates) == (119, 6, 17)
    assert counts.dropped == 8  # times 28, 29, 38 and 39, two rows each
    assert counts.written == 119 - 6 - 17 - 8
    assert [manifest.splits[s].rows for s in manifest.splits] == [52, 16, 20]
    assert manifest.rejected == {
        "column 'item': text over 1,000,000 bytes": 1,
        "column 'price': not a number": 1,
        "column 'time': missing or not a time": 1,
        "task 'click': the label is not 0 or 1": 1,
        "wrong number of fields": 2,
    }
    dead = pq.read_table(tmp_path / "out" / "rejected").to_pandas()
    assert sorted(dead.file_row) == [3, 4, 5, 6, 117, 118]
    assert dead.set_index("file_row").price[4] == "dear"
    assert dead.set_index("file_row").row[4] == "4"
    assert dead.item.str.len().max() == 65_536
    assert sorted(dead.line.dropna()) == ["1,2", "1,2,3,4,5,6,7"]


def test_a_value_seen_only_in_test_is_unknown(tmp_path: pathlib.Path) -> None:
    frame = tiny_frame()
    frame.loc[99, "item"] = "late"
    write_parquet(frame, tmp_path / "log.parquet")
    manifest = run(tiny(), str(tmp_path / "log.parquet"), tmp_path / "out")
    rows = read_blocks(tmp_path / "out", manifest, "test")
    assert [r["item"] for r in rows if r["key/row"] == b"99"] == [1]
    assert "late" not in (tmp_path / "out/vocabulary/item.txt").read_text()


def test_leakage_is_told_with_feature_task_and_figure(tmp_path: pathlib.Path) -> None:
    frame = tiny_frame(1000)
    frame["price"] = frame.click * 2.0 + np.random.default_rng(0).random(1000)
    write_parquet(frame, tmp_path / "log.parquet")
    manifest = run(tiny(), str(tmp_path / "log.parquet"), tmp_path / "out")
    (warning,) = manifest.warnings
    assert "'price'" in warning
    assert "'click'" in warning
    assert "AUC 1.0000" in warning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"split": {"by": "boundaries", "validation_from": 1e6}},
            "the validation split",
        ),
        ({"split": {"by": "boundaries", "validation_from": -1}}, "the train split"),
        (
            {"features": [{"name": "itm", "kind": "categorical", "column": "itme"}]},
            r"lacks the column\(s\) 'itme' \(close: 'time', 'item'\)",
        ),
    ],
)
def test_refused_with_the_reason(
    tmp_path: pathlib.Path, changes: dict[str, Any], message: str
) -> None:
    write_parquet(tiny_frame(), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        run(tiny(**changes), str(tmp_path / "log.parquet"), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_damaged_files_are_named(tmp_path: pathlib.Path) -> None:
    write_parquet(tiny_frame(5000), tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    broken = bytearray(whole)
    broken[100:3000] = b"\xff" * 2900
    cases = {
        "cut.parquet": whole[: len(whole) // 2],
        "empty.parquet": b"",
        "empty.csv": b"",
        "cut.csv.gz": b"\x1f\x8b\x08\x00",
        "bad.avro": b"nothing",
        "inside.parquet": bytes(broken),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            run(tiny(), str(tmp_path / name), tmp_path / "out")
    (tmp_path / "head.csv").write_text("row,item,price,click,time\n")
    with pytest.raises(DataError, match="no rows"):
        run(tiny(), str(tmp_path / "head.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_avro(tmp_path: pathlib.Path) -> None:
    import fastavro

    kinds = {"row": "long", "item": "string", "price": "double"}
    kinds |= {"click": "int", "time": "long"}
    schema = {
        "type": "record",
        "name": "Log",
        "fields": [{"name": n, "type": t} for n, t in kinds.items()],
    }
    frame = tiny_frame()
    with open(tmp_path / "log.avro", "wb") as stream:
        fastavro.writer(stream, schema, frame.to_dict("records"))
    write_parquet(frame, tmp_path / "log.parquet")
    manifests = [
        run(tiny(), str(tmp_path / f"log.{kind}"), tmp_path / kind)
        for kind in ("avro", "parquet")
    ]
    one, two = (
        frozen(read_blocks(tmp_path / kind, manifest, "train"))
        for kind, manifest in zip(("avro", "parquet"), manifests)
    )
    assert one == two


def test_a_runner_that_loses_rows_fails_the_job(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import stages

    whole = stages.Ingest._cut

    def lossy(self: Any, batch: Any) -> Any:
        yield from list(whole(self, batch))[1:]

    monkeypatch.setattr(stages.Ingest, "_cut", lossy)
    write_parquet(tiny_frame(), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="lost or repeated data"):
        run(tiny(), str(tmp_path / "log.parquet"), tmp_path / "out", shards=2)
    assert not (tmp_path / "out").exists()


def test_arguments_are_checked_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="`layout`"):
        run(tiny(), "x.parquet", tmp_path / "out", layout="wide")
    with pytest.raises(ConfigError, match="matches no file"):
        run(tiny(), str(tmp_path / "none*.parquet"), tmp_path / "out")
    (tmp_path / "log.xlsx").write_text("")
    with pytest.raises(ConfigError, match="must end in"):
        run(tiny(), str(tmp_path / "log.xlsx"), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(ConfigError, match="empty folder"):
        run(tiny(), "x.parquet", tmp_path / "full")


def test_groups_need_blocks(tmp_path: pathlib.Path) -> None:
    dataset = TINY | {"keys": {"timestamp": "time", "group": "row"}}
    experiment = parse_experiment(
        {
            "name": "tiny",
            "dataset": dataset,
            "model": {"class": "MMoE"},
            "training": {"shuffle": "groups"},
        }
    )
    with pytest.raises(ConfigError, match=r"shuffle: groups.*layout: blocks.*'rows'"):
        run(experiment, "x.parquet", tmp_path / "out", layout="rows")


@pytest.mark.parametrize("output", ["gs://bucket/data", "s3:/bucket", "hdfs://a/b"])
def test_an_object_store_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no URL of an object store"):
        run(tiny(), "x.parquet", output)
    assert not list(tmp_path.iterdir())


def test_command_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    (tmp_path / "e.json").write_text(tiny().model_dump_json(by_alias=True))
    write_parquet(tiny_frame(), tmp_path / "log.parquet")
    arguments = [str(tmp_path / "e.json"), "--input", str(tmp_path / "*.parquet")]
    arguments += ["--output", str(tmp_path / "out")]
    assert main([*arguments, "--", "--direct_num_workers=1"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 100
    assert main(arguments) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_importing_the_package_is_cheap() -> None:
    import subprocess

    code = (
        "import sys, pipeline.preprocess; "
        "assert not {'tensorflow', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_differ_by_seed() -> None:
    assert not make_frame(50, seed=0).price.equals(make_frame(50, seed=1).price)
