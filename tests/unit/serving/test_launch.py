"""Which server is started, and with which flags."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving import launch as launching
from serving.launch import BINARY, launch, plan
from serving.limits import MAX_BODY_BYTES
from tests.conftest import ROOT
from tests.unit.serving.conftest import NAME
from tfmtl.errors import ConfigError, ServingError


@pytest.fixture
def root(tmp_path):
    path = tmp_path / NAME
    (path / "1").mkdir(parents=True)
    return path


@pytest.fixture
def fake_server(tmp_path, monkeypatch):
    """Puts an executable of TensorFlow Serving's name on PATH; returns its file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / BINARY
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(script):
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    return write


@pytest.mark.parametrize(
    ("server", "host"),
    [("auto", "0.0.0.0"), ("auto", "::"), (BINARY, "127.0.0.1"), (BINARY, "10.0.0.5")],
)
def test_tensorflow_serving_where_it_is_wanted(
    root, fake_server, tmp_path, caplog, server, host
):
    seen = tmp_path / "seen"
    config = tmp_path / "some.config"
    config.touch()
    file = fake_server(f'echo "$@" > {seen}')
    with caplog.at_level("INFO"):
        chosen = launch(
            root, rest_port=1234, grpc_port=5678, monitoring_config=config,
            batching_config=config, server=server, host=host,
        )  # fmt: skip
    assert chosen.server == "tensorflow_model_server"
    assert chosen.command[0] == str(file)
    assert seen.read_text().split() == [
        "--port=5678",
        "--rest_api_port=1234",
        f"--model_name={NAME}",
        f"--model_base_path={root}",
        "--file_system_poll_wait_seconds=1",
        f"--monitoring_config_file={config}",
        "--enable_batching=true",
        f"--batching_parameters_file={config}",
    ]
    assert "tensorflow_model_server: model toy, REST on port 1234" in caplog.text
    warned = f"listens on all interfaces, not on {host} alone" in caplog.text
    assert warned == (server == BINARY)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "10.0.0.5"])
def test_nothing_listens_on_all_interfaces_unasked(root, fake_server, host):
    """TensorFlow Serving has no option for the address."""
    file = fake_server("exit 0")
    chosen = plan(root, host=host)
    assert (chosen.server, chosen.command) == ("embedded", ())
    assert f"{file} is not started" in chosen.describe()
    assert f"not on {host} alone" in chosen.describe()


def test_other_versions_need_a_config_file(root, fake_server, tmp_path):
    seen = tmp_path / "seen"
    fake_server(
        f'for a; do case $a in --model_config_file=*) cat "${{a#*=}}" > {seen};; '
        "esac; done"
    )
    launch(root, versions=[1, 3], server=BINARY)
    config = text_format.Parse(
        seen.read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == (NAME, str(root))
    assert list(model.model_version_policy.specific.versions) == [1, 3]
    launch(root, versions="all", server=BINARY)
    config = text_format.Parse(
        seen.read_text(), model_server_config_pb2.ModelServerConfig()
    )
    policy = config.model_config_list.config[0].model_version_policy
    assert policy.WhichOneof("policy_choice") == "all"


def test_failing_server_is_an_error(root, fake_server):
    fake_server("exit 3")
    with pytest.raises(ServingError, match="exit code 3"):
        launch(root, server=BINARY)


def test_sigterm_ends_the_server_too(root, fake_server, tmp_path):
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    fake_server(
        f"trap 'touch {ended}; exit 0' TERM\ntouch {ready}\n"
        "while :; do sleep 0.05; done"
    )
    code = (
        "import sys; from serving.launch import launch; "
        f"launch(sys.argv[1], server={BINARY!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 10
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert ended.exists()
    finally:
        process.kill()
        process.wait()


def test_embedded_where_it_is_not(root, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = []
    monkeypatch.setattr("serving.server.serve", lambda *a, **k: calls.append((a, k)))
    chosen = launch(root, rest_port=1234, versions="all", host="::1", max_body_bytes=5)
    assert chosen.server == "embedded"
    assert chosen.grpc_port is None
    assert "no gRPC" in chosen.describe()
    args, options = calls[0]
    assert args == (root,)
    assert options == {
        "name": NAME, "host": "::1", "rest_port": 1234, "versions": "all",
        "poll_seconds": 1.0, "max_body_bytes": 5,
    }  # fmt: skip
    launch(root)
    assert calls[1][1]["max_body_bytes"] == MAX_BODY_BYTES


def test_embedded_says_which_options_it_does_not_take(root, tmp_path):
    config = tmp_path / "some.config"
    config.touch()
    chosen = plan(root, server="embedded", monitoring_config=config)
    assert any("`monitoring_config`" in note for note in chosen.notes)


def test_tensorflow_serving_has_no_limit_of_a_request(root, fake_server):
    fake_server("exit 0")
    chosen = plan(root, server=BINARY, max_body_bytes=1000)
    assert any("larger than 1000 bytes" in note for note in chosen.notes)


def test_the_choice_can_be_forced(root, fake_server, monkeypatch, tmp_path):
    fake_server("exit 0")
    assert plan(root, server="embedded").server == "embedded"
    assert plan(root, server=BINARY).server == "tensorflow_model_server"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="on PATH"):
        plan(root, server="tensorflow_model_server")


def test_bad_arguments(root, tmp_path):
    with pytest.raises(ConfigError, match="model_dir"):
        plan(tmp_path / "absent")
    with pytest.raises(ConfigError, match="batching_config"):
        plan(root, batching_config=tmp_path / "absent")
    with pytest.raises(ConfigError, match="`server`"):
        plan(root, server="torchserve")


def test_quoting_of_odd_paths():
    config = launching._models_config("m", '/tmp/a "b"\\c', [1])
    parsed = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    assert parsed.model_config_list.config[0].base_path == '/tmp/a "b"\\c'
