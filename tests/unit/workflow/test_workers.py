"""The chief and a worker's line to it, over the loopback address."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import keras_tuner
import pytest

from tfmtl.errors import TrainingError
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.make import make_oracle
from tfmtl.workflow.chief_client import ChiefClient
from tfmtl.workflow.running import _nothing_left
from tfmtl.workflow.workers import IP, NAME, PORT, Chief


def oracle(folder: pathlib.Path, trials: int = 3) -> Any:
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0, default=0.5)
    goal = Goal.parse(["click/auc"], [])
    made = make_oracle("random", space, goal, max_trials=trials, seed=0)
    made.attach(folder)
    return made


@pytest.fixture
def chief(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Chief]]:
    own = oracle(tmp_path / "oracle")
    found = Chief(own, "127.0.0.1:0")
    monkeypatch.setenv(IP, "127.0.0.1")
    monkeypatch.setenv(PORT, str(found.port))
    monkeypatch.setenv(NAME, "worker0")
    yield own, found
    found._server.stop(0)


def client(folder: pathlib.Path, over: bool = False, **seconds: float) -> ChiefClient:
    return ChiefClient(oracle(folder / "unused"), lambda: over, **seconds)


def test_a_search_over_the_wire(
    chief: tuple[Any, Chief], tmp_path: pathlib.Path
) -> None:
    own, server = chief
    line = client(tmp_path)
    serving = threading.Thread(target=server.serve)
    serving.start()
    names = []
    while (trial := line.create_trial("worker0")).status != "STOPPED":
        # Who asks twice, for an answer was lost, has the same trial.
        assert line.create_trial("worker0").trial_id == trial.trial_id
        names.append(trial.trial_id)
        line.update_trial(trial.trial_id, {"click/auc": 0.5 + len(names) / 10})
        trial.status = "COMPLETED"
        for _ in range(2):
            line.end_trial(trial)
    serving.join(20)
    assert not serving.is_alive()
    assert names == own.end_order == ["0000", "0001", "0002"]
    assert [own.trials[n].score for n in names] == pytest.approx([0.6, 0.7, 0.8])


def test_who_comes_when_the_search_is_over_leaves(
    chief: tuple[Any, Chief], tmp_path: pathlib.Path
) -> None:
    chief[1]._server.stop(0).wait()
    late = client(tmp_path, over=True, call_seconds=0.2)
    trial = late.create_trial("worker0")
    assert trial.status == "STOPPED"
    late.update_trial("0000", {"click/auc": 0.5})
    late.end_trial(trial)
    lost = client(tmp_path, call_seconds=0.2, patience_seconds=0.1)
    with pytest.raises(TrainingError, match="did not answer"):
        lost.create_trial("worker0")


def test_a_chief_with_nothing_left_waits_for_nobody(tmp_path: pathlib.Path) -> None:
    own = oracle(tmp_path / "oracle", trials=1)
    assert not _nothing_left(own)
    # What the question drew is the first worker's.
    trial = own.create_trial("worker0")
    assert (trial.trial_id, len(own.trials)) == ("0000", 1)
    assert not _nothing_left(own), "the worker may leave it"
    own.update_trial(trial.trial_id, {"click/auc": 0.5})
    trial.status = "COMPLETED"
    own.end_trial(trial)
    assert _nothing_left(own) and own.tuner_ids == {"worker0"}
