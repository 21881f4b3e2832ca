"""A small model with every kind of input, written once, and servers of it."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest

from serving.server import running
from tfmtl._keras import tf

NAME = "toy"
MISSING_TIME = -(2**63)


class Toy(tf.Module):
    """score = scale * (price or 10 if missing) + number of tags; all inputs echoed."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = tf.Variable(scale)

    @tf.function
    def predict(self, user, price, tags, ages, vector, time):
        known = tf.where(tf.math.is_nan(price), 10.0, price)
        count = tf.reduce_sum(tf.cast(tags != "", tf.float32), axis=1)
        return {
            "score": self.scale * known + count,
            "user": user,
            "time": time,
            "ages": tf.reduce_sum(tf.where(tf.math.is_nan(ages), 0.0, ages), axis=1),
            "vector": vector,
            "tags": tf.strings.reduce_join(tags, axis=1, separator="|"),
            "user_bytes": user,
        }

    @tf.function
    def double(self, x):
        tf.debugging.assert_non_negative(x, message="x must not be negative")
        return {"y": 2 * x}

    @tf.function
    def total(self, x, z):
        return {"total": tf.reduce_sum(x + z), "x": x}


def write_version(path: pathlib.Path, scale: float) -> None:
    toy, spec = Toy(scale), tf.TensorSpec
    tf.saved_model.save(
        toy,
        str(path),
        signatures={
            "serving_default": toy.predict.get_concrete_function(
                user=spec([None], tf.string, "user"),
                price=spec([None], tf.float32, "price"),
                tags=spec([None, None], tf.string, "tags"),
                ages=spec([None, None], tf.float32, "ages"),
                vector=spec([None, 3], tf.float32, "vector"),
                time=spec([None], tf.int64, "time"),
            ),
            "double": toy.double.get_concrete_function(spec([None], tf.float32, "x")),
            "total": toy.total.get_concrete_function(
                spec([None], tf.float32, "x"), spec([None], tf.float32, "z")
            ),
        },
    )


@pytest.fixture(scope="session")
def toy_versions(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the versions 1 (scale 1) and 2 (scale 2) to copy from."""
    root = tmp_path_factory.mktemp("toy-versions")
    for version in (1, 2):
        write_version(root / str(version), float(version))
    return root


@pytest.fixture
def model_dir(
    tmp_path: pathlib.Path, toy_versions: pathlib.Path
) -> Callable[..., pathlib.Path]:
    """Makes a fresh model directory with the versions named."""

    def make(*versions: int) -> pathlib.Path:
        root = tmp_path / NAME
        root.mkdir(exist_ok=True)
        for version in versions:
            shutil.copytree(toy_versions / str(version), root / str(version))
        return root

    return make


@pytest.fixture(scope="session")
def toy_url(toy_versions: pathlib.Path) -> Iterator[str]:
    """A server of both versions for tests that change nothing."""
    with running(toy_versions, name=NAME, versions="all") as url:
        yield url


@pytest.fixture(scope="session")
def http(toy_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=toy_url, timeout=20) as client:
        yield client
