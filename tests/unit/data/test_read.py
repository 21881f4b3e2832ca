"""The reader's order: complete, exact, repeatable and resumable."""

from __future__ import annotations

import collections
import gc
import itertools
import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl.data.read import Batch, Position, Reader
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import COLUMNS, tiny_columns, tiny_dataset, tiny_spec

ROWS = {"train": 230, "validation": 40, "test": 24}
Dataset = tuple[pathlib.Path, DatasetManifest]


def _write(folder: pathlib.Path, **options: Any) -> Dataset:
    return folder, tiny_dataset(folder, ROWS, files=3, **options)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return _write(tmp_path_factory.mktemp("blocks"))


@pytest.fixture(scope="module", params=["blocks", "rows", "gzip"])
def any_layout(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    options: dict[str, dict[str, Any]] = {
        "blocks": {},
        "rows": {"layout": "rows"},
        "gzip": {"compression": "gzip", "block_rows": 7},
    }
    return _write(tmp_path_factory.mktemp(request.param), **options[request.param])


def reader(dataset: Dataset, **changes: Any) -> Reader:
    settings: dict[str, Any] = {
        "splits": ("train",),
        "batch_size": 32,
        "pool_blocks": 3,
        "keys": True,
    }
    return Reader(*dataset, **{**settings, **changes})


def check_legal(dataset: Dataset, shuffle: str) -> None:
    """Skips what is refused, see `test_groups_need_blocks`."""
    if shuffle == "groups" and dataset[1].layout == "rows":
        pytest.skip("groups of one-row records are not kept together")


def batches(source: Reader, epoch: int = 0, start: int = 0) -> list[Batch]:
    return list(source.epoch(epoch, start))


def keys(found: list[Batch]) -> list[bytes]:
    return [k for b in found for k in b.keys["row"].numpy()]


ALL = collections.Counter(f"r{i}".encode() for i in range(230))


@pytest.mark.parametrize(
    ("shuffle", "pool_blocks"), [("rows", 1), ("rows", 3), ("groups", 2), ("none", 100)]
)
def test_every_row_exactly_once(
    any_layout: Dataset, shuffle: str, pool_blocks: int
) -> None:
    check_legal(any_layout, shuffle)
    source = reader(any_layout, shuffle=shuffle, pool_blocks=pool_blocks)
    found = batches(source)
    assert collections.Counter(keys(found)) == ALL
    assert [len(b.labels) for b in found] == [32] * 7 + [6]
    assert source.batches_per_epoch == 8
    assert source.rows == 230


def test_unshuffled_is_the_order_of_the_files(any_layout: Dataset) -> None:
    found = keys(batches(reader(any_layout)))
    assert found == [f"r{i}".encode() for i in range(230)]


@pytest.mark.parametrize("shuffle", ["rows", "groups"])
def test_order_is_a_function_of_seed_and_epoch(
    any_layout: Dataset, shuffle: str
) -> None:
    check_legal(any_layout, shuffle)

    def order(seed: int, epoch: int) -> list[bytes]:
        return keys(batches(reader(any_layout, shuffle=shuffle, seed=seed), epoch))

    base = order(1, 4)
    assert base == order(1, 4)
    assert base != order(1, 5)
    assert base != order(2, 4)
    assert base != sorted(base)


def test_rows_mix_within_a_pool_and_files_change_places(blocks: Dataset) -> None:
    found = keys(batches(reader(blocks, shuffle="rows", pool_blocks=100)))
    place = np.array([int(k[1:]) for k in found])
    # One pool of everything: neighbours are as far apart as by chance.
    assert np.abs(np.diff(place)).mean() == pytest.approx(230 / 3, rel=0.2)
    firsts = {
        int(keys(batches(reader(blocks, shuffle="rows", pool_blocks=1), e))[0][1:])
        // 77
        for e in range(8)
    }
    assert len(firsts) > 1


@pytest.mark.parametrize(
    ("shuffle", "pool_blocks"), [("rows", 1), ("rows", 2), ("groups", 3), ("none", 5)]
)
def test_resume_equals_the_tail(
    any_layout: Dataset, shuffle: str, pool_blocks: int
) -> None:
    check_legal(any_layout, shuffle)
    source = reader(any_layout, shuffle=shuffle, pool_blocks=pool_blocks, seed=3)
    whole = [b.keys["row"].numpy().tolist() for b in batches(source, 2)]
    for start in (1, 4, 7, 8):
        tail = [b.keys["row"].numpy().tolist() for b in batches(source, 2, start)]
        assert tail == whole[start:], start


def test_resume_brings_the_same_values_not_only_keys(blocks: Dataset) -> None:
    source = reader(blocks, shuffle="rows", pool_blocks=2)
    for a, b in zip(batches(source, 1)[3:], batches(source, 1, 3)):
        for name in a.features:
            np.testing.assert_array_equal(a.features[name], b.features[name])
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("batch_size", [32, 115, 230, 1000])
def test_resume_at_block_boundaries_and_at_the_end(
    blocks: Dataset, batch_size: int
) -> None:
    source = reader(blocks, shuffle="rows", batch_size=batch_size)
    whole = [b.keys["row"].numpy().tolist() for b in batches(source)]
    for start in range(source.batches_per_epoch + 1):
        tail = [b.keys["row"].numpy().tolist() for b in batches(source, 0, start)]
        assert tail == whole[start:]


def test_stream_never_mixes_epochs(blocks: Dataset) -> None:
    source = reader(blocks, shuffle="rows")
    found = list(source.stream(Position(1, 5), epochs=3))
    assert keys(found) == keys(batches(source, 1, 5)) + keys(batches(source, 2))


class TestShards:
    """Workers share the blocks and take the same number of batches."""

    @pytest.mark.parametrize("shuffle", ["rows", "none"])
    @pytest.mark.parametrize("count", [2, 3])
    def test_disjoint_equal_and_complete_up_to_the_cut(
        self, blocks: Dataset, shuffle: str, count: int
    ) -> None:
        for epoch in range(3):
            shards = [
                reader(blocks, shuffle=shuffle, shard=(i, count), batch_size=8)
                for i in range(count)
            ]
            found = [batches(s, epoch) for s in shards]
            wanted = shards[0].batches_per_epoch
            assert [len(f) for f in found] == [wanted] * count, epoch
            assert {s.batches_per_epoch for s in shards} == {wanted}
            seen = collections.Counter(k for f in found for k in keys(f))
            assert max(seen.values()) == 1
            assert not seen - ALL
            # At most one short block and one batch a shard are left out.
            assert sum(seen.values()) >= 230 - count * (16 + 8 + 16)

    def test_resume_equals_the_tail(self, blocks: Dataset) -> None:
        source = reader(blocks, shuffle="rows", shard=(1, 2), batch_size=8)
        whole = [b.keys["row"].numpy().tolist() for b in batches(source, 1)]
        for start in (1, 2, 5, len(whole)):
            tail = [b.keys["row"].numpy().tolist() for b in batches(source, 1, start)]
            assert tail == whole[start:]

    def test_more_shards_than_blocks(self, tmp_path: pathlib.Path) -> None:
        dataset = tmp_path, tiny_dataset(tmp_path, {"train": 40}, files=2)  # 4 blocks
        for index in range(4):
            source = reader(dataset, shuffle="rows", shard=(index, 4))
            assert len(batches(source)) == source.batches_per_epoch == 1
        with pytest.raises(DataError, match=r"`shard` .*train .*5 shards, 4 blocks"):
            reader(dataset, shard=(0, 5))

    def test_rows_layout_is_refused(self, tmp_path: pathlib.Path) -> None:
        source = reader(_write(tmp_path, layout="rows"), shard=(0, 2))
        with pytest.raises(ConfigError, match=r"`shard` needs .*`layout: blocks`"):
            batches(source)


def test_groups_stay_neighbours(tmp_path: pathlib.Path) -> None:
    # Files of 80 rows, blocks of 16, groups of 4: no group crosses a pool.
    folder = tmp_path / "aligned"
    dataset = folder, tiny_dataset(folder, {"train": 240}, files=3)
    orders = []
    for epoch in range(3):
        found = batches(reader(dataset, shuffle="groups"), epoch)
        groups = [g for b in found for g in b.keys["group"].numpy()]
        runs = 1 + sum(a != b for a, b in itertools.pairwise(groups))
        assert runs == len(set(groups)) == 60
        rows = [int(k[1:]) for k in keys(found)]
        for first in range(0, 240, 4):
            assert rows[first : first + 4] == sorted(rows[first : first + 4])
        orders.append(groups)
    assert orders[0] != orders[1] != orders[2]
    mixed = batches(reader(dataset, shuffle="rows"))
    groups = [g for b in mixed for g in b.keys["group"].numpy()]
    assert sum(a != b for a, b in itertools.pairwise(groups)) > 100


def test_rows_without_a_group_move_alone(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(64)
    # A row without a group first and last in each half; groups of 3 in between.
    columns["key/group"] = [
        b"" if i % 8 in (0, 7) else b"g%d" % (i // 8 * 2 + (i % 8 > 3))
        for i in range(64)
    ]
    columns["key/group"][16:32] = [b""] * 16
    manifest = write_records(
        tmp_path, tiny_spec(), COLUMNS, {"train": columns}, files=1, block_rows=32
    )
    source = reader((tmp_path, manifest), shuffle="groups", pool_blocks=2)
    following = 0
    for epoch in range(4):
        found = batches(source, epoch)
        rows = [int(k[1:]) for k in keys(found)]
        assert sorted(rows) == list(range(64))
        groups = [g for b in found for g in b.keys["group"].numpy()]
        named = [(g, r) for g, r in zip(groups, rows) if g]
        runs = 1 + sum(a[0] != b[0] for a, b in itertools.pairwise(named))
        assert runs == len({g for g, _ in named}) == 12
        following += sum(
            b == a + 1 for (a, b), g in zip(itertools.pairwise(rows), groups) if not g
        )
    # 28 such rows an epoch: hardly any is before the one that was written after it.
    assert following < 20


def test_the_graph_is_built_once(blocks: Dataset) -> None:
    source = reader(blocks, shuffle="rows")
    for epoch, start in ((0, 0), (0, 3), (1, 0), (5, 7)):
        batches(source, epoch, start)
    assert source._dataset.experimental_get_tracing_count() == 1


def test_a_reader_says_in_a_line_what_it_reads(blocks: Dataset) -> None:
    said = repr(reader(blocks, splits=("train", "test"), shuffle="rows", seed=4))
    assert said == (
        f"Reader(train+test of {str(blocks[0])!r}, batch_size=32, shuffle='rows', "
        "seed=4, shard=(0, 1))"
    )


def test_batches_outlive_their_reader(blocks: Dataset) -> None:
    wanted = keys(batches(reader(blocks, shuffle="rows")))
    dataset = reader(blocks, shuffle="rows").epoch()
    gc.collect()
    assert keys(list(dataset)) == wanted


def test_weights_reach_the_batch(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(64)
    columns["weight/like"] = np.arange(64) / 8
    weight = RecordColumn(name="weight/like", dtype="float")
    manifest = write_records(
        tmp_path, tiny_spec(), (*COLUMNS, weight), {"train": columns}
    )
    for batch in batches(reader((tmp_path, manifest), shuffle="rows")):
        rows = np.array([int(k[1:]) for k in batch.keys["row"].numpy()])
        np.testing.assert_array_equal(batch.weights[:, 1], rows / 8)
        np.testing.assert_array_equal(batch.weights[:, ::2], 1)


def test_values_match_what_was_written(any_layout: Dataset) -> None:
    truth = tiny_columns(230, seed=0)
    for shuffle in ("none", "rows"):
        for batch in batches(reader(any_layout, shuffle=shuffle)):
            rows = [int(k[1:]) for k in batch.keys["row"].numpy()]
            _check_values(batch, truth, rows)


def _check_values(batch: Batch, truth: dict[str, Any], rows: list[int]) -> None:
    for name, length in (("tags", 3), ("hist_item", 5), ("hist_age", 5)):
        padded = np.zeros((len(rows), length), np.int32)
        for place, row in enumerate(rows):
            values = truth[name][row]
            padded[place, : len(values)] = values
        np.testing.assert_array_equal(batch.features[name], padded)
    for name in ("user", "item", "scenario"):
        assert batch.features[name].dtype == "int32"
        np.testing.assert_array_equal(batch.features[name], truth[name][rows])
    for name in ("price", "price_missing", "text"):
        np.testing.assert_allclose(batch.features[name], truth[name][rows], rtol=1e-6)
    assert set(batch.features) == set(truth) - {k for k in truth if "/" in k}
    for t, task in enumerate(("click", "like", "buy")):
        label = truth[f"label/{task}"][rows].astype(np.float32)
        np.testing.assert_array_equal(batch.mask[:, t], ~np.isnan(label))
        np.testing.assert_array_equal(batch.labels[:, t], np.nan_to_num(label))
        np.testing.assert_array_equal(batch.weights[:, t], 1)
    users = [b"u%d" % u for u in truth["user"][rows]]
    assert batch.keys["user"].numpy().tolist() == users


def test_keys_and_columns_are_delivered_on_demand(blocks: Dataset) -> None:
    plain = batches(reader(blocks, keys=False, shuffle="groups"))[0]
    assert plain.keys == {}
    assert set(batches(reader(blocks))[0].keys) == {"row", "user", "group"}
    few = batches(reader(blocks, columns=("user", "tags"), keys=False))[0]
    assert set(few.features) == {"user", "tags"}
    assert few.labels.shape == [32, 3]


def test_splits_may_be_read_as_one(blocks: Dataset) -> None:
    source = reader(blocks, splits=("validation", "test"), batch_size=10)
    assert source.rows == 64
    rows = keys(batches(source))
    assert rows == [f"r{i}".encode() for i in [*range(40), *range(24)]]


class TestErrors:
    """Each names the argument, what was received and what is legal."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"splits": ("dev",)}, r"`split` .*'test', 'train', 'val.*Received: 'dev'"),
            ({"shard": (2, 2)}, r"`shard` .*0 <= index < count.*Received: \(2, 2\)"),
            ({"shuffle": "all"}, r"`shuffle` must be 'rows'.*Received: 'all'"),
        ],
    )
    def test_bad_arguments(
        self, blocks: Dataset, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            reader(blocks, **changes)

    def test_groups_need_their_key(self, blocks: Dataset) -> None:
        folder, manifest = blocks
        columns = tuple(c for c in manifest.columns if c.name != "key/group")
        other = manifest.model_copy(update={"columns": columns})
        with pytest.raises(ConfigError, match=r"`shuffle: groups` needs .*`key/group`"):
            reader((folder, other), shuffle="groups")

    def test_groups_need_blocks(self, tmp_path: pathlib.Path) -> None:
        rows = _write(tmp_path, layout="rows")
        with pytest.raises(ConfigError, match=r"`shuffle: groups` needs .*blocks"):
            reader(rows, shuffle="groups")

    def test_an_empty_split(self, blocks: Dataset) -> None:
        folder, manifest = blocks
        empty = manifest.splits["test"].model_copy(update={"files": (), "rows": 0})
        other = manifest.model_copy(update={"splits": {"test": empty}})
        with pytest.raises(DataError, match="split test has no rows"):
            reader((folder, other), splits=("test",))
