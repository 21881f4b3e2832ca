"""Starting and stopping the embedded server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from socket import IPPROTO_TCP, TCP_NODELAY

import httpx
import pytest
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from serving.server import model_name, running
from serving.server.run import _signals_return
from tests.conftest import ROOT
from tests.unit.serving.conftest import NAME
from tfmtl.errors import ConfigError, DataError


def test_name_defaults_to_the_directorys(model_dir):
    with running(model_dir(1)) as url:
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/v1/models/{NAME}").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v1/models/{NAME}")


def test_answers_do_not_wait_for_acknowledgements(toy_url, monkeypatch):
    """Answers are sent at once (TCP_NODELAY): else each takes 40 ms."""
    delayed = []
    made = AutoHTTPProtocol.connection_made

    def spy(self, transport):
        connection = transport.get_extra_info("socket")
        delayed.append(not connection.getsockopt(IPPROTO_TCP, TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(AutoHTTPProtocol, "connection_made", spy)
    assert httpx.get(f"{toy_url}/v1/models/{NAME}").status_code == 200
    assert delayed == [False]


def test_bad_arguments(model_dir, tmp_path):
    root = model_dir(1)
    with pytest.raises(ConfigError, match="`name`"):
        model_name(root, "a/b")
    with pytest.raises(ConfigError, match="poll_"), running(root, poll_seconds=0):
        pass
    with pytest.raises(ConfigError, match="model_dir"), running(tmp_path / "no"):
        pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no version"), running(tmp_path / "empty"):
        pass


def test_port_taken_is_said_before_the_model_is_loaded(model_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):  # noqa: SIM117
            with running(model_dir(), port=port):
                pass


def _await_status(process, port):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/v1/models/{NAME}").status_code
        except httpx.ConnectError:
            time.sleep(0.1)
    return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_raised_again_signals_are_swallowed_then_restored(number):
    before = signal.getsignal(number)
    with _signals_return():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_serve_returns_on_sigterm(model_dir):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import sys; from serving.server import serve; "
        "serve(sys.argv[1], rest_port=int(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(model_dir(1)), str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    try:
        assert _await_status(process, port) == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=15)
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors
    finally:
        process.kill()
        process.wait()
