"""Versions: which are served, how one replaces another, and what a broken one does."""

from __future__ import annotations

import logging
import shutil
import threading
import time

import httpx
import numpy as np
import pytest

from serving.server import running
from serving.server.errors import RequestError
from serving.server.registry import Registry
from serving.warmup import WARMUP_FILE, write_warmup
from tests.unit.serving.conftest import NAME
from tfmtl.errors import ConfigError, DataError

PREDICT = f"/v1/models/{NAME}:predict"
# double is the same in both versions, score is not: 3 and 6 without tags.
BODY = {
    "inputs": {
        "user": ["u"], "price": [3.0], "tags": [[""]], "ages": [[0.0]],
        "vector": [[0.0] * 3], "time": [1],
    }
}  # fmt: skip


def served(registry):
    return [v for v, s in registry.statuses().items() if s.state == "AVAILABLE"]


def await_true(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def add(root, toy_versions, source, target):
    """Adds a version as the exporter does: written beside, then renamed."""
    shutil.copytree(toy_versions / str(source), root / ".partial")
    (root / ".partial").rename(root / str(target))


@pytest.mark.parametrize(
    ("versions", "expected"), [("latest", [2]), ("all", [2, 1]), ([1], [1])]
)
def test_which_versions_are_served(toy_versions, versions, expected):
    registry = Registry(toy_versions, name=NAME, versions=versions)
    registry.poll()
    assert served(registry) == expected
    registry.close()


def test_new_version_under_load_fails_no_request(model_dir, toy_versions):
    root = model_dir(1)
    answers: list[tuple[int, float]] = []
    failures: list[object] = []
    stop = threading.Event()

    def ask(url):
        with httpx.Client(base_url=url, timeout=10) as client:
            while not stop.is_set():
                try:
                    answer = client.post(PREDICT, json=BODY)
                    score = answer.json()["outputs"]["score"][0]
                    answers.append((answer.status_code, score))
                except Exception as error:
                    failures.append(error)

    with running(root, poll_seconds=0.05) as url:
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            await_true(lambda: len(answers) >= 20)
            add(root, toy_versions, 2, 2)
            await_true(lambda: answers[-1][1] == 6.0)
            switched = len(answers)
            await_true(lambda: len(answers) >= switched + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        states = httpx.get(f"{url}/v1/models/{NAME}").json()["model_version_status"]
    assert failures == []
    assert {status for status, _ in answers} == {200}
    assert {score for _, score in answers} == {3.0, 6.0}
    assert answers[0][1] == 3.0
    assert answers[-1][1] == 6.0
    assert [(s["version"], s["state"]) for s in states] == [
        ("2", "AVAILABLE"), ("1", "END"),
    ]  # fmt: skip


def test_request_in_flight_finishes_on_the_old_version(model_dir, toy_versions):
    root = model_dir(1)
    registry = Registry(root, name=NAME)
    registry.poll()
    with registry.lease(NAME) as old:
        add(root, toy_versions, 2, 2)
        registry.poll()
        assert served(registry) == [2]
        with registry.lease(NAME) as new:
            assert new.version == 2
        assert registry.statuses()[1].state == "UNLOADING"
        outputs = old.run("double", {"x": np.ones(1, np.float32)})
        assert outputs["y"].tolist() == [2.0]
    assert registry.statuses()[1].state == "END"
    with pytest.raises(RuntimeError):
        old._session.run([])
    registry.close()


def test_broken_version_leaves_the_old_one_serving(model_dir, toy_versions, caplog):
    root = model_dir(1)
    registry = Registry(root, name=NAME)
    registry.poll()
    (root / "2").mkdir()
    (root / "2" / "saved_model.pb").write_bytes(b"garbage")
    with caplog.at_level(logging.ERROR):
        registry.poll()
        registry.poll()
    assert len(caplog.records) == 1, "an unchanged broken version is tried once"
    assert served(registry) == [1]
    status = registry.statuses()[2]
    assert status.state == "END"
    assert status.error_code != "OK"
    assert status.error_message
    with registry.lease(NAME) as servable:
        assert servable.version == 1
    shutil.rmtree(root / "2")
    add(root, toy_versions, 2, 2)
    registry.poll()
    assert served(registry) == [2]
    registry.close()


def test_failed_version_is_tried_again_a_few_times(model_dir, monkeypatch, caplog):
    root = model_dir(1)
    (root / "2").mkdir()
    monkeypatch.setattr("serving.server.registry._RETRY_SECONDS", 0.0)
    registry = Registry(root, name=NAME)
    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            registry.poll()
    assert len(caplog.records) == 1 + 5
    assert served(registry) == [1]
    registry.close()


def test_half_copied_version_is_served_once_complete(model_dir, toy_versions):
    root = model_dir(1)
    registry = Registry(root, name=NAME)
    registry.poll()
    shutil.copytree(toy_versions / "2", root / "2")
    data = next((root / "2" / "variables").glob("*.data*"))
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    registry.poll()
    assert served(registry) == [1]
    data.write_bytes(content)
    registry.poll()
    assert served(registry) == [2]
    registry.close()


def test_deleting_the_newest_version_rolls_back(model_dir):
    root = model_dir(1, 2)
    registry = Registry(root, name=NAME)
    registry.poll()
    shutil.rmtree(root / "2")
    registry.poll()
    assert served(registry) == [1]
    shutil.rmtree(root / "1")
    registry.poll()
    assert served(registry) == [1], "an empty directory takes nothing down"
    registry.close()


def test_nothing_to_serve(tmp_path):
    with pytest.raises(ConfigError, match="model_dir"):
        Registry(tmp_path / "absent", name=NAME)
    with pytest.raises(ConfigError, match="'newest'"):
        Registry(tmp_path, name=NAME, versions="newest")
    (tmp_path / "1").mkdir()
    registry = Registry(tmp_path, name=NAME)
    registry.poll()
    with pytest.raises(DataError, match="version 1: "):
        registry.require_served()
    with pytest.raises(RequestError) as caught, registry.lease(NAME):
        pass
    assert caught.value.status == 404


def test_warm_up_runs_before_a_version_is_served(model_dir, caplog):
    root = model_dir(1)
    write_warmup(root / "1", [{"user": "u", "tags": ["a"]}], batch_sizes=(1, 8))
    registry = Registry(root, name=NAME)
    with caplog.at_level(logging.INFO, "serving"):
        registry.poll()
    assert served(registry) == [1]
    assert "(2 warm-up requests)" in caplog.text
    registry.close()


def test_version_that_fails_its_warm_up_is_not_served(model_dir, toy_versions):
    root = model_dir(1)
    registry = Registry(root, name=NAME)
    registry.poll()
    shutil.copytree(toy_versions / "2", root / ".partial")
    write_warmup(root / ".partial", [{"x": -1.0}], signature="double")
    (root / ".partial").rename(root / "2")
    registry.poll()
    assert served(registry) == [1]
    assert "x must not be negative" in registry.statuses()[2].error_message
    registry.close()


def test_damaged_warm_up_file_is_reported_and_passed_over(model_dir, caplog):
    root = model_dir(1)
    path = root / "1" / WARMUP_FILE
    path.parent.mkdir()
    path.write_bytes(b"no record " * 10)
    registry = Registry(root, name=NAME)
    with caplog.at_level(logging.WARNING):
        registry.poll()
    assert served(registry) == [1]
    assert "no readable warm-up file" in caplog.text
    registry.close()
