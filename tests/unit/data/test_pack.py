"""The matrix of scalar columns gives back every bit."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.data.pack import PACKED, Packing
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.testing.tiny import tiny_dataset


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> DatasetManifest:
    made = tiny_dataset(tmp_path_factory.mktemp("tiny"), {"train": 8})
    timestamp = RecordColumn(name="key/timestamp", dtype="int")
    return made.model_copy(update={"columns": (*made.columns, timestamp)})


# Ids are denormals as floats; a NaN is a missing label.
IDS = np.array([0, 1, 2, 2**22, 2**31 - 1, 7, 3, 9], np.int32)
FLOATS = np.array([0, -0.0, 1e-45, -1e-40, np.nan, np.inf, 1.5, -3e38], np.float32)


def test_round_trip_of_a_cut(manifest: DatasetManifest) -> None:
    columns = {
        "user": tf.constant(IDS),
        "item": tf.constant(IDS[::-1].copy()),
        "price": tf.constant(FLOATS),
        "label/click": tf.constant(FLOATS[::-1].copy()),
        "text": tf.random.normal([8, 3]),
        "tags": tf.ones([8, 3], tf.int32),
        "key/row": tf.constant([f"r{i}" for i in range(8)]),
        "key/timestamp": tf.constant(IDS.astype(np.int64) + 2**60),
    }
    packing = Packing(manifest, tuple(columns))
    packed = packing.pack(columns)
    assert set(packed) == {PACKED, "text", "tags", "key/row", "key/timestamp"}
    assert packed[PACKED].shape == [8, 4]
    rows = [6, 1, 3, 2]
    found = packing.unpack({k: tf.gather(v, rows) for k, v in packed.items()})
    assert set(found) == set(columns)
    for name, values in columns.items():
        wanted = tf.gather(values, rows)
        assert found[name].dtype == wanted.dtype
        assert bits(found[name]) == bits(wanted), name


def bits(values: tf.Tensor) -> bytes:
    array = values.numpy()
    return b"|".join(array) if array.dtype == object else array.tobytes()


@pytest.mark.parametrize("names", [(), ("user",), ("price",), ("key/row", "text")])
def test_any_kind_of_column_may_be_absent(
    manifest: DatasetManifest, names: tuple[str, ...]
) -> None:
    every = {
        "user": tf.constant(IDS),
        "price": tf.constant(FLOATS),
        "key/row": tf.constant(["r"] * 8),
        "text": tf.zeros([8, 3]),
    }
    columns = {n: every[n] for n in names}
    packing = Packing(manifest, names)
    found = packing.unpack(packing.pack(columns))
    assert set(found) == set(names)
    for name in names:
        assert bits(found[name]) == bits(columns[name])
