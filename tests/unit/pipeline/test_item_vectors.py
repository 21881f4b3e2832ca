"""Item vectors: which sequences are read, and what is learnt from them."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import item_vectors, side_tables
from pipeline.item_vectors import ItemVectors
from tests.unit.pipeline.tiny import spec
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.manifest import VocabularyStats

COLUMNS = [
    {"name": "item", "column": "past", "vocabulary": "item"},
    {"name": "age", "column": "ages", "boundaries": [1.0]},
]
FEATURES = [
    {"name": "shown", "kind": "categorical", "vocabulary": "item"},
    {"name": "hist", "kind": "sequence", "columns": COLUMNS},
]
BY_TIME = {"by": "boundaries", "validation_from": 10, "test_from": 20, "gap": 2}
KEYS = {"user": "user", "timestamp": "time"}
QUICK = ItemVectors(size=8, epochs=40)


def dataset(**changes: Any) -> Any:
    standard = {"features": FEATURES, "split": BY_TIME, "keys": KEYS}
    return spec(vocabularies={"item": {}}, **{**standard, **changes})


def write(folder: pathlib.Path, rows: list[tuple[Any, ...]], split: Any = None) -> str:
    """A log of (user, time, past) rows."""
    user, time, past = zip(*rows)
    columns = {
        "user": pa.array(user),
        "time": pa.array(time, pa.int64()),
        "past": pa.array(past, pa.list_(pa.string())),
    }
    if split is not None:
        columns["part"] = pa.array(split, pa.string())
    file = folder / "log.parquet"
    pq.write_table(pa.table(columns), file)
    return str(file)


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "", 0),
        ("", "ab", 2),
        ("ab", "ab", 0),
        ("ab", "abc", 1),
        ("abc", "bcd", 1),  # the log cut a off
        ("abc", "cde", 2),
        ("abc", "xyz", 3),  # nothing in common: all of it
        ("aba", "abac", 1),
        ("abc", "", 0),
    ],
)
def test_new_events(before: str, now: str, new: int) -> None:
    assert item_vectors.new_events(before, now) == new


class TestSentences:
    def test_the_rows_of_a_user_become_one_sequence(self, tmp_path) -> None:
        rows = [
            ("u", 3, ["b", "c", "d"]),
            ("v", 2, ["x"]),
            ("u", 1, ["a", "b"]),
            ("u", 2, ["a", "b", "c"]),
        ]
        found = item_vectors.sentences(dataset(), [write(tmp_path, rows)], "past")
        assert found == [["a", "b", "c", "d"], ["x"]]

    def test_only_training_rows_are_read(self, tmp_path) -> None:
        rows = [
            ("u", 1, ["a", "b"]),
            ("u", 8, ["a", "b", "gap"]),
            ("u", 12, ["a", "b", "gap", "validation"]),
            ("u", 25, ["a", "b", "gap", "validation", "test"]),
            ("v", None, ["timeless", "b"]),
        ]
        found = item_vectors.sentences(dataset(), [write(tmp_path, rows)], "past")
        assert found == [["a", "b"]]

    def test_a_share_of_the_rows_by_time(self, tmp_path) -> None:
        rows = [("u", t, [f"i{t}", f"j{t}"]) for t in range(10)]
        split = {"by": "time", "validation": 0.2, "test": 0.2}
        (found,) = item_vectors.sentences(
            dataset(split=split), [write(tmp_path, rows)], "past"
        )
        assert found == [f"{k}{t}" for t in range(6) for k in "ij"]

    def test_a_split_that_a_column_gives(self, tmp_path) -> None:
        rows = [("u", 1, ["a", "b"]), ("u", 2, ["c", "d"]), ("v", 3, ["e"])]
        file = write(tmp_path, rows, split=["train", "test", None])
        split = {"by": "given", "column": "part"}
        assert item_vectors.sentences(dataset(split=split), [file], "past") == [
            ["a", "b"]
        ]

    def test_rows_without_a_value_to_hash_are_left_out(self, tmp_path) -> None:
        rows = [("", 1, ["a"]), *((f"u{i}", 1, [f"i{i}"]) for i in range(40))]
        split = {"by": "hash", "column": "user", "validation": 0.3, "test": 0.3}
        found = item_vectors.sentences(
            dataset(split=split), [write(tmp_path, rows)], "past"
        )
        assert ["a"] not in found
        assert 0 < len(found) < 40

    def test_missing_items_and_empty_sequences(self, tmp_path) -> None:
        rows = [("u", 1, []), ("v", 1, None), ("w", 1, [None, "a", "", "b"])]
        found = item_vectors.sentences(dataset(), [write(tmp_path, rows)], "past")
        assert found == [["a", "b"]]

    @pytest.mark.parametrize("user", ["", None])
    def test_rows_without_a_user_stand_alone(self, tmp_path, user) -> None:
        rows = [(user, 1, ["a", "b"]), (user, 2, ["a", "b"]), ("u", 1, ["c"])]
        found = item_vectors.sentences(dataset(), [write(tmp_path, rows)], "past")
        assert sorted(found) == [["a", "b"], ["a", "b"], ["c"]]

    def test_without_keys_each_row_stands_alone(self, tmp_path) -> None:
        rows = [("u", 1, ["a"]), ("u", 2, ["a", "b"]), ("u", 3, [])]
        file = write(tmp_path, rows, split=["train"] * 3)
        split = {"by": "given", "column": "part"}
        found = item_vectors.sentences(dataset(split=split, keys={}), [file], "past")
        assert found == [["a"], ["a", "b"]]

    def test_text_with_a_separator(self, tmp_path) -> None:
        file = tmp_path / "log.csv"
        file.write_text('user,time,past\nu,1,"7|8.0"\nu,2,"7|8|9"\nu,15,"7|8|9|1"\n')
        separated = [FEATURES[0], {**FEATURES[1], "separator": "|"}]
        found = item_vectors.sentences(dataset(features=separated), [file], "past")
        assert found == [["7", "8", "9"]]

    def test_an_empty_file(self, tmp_path) -> None:
        file = tmp_path / "log.parquet"
        types = {"user": pa.string(), "time": pa.int64(), "past": pa.list_(pa.string())}
        pq.write_table(pa.schema(list(types.items())).empty_table(), file)
        assert item_vectors.sentences(dataset(), [file], "past") == []

    def test_other_columns_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"Received: 'ages'.*\['past'\]"):
            item_vectors.sentences(dataset(), ["x.parquet"], "ages")


def worlds(rows: int = 60) -> list[list[str]]:
    """Sequences of a's and of b's that never meet."""
    draw = np.random.default_rng(0)
    return [
        [f"{'ab'[row % 2]}{draw.integers(6)}" for _ in range(8)] for row in range(rows)
    ]


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


class TestTrain:
    def test_items_that_occur_together_are_near(self) -> None:
        vectors = item_vectors.train(worlds(), QUICK).vectors
        names = sorted(vectors)
        assert names == [f"{w}{i}" for w in "ab" for i in range(6)]
        pairs = [(m, n) for m in names for n in names if m < n]
        within = [cosine(vectors[m], vectors[n]) for m, n in pairs if m[0] == n[0]]
        across = [cosine(vectors[m], vectors[n]) for m, n in pairs if m[0] != n[0]]
        assert min(within) > max(across)

    def test_a_seed_repeats_and_two_differ(self) -> None:
        def vectors(seed: int) -> np.ndarray:
            settings = ItemVectors(size=8, epochs=2, seed=seed)
            found = item_vectors.train(worlds(), settings).vectors
            return np.stack([found[name] for name in sorted(found)])

        np.testing.assert_array_equal(vectors(0), vectors(0))
        assert np.abs(vectors(0) - vectors(1)).max() > 1e-3

    def test_rare_items_have_no_vector(self) -> None:
        found = item_vectors.train([*worlds(), ["a1", "once"], ["alone"]], QUICK)
        assert "once" not in found.vectors and "alone" not in found.vectors
        assert (found.rare, found.sentences, found.events) == (1, 61, 60 * 8 + 2)

    @pytest.mark.parametrize("found", [[], [["a"], ["a"]], [["a", "b"], ["c", "d"]]])
    def test_nothing_to_learn_from(self, found) -> None:
        with pytest.raises(DataError, match=f"{len(found)} sequences"):
            item_vectors.train(found, QUICK)

    def test_without_gensim(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "gensim.models", None)
        with pytest.raises(ConfigError, match=r"pip install 'tfmtl\[w2v\]'"):
            item_vectors.train(worlds(), QUICK)


class TestRun:
    def test_the_file_is_a_side_table(self, tmp_path) -> None:
        rows = [(f"u{i}", 1, items) for i, items in enumerate(worlds())]
        rows.append(("late", 15, ["a1", "late", "a2", "late"]))
        out = tmp_path / "side" / "vectors.parquet"
        found = item_vectors.run(dataset(), [write(tmp_path, rows)], "past", out, QUICK)
        joined = dataset(
            features=[
                *FEATURES,
                {
                    "name": "w2v",
                    "kind": "vector",
                    "column": "vector",
                    "table": "vectors",
                    "size": 8,
                },
            ],
            side_tables={
                "vectors": {"path": str(out), "key": "item", "feature": "shown"}
            },
        )
        side_tables.check(joined)
        stats = {"item": VocabularyStats(size=2, rows=4, dropped=0, oov_buckets=1)}
        files, warnings = side_tables.write(
            joined, {"item": ["b3", "late"]}, stats, tmp_path
        )
        matrix = np.load(tmp_path / files["w2v"])
        np.testing.assert_array_equal(matrix[2], found.vectors["b3"])
        assert not matrix[[0, 1, 3]].any(), "an item of the test period has no vector"
        assert "no vector for 1 of 2 known values of 'shown'" in warnings[0]

    def test_the_feature_that_the_table_joins(self) -> None:
        assert item_vectors.item_feature(dataset(), "past") == "shown"
        lonely = [FEATURES[0], {**FEATURES[1], "columns": [{"name": "past"}]}]
        with pytest.raises(ConfigError, match=r"vocabulary 'hist_past'"):
            item_vectors.item_feature(dataset(features=lonely), "past")
