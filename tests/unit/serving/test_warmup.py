"""Warm-up files: what is written is what a server reads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.server.servable import Servable
from serving.server.warm import warm_up
from serving.warmup import WARMUP_FILE, read_inputs, read_warmup, write_warmup
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError

ROWS = [{"user": 5.0, "tags": ["a", "b"], "price": 1}, {"time": 3}]


def test_requests_hold_the_rows(model_dir):
    version = model_dir(1) / "1"
    path = write_warmup(version, ROWS, model_name="m", batch_sizes=(2, 5))
    assert path == version / WARMUP_FILE
    first, second = read_warmup(version)
    request = first.predict_log.request
    assert request.model_spec.name == "m"
    assert request.model_spec.signature_name == "serving_default"
    arrays = {name: tf.make_ndarray(p) for name, p in request.inputs.items()}
    assert set(arrays) == set(read_inputs(version, "serving_default"))
    assert arrays["user"].tolist() == [b"5", b""]
    assert arrays["tags"].tolist() == [[b"a", b"b"], [b"", b""]]
    assert arrays["price"].dtype == np.float32
    assert arrays["price"][0] == 1 and math.isnan(arrays["price"][1])
    assert arrays["vector"].shape == (2, 3)
    assert arrays["time"].tolist() == [-(2**63), 3]
    # Five rows from two: repeated in order.
    users = tf.make_ndarray(second.predict_log.request.inputs["user"])
    assert users.tolist() == [b"5", b"", b"5", b"", b"5"]


def test_servable_replays_them(model_dir, monkeypatch):
    version = model_dir(1) / "1"
    write_warmup(version, ROWS, batch_sizes=(1, 2))
    servable = Servable(version, 1)
    sizes = []
    run = Servable.run

    def spy(self, name, inputs):
        sizes.append((name, len(inputs["user"])))
        return run(self, name, inputs)

    monkeypatch.setattr(Servable, "run", spy)
    assert warm_up(servable) == 2
    assert sizes == [("serving_default", 1), ("serving_default", 2)]
    servable.close()


def test_version_without_a_file(toy_versions):
    assert list(read_warmup(toy_versions / "1")) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"signature": "nope"}, "double, serving_default, total"),
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"rows": []}, "`rows`"),
        ({"rows": [{"usr": 1}]}, "Did you mean 'user'"),
    ],
)
def test_bad_arguments(model_dir, options, match):
    version = model_dir(1) / "1"
    with pytest.raises(ConfigError, match=match):
        write_warmup(version, **{"rows": ROWS, **options})
    assert not (version / WARMUP_FILE).exists()


def test_no_saved_model(tmp_path):
    with pytest.raises(DataError, match="no readable SavedModel"):
        write_warmup(tmp_path, ROWS)
