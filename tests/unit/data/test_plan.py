"""Where pools begin, and what they hold."""

from __future__ import annotations

import pytest

from tfmtl.data.plan import Plan
from tfmtl.schema.manifest import DatasetManifest, RecordFile
from tfmtl.testing.tiny import tiny_dataset

# Three files; blocks of 16 rows, the last one of a file shorter.
BLOCKS = [(16, 16, 4), (16, 16, 16), (16, 2)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> DatasetManifest:
    return tiny_dataset(tmp_path_factory.mktemp("tiny"), {"train": 8})


def plan(manifest: DatasetManifest, pool: int, shard: tuple[int, int] = (0, 1)) -> Plan:
    files = tuple(
        RecordFile(path=f"part-{i}", rows=sum(b), blocks=b)
        for i, b in enumerate(BLOCKS)
    )
    return Plan(manifest, files, pool, shard)


def test_blocks_are_dealt_out_to_the_shards(manifest: DatasetManifest) -> None:
    shards = [plan(manifest, 2, (i, 3)).blocks.tolist() for i in range(3)]
    assert shards == [[16, 16, 16], [16, 16, 2], [4, 16]]


@pytest.mark.parametrize(
    ("pool", "first", "even"),
    [
        (1, 0, [True, True, False, True, True, True, True, False]),
        (1, 5, [True, True, False]),
        (2, 0, [True, False, True, False]),
        (3, 0, [False, True, False]),
        (3, 3, []),
        (100, 0, [False]),
    ],
)
def test_even_pools_have_whole_blocks_only(
    manifest: DatasetManifest, pool: int, first: int, even: list[bool]
) -> None:
    assert plan(manifest, pool).even(first).tolist() == even


def test_rows_are_located_in_their_pool(manifest: DatasetManifest) -> None:
    made = plan(manifest, 2)
    places = {0: (0, 0), 31: (0, 31), 32: (1, 0), 51: (1, 19), 52: (2, 0), 101: (3, 17)}
    assert {row: made.locate(row) for row in places} == places


@pytest.mark.parametrize(
    ("shard", "pool", "first", "skip"),
    [
        ((0, 1), 0, "part-0", 0),
        ((0, 1), 1, "part-0", 2),
        ((0, 1), 2, "part-1", 1),
        ((0, 1), 3, "part-2", 0),
        ((1, 2), 1, "part-1", 1),
    ],
)
def test_a_source_starts_at_its_pool(
    manifest: DatasetManifest, shard: tuple[int, int], pool: int, first: str, skip: int
) -> None:
    source = plan(manifest, 2, shard).source(pool)
    assert (source.files[0].path, source.skip) == (first, skip)
    assert plan(manifest, 2, shard).source(4).files == ()
