"""Batches with context items and negatives: exact, repeatable, resumable."""

from __future__ import annotations

import collections
import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl.data.read import Batch, Reader
from tfmtl.data.sampling import SamplingReader
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.schema.samples import SampleSpec
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import (
    COLUMNS,
    TIMED_KEYS,
    tiny_columns,
    tiny_dataset,
    tiny_spec,
)

Dataset = tuple[pathlib.Path, DatasetManifest]
ROWS = {"train": 230, "validation": 40}
ITEM_COLUMNS = ("item", "tags", "price", "price_missing", "text")
WINDOW, NEGATIVES = 2, 3
TIMED = (*COLUMNS, RecordColumn(name="key/timestamp", dtype="int"))


def _write(folder: pathlib.Path, layout: str = "blocks") -> Dataset:
    timed = tiny_spec(keys=TIMED_KEYS)
    return folder, tiny_dataset(folder, ROWS, spec=timed, files=3, layout=layout)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return _write(tmp_path_factory.mktemp("timed"))


@pytest.fixture(scope="module", params=["blocks", "rows"])
def any_layout(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return _write(tmp_path_factory.mktemp(request.param), request.param)


def spec(**changes: Any) -> SampleSpec:
    settings: dict[str, Any] = {
        "task": "click",
        "columns": ITEM_COLUMNS,
        "item": "item",
        "window": WINDOW,
        "negatives": NEGATIVES,
        "power": 0.75,
    }
    return SampleSpec(**{**settings, **changes})


def reader(dataset: Dataset, samples: SampleSpec | None = None, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "splits": ("train",),
        "batch_size": 32,
        "shuffle": "rows",
        "pool_blocks": 3,
        "seed": 4,
        "keys": True,
    }
    settings = {**settings, **changes, "samples": samples or spec()}
    return SamplingReader(*dataset, **settings)


def batches(source: Reader, epoch: int = 0, start: int = 0) -> list[Batch]:
    return list(source.epoch(epoch, start))


def same(left: list[Batch], right: list[Batch]) -> bool:
    assert len(left) == len(right)
    return all(
        set(a.features) == set(b.features)
        and all(np.array_equal(a.features[k], b.features[k]) for k in a.features)
        for a, b in zip(left, right)
    )


def clicks() -> dict[int, set[int]]:
    """Clicked row of the training split to the other clicks in its window."""
    columns = tiny_columns(230, 0)
    clicked = np.flatnonzero(np.asarray(columns["label/click"]) > 0)
    time, user = columns["key/timestamp"], columns["key/user"]
    found = {}
    for row in clicked:
        mine = sorted(
            (r for r in clicked if user[r] == user[row]), key=lambda r: (time[r], r)
        )
        place = mine.index(row)
        around = mine[max(0, place - WINDOW) : place + WINDOW + 1]
        found[int(row)] = {int(r) for r in around} - {int(row)}
    return found


def events_of(batch: Batch, prefix: str) -> np.ndarray:
    """The training rows that drawn items were taken from, checked in all columns."""
    columns = tiny_columns(230, 0)
    columns["tags"] = [[*tags, 0, 0, 0][:3] for tags in columns["tags"]]
    drawn = {c: batch.features[prefix + c].numpy() for c in ITEM_COLUMNS}
    prices = np.float32(columns["price"])
    order = np.argsort(prices)
    rows = order[np.searchsorted(prices, drawn["price"], sorter=order)]
    for name, values in drawn.items():
        wanted = np.asarray(columns[name])[rows].astype(values.dtype)
        np.testing.assert_array_equal(values, wanted, err_msg=name)
    return np.asarray(rows)


def test_the_context_is_a_click_of_the_window_each_alike(any_layout: Dataset) -> None:
    wanted = clicks()
    source, epochs = reader(any_layout, batch_size=100), 15
    seen: dict[int, collections.Counter[int]] = collections.defaultdict(
        collections.Counter
    )
    for epoch in range(epochs):
        for batch in batches(source, epoch):
            held = batch.features["context/mask"].numpy()
            drawn = events_of(batch, "context/")
            for n, name in enumerate(batch.keys["row"].numpy()):
                row = int(name[1:])
                assert held[n] == bool(wanted.get(row)), row
                if held[n]:
                    seen[row][drawn[n]] += 1
                else:
                    assert drawn[n] == row
    assert {*seen} == {r for r, window in wanted.items() if window}
    squares = []
    for row, counter in seen.items():
        assert set(counter) <= wanted[row]
        mean = epochs / len(wanted[row])
        squares += [(counter[other] - mean) ** 2 / mean for other in wanted[row]]
    freedom = sum(len(w) - 1 for w in wanted.values() if w)
    # Chi squared has this mean, and a deviation of sqrt(2 freedom).
    assert sum(squares) == pytest.approx(freedom, abs=4 * np.sqrt(2 * freedom))


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_negatives_follow_the_counts_of_clicked_items(
    dataset: Dataset, power: float
) -> None:
    columns = tiny_columns(230, 0)
    clicked = np.asarray(columns["label/click"]) > 0
    names, counts = np.unique(columns["item"][clicked], return_counts=True)
    share = counts**power / (counts**power).sum()
    epochs, negatives = 4, 40
    source = reader(dataset, spec(power=power, negatives=negatives), batch_size=115)
    drawn = np.concatenate(
        [
            b.features["negative/item"].numpy().ravel()
            for e in range(epochs)
            for b in batches(source, e)
        ]
    )
    assert len(drawn) == epochs * 230 * negatives
    assert set(drawn) == set(names)
    found = np.array([(drawn == n).sum() for n in names])
    freedom = len(names) - 1
    wanted = len(drawn) * share
    distance = ((found - wanted) ** 2 / wanted).sum()
    assert distance < freedom + 4 * np.sqrt(2 * freedom)
    # The same figure for another power is far off.
    other = counts ** (power + 0.5) / (counts ** (power + 0.5)).sum() * len(drawn)
    assert ((found - other) ** 2 / other).sum() > 100 * freedom


def test_negatives_are_whole_clicked_rows(dataset: Dataset) -> None:
    clicked = set(clicks())
    batch = batches(reader(dataset))[1]
    assert batch.features["negative/tags"].shape == [32, NEGATIVES, 3]
    assert batch.features["negative/text"].shape == [32, NEGATIVES, 3]
    rows = set(events_of(batch, "negative/").ravel())
    assert rows <= clicked and len(rows) > 20


@pytest.mark.parametrize("shuffle", ["rows", "none"])
def test_resume_draws_what_a_whole_run_draws(dataset: Dataset, shuffle: str) -> None:
    source = reader(dataset, shuffle=shuffle)
    whole = batches(source, 2)
    assert len(whole) == source.batches_per_epoch == 8
    again = reader(dataset, shuffle=shuffle)  # as a new process has
    for start in (1, 5, 8):
        assert same(batches(again, 2, start), whole[start:]), start


def test_draws_are_a_function_of_seed_and_epoch_and_batch(dataset: Dataset) -> None:
    plain = {"shuffle": "none"}
    source = reader(dataset, **plain)
    first = batches(source)
    assert same(first, batches(reader(dataset, **plain)))
    assert not same(first, batches(source, 1))
    assert not same(first, batches(reader(dataset, **plain, seed=5)))
    negatives = [b.features["negative/price"].numpy() for b in first]
    assert not np.array_equal(negatives[0], negatives[1])


def test_the_rest_is_what_the_plain_reader_gives(dataset: Dataset) -> None:
    settings = {"splits": ("train",), "batch_size": 32, "shuffle": "rows", "seed": 4}
    plain = batches(Reader(*dataset, **settings, pool_blocks=3))
    for a, b in zip(batches(reader(dataset, keys=False)), plain, strict=True):
        drawn = {k for k in a.features if "/" in k}
        assert drawn == {"context/mask"} | {
            f"{kind}/{c}" for kind in ("context", "negative") for c in ITEM_COLUMNS
        }
        assert set(a.features) - drawn == set(b.features)
        for name in b.features:
            np.testing.assert_array_equal(a.features[name], b.features[name])
            assert a.features[name].dtype == b.features[name].dtype
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.keys == b.keys == {}


def test_clicks_without_a_user_are_nobodys(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(60)
    columns["key/user"] = [b"" if i % 2 else b"one" for i in range(60)]
    columns["label/click"] = np.ones(60)
    manifest = write_records(
        tmp_path, tiny_spec(keys=TIMED_KEYS), TIMED, {"train": columns}
    )
    for batch in batches(reader((tmp_path, manifest))):
        known = batch.keys["user"].numpy() == b"one"
        np.testing.assert_array_equal(batch.features["context/mask"], known)


def test_a_missing_label_is_no_click(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(60)
    like = np.asarray(columns["label/like"])
    assert np.isnan(like).any()
    manifest = write_records(
        tmp_path, tiny_spec(keys=TIMED_KEYS), TIMED, {"train": columns}
    )
    for batch in batches(reader((tmp_path, manifest), spec(task="like", window=60))):
        row = [int(n[1:]) for n in batch.keys["row"].numpy()]
        assert not batch.features["context/mask"].numpy()[np.isnan(like[row])].any()


def test_the_same_impression_unclicked_has_no_context(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(60)
    for name, values in columns.items():  # every row twice
        columns[name] = [*values[:30], *values[:30]]
    columns["key/row"] = [f"r{i}".encode() for i in range(60)]
    columns["label/click"] = np.repeat([1.0, 0.0], 30)
    manifest = write_records(
        tmp_path, tiny_spec(keys=TIMED_KEYS), TIMED, {"train": columns}
    )
    found = batches(reader((tmp_path, manifest)))
    held = sum(int(b.features["context/mask"].numpy().sum()) for b in found)
    for batch in found:
        clicked = batch.labels[:, 0].numpy() > 0
        assert not batch.features["context/mask"].numpy()[~clicked].any()
    assert held > 0


# === What is refused ===


def test_keys_are_needed(tmp_path: pathlib.Path) -> None:
    for missing in ("user", "timestamp"):
        keys = {k: v for k, v in TIMED_KEYS.items() if k != missing}
        folder = tmp_path / missing
        manifest = tiny_dataset(folder, ROWS, spec=tiny_spec(keys=keys))
        message = rf"`dataset.keys` must name `user` and `timestamp`.*{missing} None"
        with pytest.raises(ConfigError, match=message):
            reader((folder, manifest))


def test_names_are_checked(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"`samples.task`.*'click'.*Received: 'buys'"):
        reader(dataset, spec(task="buys"))
    with pytest.raises(ConfigError, match=r"`samples.columns`.*\['label/click'\]"):
        reader(dataset, spec(columns=("item", "label/click")))
    with pytest.raises(ConfigError, match=r"`samples.columns`.*\['price'\]"):
        reader(dataset, spec(columns=("price",)), columns=("item",))
    narrow = reader(dataset, spec(columns=("item",)), columns=("item", "user"))
    drawn = {"context/mask", "context/item", "negative/item"}
    assert set(batches(narrow)[0].features) == {"item", "user"} | drawn


def test_a_split_without_a_positive_row(tmp_path: pathlib.Path) -> None:
    columns = tiny_columns(60)
    columns["label/click"] = np.zeros(60)
    manifest = write_records(
        tmp_path, tiny_spec(keys=TIMED_KEYS), TIMED, {"train": columns}
    )
    with pytest.raises(DataError, match=r"split train has no row.*'click'"):
        reader((tmp_path, manifest)).epoch()


def test_a_damaged_file_is_named(dataset: Dataset, tmp_path: pathlib.Path) -> None:
    manifest = dataset[1]
    with pytest.raises(DataError, match="a record file is missing"):
        reader((tmp_path, manifest)).epoch()


def test_shards_draw_from_all_events(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path, ROWS, spec=tiny_spec(keys=TIMED_KEYS))
    halves = [reader((tmp_path, manifest), shard=(i, 2)) for i in range(2)]
    whole = reader((tmp_path, manifest))
    for half in halves:
        for mine, all_ in zip(half._tables, whole._tables):
            np.testing.assert_array_equal(mine, all_)
    one, two = (batches(h)[0].features["negative/price"].numpy() for h in halves)
    assert not np.array_equal(one, two)
