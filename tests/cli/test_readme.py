"""Runs the README: every command but the two of make, every Python line, every YAML.

The commands of `tfmtl` run in this process, in order and in one folder; `tfmtl serve`
runs in a thread until the last command is done. Anything else goes to the shell.
"""

from __future__ import annotations

import dataclasses
import doctest
import functools
import http.server
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator

import pyarrow.parquet as pq
import pytest

from serving.server import run as server_run
from tests.unit.adapters import raws
from tfmtl import build
from tfmtl.adapters import catalogue
from tfmtl.adapters.sources import Source
from tfmtl.cli.main import main
from tfmtl.schema.load import load_experiment

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'(\w+)'")
_START_SECONDS = 60.0


def blocks(*languages: str) -> list[str]:
    """The README's code blocks of some languages, in order."""
    found = _BLOCK.findall(README.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block, each with its here-document."""
    lines = iter(text.splitlines())
    for line in lines:
        command = line.removeprefix("$ ")
        while command.endswith("\\"):
            command = command[:-1] + next(lines).strip()
        if here := _HEREDOC.search(line):
            for further in lines:
                command += "\n" + further
                if further == here[1]:
                    break
        if command.strip() and not command.startswith("#"):
            yield command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to follow the README in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def published(tmp_path_factory, monkeypatch):
    """A publisher on this machine, from which `download movielens-100k` fetches."""
    site = tmp_path_factory.mktemp("site")
    raws.write_movielens_100k(
        site, [(1 + i % 2, 1 + i // 2 % 2, 1 + i % 5, i) for i in range(40)]
    )
    with zipfile.ZipFile(site / "ml-100k.zip", "w") as archive:
        for name in ("u.data", "u.user", "u.item"):
            archive.write(site / name, f"ml-100k/{name}")
    handler = functools.partial(_Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    source = Source(
        url=f"http://127.0.0.1:{server.server_port}/ml-100k.zip", file="ml-100k.zip"
    )
    adapters = tuple(
        dataclasses.replace(a, downloads=(source,)) if a.name == "movielens-100k" else a
        for a in catalogue.ADAPTERS
    )
    monkeypatch.setattr(catalogue, "ADAPTERS", adapters)
    yield
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def serve(monkeypatch):
    """`tfmtl serve` in a thread, on a free port; stopped when the test ends."""
    servers = []
    real = server_run.uvicorn.Server

    def remember(config: object) -> object:
        servers.append(real(config))
        return servers[-1]

    monkeypatch.setattr(server_run.uvicorn, "Server", remember)
    threads = []

    def start(arguments: list[str], port: int) -> None:
        options = ["--server", "embedded", "--rest-port", str(port)]
        thread = threading.Thread(target=main, args=([*arguments, *options],))
        thread.start()
        threads.append(thread)
        url = f"http://127.0.0.1:{port}/v1/models/{pathlib.Path(arguments[1]).name}"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                return
            except urllib.error.URLError:
                assert thread.is_alive() and time.monotonic() < deadline
                time.sleep(0.02)

    yield start
    for server in servers:
        server.should_exit = True
    for thread in threads:
        thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shell(command: str, folder: pathlib.Path) -> None:
    """What is no command of ours, with this Python first on the path."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euc", command],
        check=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        timeout=60,
    )


def _follow(
    folder: pathlib.Path,
    tfmtl: Callable[..., object],
    serve: Callable[[list[str], int], None],
) -> dict[str, str]:
    """Runs all commands; answers with the output of each of ours."""
    port, outputs = _free_port(), {}
    for block in blocks("sh", "console", "shell", "bash"):
        for command in commands(block):
            if command in ("make demo", "make test"):
                continue
            if not command.startswith("tfmtl "):
                _shell(command, folder)
                continue
            words = shlex.split(command.replace(":8501", f":{port}"))[1:]
            if words[0] == "serve":
                serve(words, port)
                continue
            result = tfmtl(*words)
            assert result.code == 0, f"{command}\n{result.err}"
            assert "Traceback" not in result.err, command
            outputs[" ".join(words[:2])] = result.out
    return outputs


@pytest.mark.slow
def test_following_the_readme(folder, published, tfmtl, serve):
    outputs = _follow(folder, tfmtl, serve)

    report = json.loads((folder / "report.json").read_text())
    assert report["split"] == "test" and report["rows"] == 2000
    click = report["tasks"]["click"]
    assert click["auc"] > 0.7, "the README's log can be learnt"
    assert set(click["scenarios"]) == {"home", "search", "unknown"}

    (predict,) = [o for c, o in outputs.items() if c.startswith("predict")]
    answers = json.loads(predict)
    assert [set(a) for a in answers] == [{"click", "buy|click", "buy"}] * 2
    assert all(0 < p < 1 for a in answers for p in a.values())

    scores = pq.read_table(folder / "scores.parquet")
    assert scores.num_rows == 20_000
    assert {"click", "buy|click", "buy"} <= set(scores.column_names)
    assert "learning_rate: 0.0003" in outputs["config show"]
    assert json.loads(outputs["config schema"])["title"] == "Experiment"
    assert (folder / "movielens" / "experiment.yaml").is_file()

    _doctests(folder)
    assert (folder / "python" / "model" / "1" / "tfmtl.json").is_file()


def _doctests(folder: pathlib.Path) -> None:
    """The README's Python, on the files that its commands left."""
    text = "\n".join(blocks("python"))
    test = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 5
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_the_yaml_of_the_readme_is_sound(folder):
    (text,) = blocks("yaml")
    file = folder / "experiment.yaml"
    file.write_text(text)
    experiment = load_experiment(file)
    build.check(experiment)
    kinds = {f.kind for f in experiment.dataset.features}
    assert kinds == {
        "categorical",
        "multivalent",
        "sequence",
        "numeric",
        "time",
        "vector",
        "cross",
    }


def test_the_commands_are_found():
    text = "tfmtl a \\\n    --b\npython - <<'X'\nprint(1)\nX\n# no\n\nmake test\n"
    assert list(commands(text)) == [
        "tfmtl a --b",
        "python - <<'X'\nprint(1)\nX",
        "make test",
    ]


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8"))
    missing = [t for t in targets if not (ROOT / t).exists() and "://" not in t]
    assert not missing
