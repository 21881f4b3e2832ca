"""Two data sets are one where their rows are, and not where their schema is."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from pipeline.preprocess import run
from tests.unit.pipeline.conftest import (
    make_experiment,
    make_frame,
    write_parquet,
    write_side_table,
)
from tests.unit.pipeline.records import frozen, read_blocks
from tests.unit.pipeline.test_preprocess import tiny, tiny_frame
from tfmtl.schema.manifest import (
    DatasetManifest,
    content_id,
    file_digest,
    read_dataset,
)
from tfmtl.testing.tiny import tiny_dataset


def made(folder: pathlib.Path, frame: Any, out: str, **options: Any) -> DatasetManifest:
    """The data set of a frame."""
    write_parquet(frame, folder / "log.parquet")
    return run(tiny(), str(folder / "log.parquet"), folder / out, **options)


def test_the_same_rows_give_the_same_id_and_others_another(
    tmp_path: pathlib.Path,
) -> None:
    frame = tiny_frame()
    one = made(tmp_path, frame, "one", shards=2)
    two = made(tmp_path, frame, "two", shards=2)
    frame.loc[17, "click"] = 1 - frame.loc[17, "click"]
    other = made(tmp_path, frame, "other", shards=2)
    assert len(bytes.fromhex(one.content_id)) == 16
    assert one.content_id == two.content_id
    assert one.content_id != other.content_id
    assert one.schema_hash == other.schema_hash
    assert read_dataset(tmp_path / "one").content_id == one.content_id


def test_how_rows_are_cut_is_content_too(
    tmp_path: pathlib.Path,
) -> None:
    frame = tiny_frame()
    plain = made(tmp_path, frame, "plain")
    assert made(tmp_path, frame, "cut", block_rows=7).content_id != plain.content_id
    assert made(tmp_path, frame, "shards", shards=2).content_id != plain.content_id
    assert made(tmp_path, frame, "rows", layout="rows").content_id != plain.content_id


def test_vectors_of_a_side_table_are_content(tmp_path: pathlib.Path) -> None:
    frame = make_frame(400)
    vectors = write_side_table(tmp_path)
    experiment = make_experiment(tmp_path)

    def made() -> DatasetManifest:
        write_parquet(frame, tmp_path / "log.parquet")
        log = str(tmp_path / "log.parquet")
        return run(experiment, log, tmp_path / "out", overwrite=True)

    ids = [made().content_id]
    vectors.vector = [[v[0] + 1.0, v[1]] for v in vectors.vector]
    vectors.to_parquet(tmp_path / "text.parquet")
    ids.append(made().content_id)
    assert ids[0] != ids[1]


def test_names_of_values_are_content_though_ids_stay(tmp_path: pathlib.Path) -> None:
    frame = tiny_frame()
    one = made(tmp_path, frame, "one")
    frame["item"] = frame["item"].str.replace("i", "j")
    two = made(tmp_path, frame, "two")
    rows = [
        frozen(read_blocks(tmp_path / out, manifest, "train"))
        for out, manifest in (("one", one), ("two", two))
    ]
    assert rows[0] == rows[1]
    assert one.content_id != two.content_id


@pytest.mark.parametrize("change", [{"a": "2"}, {"b": "1"}, {"c": "1"}])
def test_every_path_and_digest_counts(change: dict[str, str]) -> None:
    digests = {"a": "1", "b": "2"}
    assert content_id(digests | change) != content_id(digests)
    assert content_id({"b": "2", "a": "1"}) == content_id(digests)


def test_digest_of_a_file(tmp_path: pathlib.Path) -> None:
    import hashlib

    data = b"x" * 3_000_000
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.blake2b(data, digest_size=16).hexdigest()
    assert file_digest(tmp_path / "file") == expected


def test_tiny_data_sets_have_one_too(tmp_path: pathlib.Path) -> None:
    ids = [
        tiny_dataset(tmp_path / str(number), seed=seed).content_id
        for number, seed in enumerate((0, 0, 1))
    ]
    assert ids[0] == ids[1] != ids[2]
    assert all(ids)
