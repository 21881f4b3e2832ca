"""MovieLens: formats, histories, masked ratings, real counts."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.adapters.raws import write_movielens_1m, write_movielens_100k
from tfmtl.adapters import catalogue, movielens
from tfmtl.errors import DataError
from tfmtl.progress import Silent


def ratings(rows, seed=0):
    """Ratings of 4 users and 30 movies at few times."""
    random = np.random.default_rng(seed)
    pairs = random.permutation(120)[:rows]
    return [
        (
            int(p // 30 + 1),
            int(p % 30 + 1),
            int(random.integers(1, 6)),
            1000 + int(random.integers(8)),
        )
        for p in pairs
    ]


@pytest.fixture
def tiny(tmp_path):
    write_movielens_1m(tmp_path, ratings(120))
    summary = catalogue.prepare("movielens-1m", tmp_path, tmp_path / "out")
    return pq.read_table(tmp_path / "out" / "logs").to_pylist(), summary


def test_history_and_counters_against_loops(tiny):
    rows, _ = tiny
    masked = ties = 0
    for row in rows:
        of_user = [r for r in rows if r["user_id"] == row["user_id"]]
        before = [r for r in of_user if r["timestamp"] < row["timestamp"]]
        ties += sum(r["timestamp"] == row["timestamp"] for r in of_user) > 1
        assert row["history_movie"] == [r["movie_id"] for r in before]
        assert row["history_rating"] == [r["rating"] for r in before]
        train = [r["rating"] if r["split"] == "train" else None for r in before]
        assert row["history_rating_train"] == train
        masked += None in train
        assert row["user_ratings"] == len(before)
        known = [t for t in train if t is not None]
        mean = (sum(known) + 3.5 * 5) / (len(known) + 5)
        assert row["user_mean_train"] == pytest.approx(mean)
        of_movie = [
            r["rating"]
            for r in rows
            if r["movie_id"] == row["movie_id"] and r["timestamp"] < row["timestamp"]
        ]
        mean = (sum(of_movie) + 3.5 * 20) / (len(of_movie) + 20)
        assert row["movie_mean"] == pytest.approx(mean)
    assert masked > 3 and ties > 3


def test_labels_outside_train_are_in_no_masked_input(tmp_path):
    first = ratings(120)
    user, movie = (np.array([r[i] for r in first]) for i in (0, 1))
    held = movielens.random_split(user, movie) != 0
    assert held.any()
    second = [
        (u, m, 6 - r if h else r, t) for (u, m, r, t), h in zip(first, held.tolist())
    ]
    tables = []
    for name, rows in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        write_movielens_1m(tmp_path / name, rows)
        catalogue.prepare("movielens-1m", tmp_path / name, tmp_path / f"{name}-out")
        tables.append(pq.read_table(tmp_path / f"{name}-out" / "logs"))
    open_to_random = {"history_movie", "history_hours", "history_rating_train"}
    open_to_random |= {"user_mean_train", "movie_mean_train", "user_ratings"}
    for name in open_to_random:
        assert tables[0][name].equals(tables[1][name]), name
    assert not tables[0]["history_rating"].equals(tables[1]["history_rating"])
    assert not tables[0]["user_mean"].equals(tables[1]["user_mean"])


def test_features(tiny):
    rows, summary = tiny
    row = next(r for r in rows if r["user_id"] == 2 and r["movie_id"] == 3)
    assert row["title"] == "Amélie 3 (1993)" and row["year"] == 1993
    assert row["genres"] == ["Drama", "War"] and row["zip3"] == "700"
    assert row["row_id"] == "2-3"
    groups = {r["user_id"]: r["age_group"] for r in rows}
    assert groups == {1: "under_25", 2: "25_to_34", 3: "35_plus", 4: "under_25"}
    assert summary.rows_by_scenario == {"under_25": 60, "25_to_34": 30, "35_plus": 30}


def test_parts_of_a_gzipped_file_are_the_file(tmp_path, tiny):
    parts = tmp_path / "parts"
    parts.mkdir()
    lines = (tmp_path / "ratings.dat").read_bytes().splitlines(keepends=True)
    for name in ("users.dat", "movies.dat"):
        (parts / name).write_bytes((tmp_path / name).read_bytes())
    for number, part in ((1, lines[:50]), (2, lines[50:])):
        path = parts / f"ratings.part{number}.dat.gz"
        path.write_bytes(gzip.compress(b"".join(part)))
    catalogue.prepare("movielens-1m", parts, tmp_path / "other")
    assert pq.read_table(tmp_path / "other" / "logs").to_pylist() == tiny[0]


def test_malformed_ratings_are_rejected(tmp_path):
    write_movielens_1m(tmp_path, [(1, 1, 5, 10), (1, 2, 6, 11), (1, 3, 4, 12)])
    with (tmp_path / "ratings.dat").open("a") as file:
        file.write("1::4::3\n1::5::x::9\n")
    summary = catalogue.prepare("movielens-1m", tmp_path, tmp_path / "out")
    assert (summary.rows_read, summary.rows_written, summary.rows_rejected) == (5, 2, 3)
    reasons = pq.read_table(tmp_path / "out" / "rejected.parquet")["reason"].to_pylist()
    assert sorted(reasons) == [
        "3 fields instead of 4",
        "rating: 6 is no whole number from 1 to 5",
        "rating: x is no whole number from 1 to 5",
    ]


def test_100k_format(tmp_path):
    write_movielens_100k(tmp_path, [(1, 1, 5, 10), (2, 1, 3, 11), (1, 2, 4, 12)])
    summary = catalogue.prepare("movielens-100k", tmp_path, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "logs").to_pylist()
    assert summary.rows_written == 3
    assert rows[2]["history_movie"] == [1] and rows[2]["history_rating"] == [5]
    assert rows[0]["genres"] == ["Action", "Adventure"] and rows[0]["year"] == 1995
    assert [r["age_group"] for r in rows] == ["under_25", "35_plus", "under_25"]


def test_missing_file(tmp_path):
    write_movielens_1m(tmp_path, ratings(5))
    (tmp_path / "users.dat").unlink()
    with pytest.raises(DataError, match=r"users\.dat.*grouplens"):
        catalogue.prepare("movielens-1m", tmp_path, tmp_path / "out")


def test_random_split_is_80_10_10_and_uncorrelated_with_the_user():
    user, movie = (g.ravel() for g in np.meshgrid(np.arange(500), np.arange(200)))
    split = movielens.random_split(user, movie)
    shares = np.bincount(split) / len(split)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.004)
    by_user = np.bincount(user, weights=split == 2) / 200
    assert by_user.std() == pytest.approx((0.09 / 200) ** 0.5, rel=0.2)


def test_real_100k(tmp_path, real_data):
    raw = real_data("movielens-100k")
    summary = catalogue.prepare("movielens-100k", raw, tmp_path / "out")
    assert summary.rows_written == 100_000
    rating = pq.read_table(tmp_path / "out" / "logs", columns=["rating"])["rating"]
    shares = np.bincount(rating.to_numpy())[1:] / 1000
    np.testing.assert_allclose(shares, [6.1, 11.4, 27.2, 34.2, 21.2], atol=0.06)


def test_real_1m_counts(tmp_path, real_data, monkeypatch):
    # The counts only: the real 100k above goes through the same code to the files.
    def count(directory, tables, listener):
        return 1_000_209

    monkeypatch.setattr(movielens.writing, "write_logs", count)
    summary = movielens.prepare_1m(real_data("movielens-1m"), tmp_path, Silent())
    assert summary.rows_read == 1_000_209 and summary.rows_rejected == 0
    assert summary.duplicates_dropped == 0
    assert summary.rows_by_scenario == {
        "25_to_34": 395_556,
        "35_plus": 393_906,
        "under_25": 210_747,
    }
    assert summary.positive_rates["rating >= 4"] == pytest.approx(0.575, abs=5e-4)
    assert summary.positive_rates["rating == 5"] == pytest.approx(0.226, abs=5e-4)


def test_an_empty_log(tmp_path):
    write_movielens_1m(tmp_path, [])
    summary = catalogue.prepare("movielens-1m", tmp_path, tmp_path / "out")
    assert summary.rows_read == summary.rows_written == 0
    assert pq.read_table(tmp_path / "out" / "logs").num_rows == 0
