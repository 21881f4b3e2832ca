"""Several replicas take the step that one would take of all rows."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import dropout_step, step_seed
from tfmtl.testing.conformance import ModelConformance
from tfmtl.training.replicas import any_over_replicas, mean_over_replicas

SCRIPT = pathlib.Path(__file__).with_name("replicated.py")
CASES = ("equal", "full", "dense", "representation", "famo", "graddrop", "adatask")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("replicas") / "out.npz"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path)],
        env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(path)


def of(found: Any, prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: found[k] for k in found.files if k.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_halves_move_the_variables_as_the_whole(found: Any, case: str) -> None:
    one = of(found, f"{case}|one|")
    assert len(one) >= 8
    for replica in range(2):
        mine = of(found, f"{case}|replica {replica}|")
        assert set(mine) == set(one)
        for name, wanted in one.items():
            np.testing.assert_allclose(
                mine[name], wanted, rtol=1e-4, atol=2e-6, err_msg=name
            )
    np.testing.assert_array_equal(found[f"{case}|steps"], [2, 2])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_replicas_see_the_losses_and_weights_of_the_whole(
    found: Any, case: str
) -> None:
    for what in ("weights", "losses"):
        wanted = found[f"{case}|one-{what}"]
        for replica in range(2):
            np.testing.assert_allclose(
                found[f"{case}|{what} {replica}"], wanted, rtol=2e-3, atol=1e-5
            )


@pytest.mark.slow
def test_solving_on_half_the_rows_gives_other_weights(found: Any) -> None:
    wanted = found["full|one-weights"]
    halves = [found[f"half {r}"] for r in range(2)]
    assert np.abs(np.mean(halves, axis=0) - wanted).max() > 0.05
    for mode in ("full", "representation"):
        assert np.abs(found[f"{mode}|one-weights"] - 1 / 3).max() > 0.02


@pytest.mark.slow
def test_dropping_by_the_signs_of_half_the_rows_goes_elsewhere(found: Any) -> None:
    whole, own = of(found, "graddrop|one|"), of(found, "own masks|")
    assert set(own) == set(whole)
    assert max(np.abs(own[n] - whole[n]).max() for n in whole) > 1e-3
    assert found["graddrop|one-weights"].min() < 0.95


@pytest.mark.slow
def test_replicas_draw_and_keep_moments_of_their_own(found: Any) -> None:
    assert found["seeds"][0].tolist() == [3, 5]
    assert found["seeds"][1].tolist() != [3, 5]
    halves = found["rows"].reshape(2, 4, 2).mean(axis=1)
    np.testing.assert_allclose(found["each"][:, 0], halves, rtol=1e-5)
    assert not np.allclose(halves[0], halves[1], atol=0.1)
    np.testing.assert_allclose(found["moving"][0], halves.mean(axis=0), rtol=1e-5)


def test_without_a_strategy_nobody_is_asked() -> None:
    values = [tf.constant([1.0]), None]
    first, second = mean_over_replicas(values)
    assert first is values[0]
    assert second is None
    np.testing.assert_array_equal(
        any_over_replicas(tf.constant([True, False])), [True, False]
    )
    with dropout_step(tf.constant(5, tf.int64)):
        np.testing.assert_array_equal(step_seed(3), [3, 5])


def test_what_cannot_run_in_a_strategy_is_refused() -> None:
    from tests.unit.training.test_gradients import Constant, suite, trainer_of

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        trainer = trainer_of(suite("SharedBottom").make(), Constant, every=2)
    batch = ModelConformance.tiny().batch
    step = tf.function(lambda: strategy.run(trainer.train_step, args=(batch,)))
    for run in (step, lambda: strategy.run(trainer.train_step, args=(batch,))):
        with pytest.raises(ConfigError, match=r"must be inside a tf.function") as told:
            run()
        # Traced or not, what is told is the error and no traceback.
        assert str(told.value).startswith("under a distribution strategy")
