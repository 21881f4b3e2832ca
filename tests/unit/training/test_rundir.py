"""The files of a run."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl.errors import ConfigError, DataError
from tfmtl.training.rundir import RunDirectory, plain

FACTS = {"dataset": "somewhere", "schema_hash": "abc"}


def test_life_of_a_run(experiment: Any, tmp_path: pathlib.Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert not run.exists and not run.finished
    assert run.events() == []
    run.begin(experiment(), FACTS)
    assert run.exists and not run.finished
    assert run.experiment() == experiment()
    assert run.facts() == FACTS
    run.finish({"step": np.int64(3), "value": float("nan")})
    assert run.finished
    assert run.result() == {"step": 3, "value": None}


def test_the_log_is_cut_at_a_checkpoint(
    experiment: Any, tmp_path: pathlib.Path
) -> None:
    run = RunDirectory(tmp_path)
    run.begin(experiment(), FACTS)
    run.log({"kind": "train", "step": 1})
    length = run.log({"kind": "validation", "step": 1, "metrics": {"mean/auc": 0.5}})
    run.log({"kind": "train", "step": 2})
    run.cut_log(length)
    assert [e["kind"] for e in run.events()] == ["train", "validation"]
    assert run.metrics_at(1) == {"mean/auc": 0.5}
    assert run.metrics_at(2) == {}
    assert run.log({"kind": "train", "step": 2}) > length
    assert len(run.events()) == 3
    run.cut_log(0)
    assert run.events() == []


def test_resuming_needs_the_same_run(experiment: Any, tmp_path: pathlib.Path) -> None:
    run = RunDirectory(tmp_path)
    run.begin(experiment(), FACTS)
    run.check_same(experiment(), "abc")
    with pytest.raises(ConfigError, match=r"\['training'\] of the experiment changed"):
        run.check_same(experiment(epochs=7), "abc")
    with pytest.raises(ConfigError, match="schema hash differs"):
        run.check_same(experiment(), "abd")


def test_missing_and_damaged(experiment: Any, tmp_path: pathlib.Path) -> None:
    run = RunDirectory(tmp_path / "none")
    with pytest.raises(DataError, match="must be a run directory"):
        run.experiment()
    with pytest.raises(DataError, match="is not finished"):
        run.result()
    run.begin(experiment(), FACTS)
    for text in ("{", "[1]"):
        (tmp_path / "none" / "run.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            run.facts()


def test_plain_is_strict_json() -> None:
    value = {"a": [np.float32(1.5), float("inf")], 3: (np.int64(2), float("nan"), "x")}
    found = plain(value)
    assert found == {"a": [1.5, None], "3": [2, None, "x"]}
    json.dumps(found, allow_nan=False)


def test_resuming_needs_the_same_rows(experiment: Any, tmp_path: pathlib.Path) -> None:
    run = RunDirectory(tmp_path)
    run.begin(experiment(), {**FACTS, "content_id": "one"})
    run.check_same(experiment(), "abc", "one")
    assert run.same_content("one") is True
    with pytest.raises(ConfigError, match=r"other rows .*'two', the run's 'one'"):
        run.check_same(experiment(), "abc", "two")
    assert run.same_content("two") is False


@pytest.mark.parametrize("facts", [FACTS, {**FACTS, "content_id": ""}])
def test_an_unknown_content_never_differs(
    experiment: Any, tmp_path: pathlib.Path, facts: dict[str, str]
) -> None:
    run = RunDirectory(tmp_path)
    run.begin(experiment(), facts)
    run.check_same(experiment(), "abc", "two")
    assert run.same_content("two") is None
    run.begin(experiment(), {**FACTS, "content_id": "one"})
    run.check_same(experiment(), "abc", "")
    assert run.same_content("") is None
