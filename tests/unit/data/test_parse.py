"""Both ways to parse a block give the same columns."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.data import parse
from tfmtl.testing.tiny import tiny_columns, tiny_dataset


def test_even_and_uneven_blocks_parse_alike(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path, {"train": 48}, files=1)
    path = str(tmp_path / manifest.splits["train"].files[0].path)
    records = next(iter(tf.data.TFRecordDataset(path).batch(3)))
    names = parse.wanted_columns(manifest, None, keys=True)
    even, uneven = (
        parse.parse_pool(records, manifest, names, tf.constant(flag))
        for flag in (True, False)
    )
    assert set(even) == set(uneven) == set(names)
    truth = tiny_columns(48, seed=0)
    for name in names:
        assert even[name].dtype == uneven[name].dtype
        np.testing.assert_array_equal(even[name], uneven[name], err_msg=name)
    np.testing.assert_array_equal(even["user"], truth["user"])
    assert even["text"].shape == [48, 3]
    assert even["hist_item"].shape == [48, 5]


def test_blocks_of_another_size_are_refused_where_promised(
    tmp_path: pathlib.Path,
) -> None:
    manifest = tiny_dataset(tmp_path, {"train": 8}, files=1)
    path = str(tmp_path / manifest.splits["train"].files[0].path)
    records = next(iter(tf.data.TFRecordDataset(path).batch(1)))
    names = parse.wanted_columns(manifest, None, keys=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="values != expected"):
        parse.parse_pool(records, manifest, names, tf.constant(True))
