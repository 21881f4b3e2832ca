"""Records that differ from their manifest are named as such."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl._keras import tf
from tfmtl.data.damage import damage_named
from tfmtl.data.read import Reader
from tfmtl.errors import DataError
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import tiny_dataset


def claimed(manifest: DatasetManifest, **changes: Any) -> DatasetManifest:
    """The manifest with other blocks in the files of the training split."""
    split = manifest.splits["train"]
    files = tuple(f.model_copy(update=changes) for f in split.files)
    splits = {"train": split.model_copy(update={"files": files})}
    return manifest.model_copy(update={"splits": splits})


def test_a_block_of_another_size(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path, {"train": 64}, files=2, block_rows=8)
    other = claimed(manifest, blocks=(16, 16)).model_copy(update={"block_rows": 16})
    reader = Reader(tmp_path, other, ("train",), 16)
    message = r"split train .*does not hold what dataset.json says \(Key: .*8.*\[16\]"
    with pytest.raises(DataError, match=message), damage_named(reader):
        list(reader.epoch())


def test_errors_of_the_code_inside_pass(tmp_path: pathlib.Path) -> None:
    manifest = tiny_dataset(tmp_path, {"train": 64})
    reader = Reader(tmp_path, manifest, ("train",), 16)
    with pytest.raises(tf.errors.InvalidArgumentError), damage_named(reader):
        tf.reshape(tf.zeros([3]), [2])
