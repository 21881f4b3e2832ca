"""The whole chain of commands on KuaiRand-Pure, from raw files to a REST prediction.

    python -m benchmarks.chain --raw DIR [--work DIR]

Each command is run as a user types it, with the experiment that `prepare` leaves:
prepare, preprocess, train (refitted on train + validation), evaluate, export, serve and
predict. Prints one JSON line for each command and one for the whole: seconds of wall
time, start-up of Python and TensorFlow included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pyarrow.parquet as pq

from benchmarks.targets import ROOT
from serving.client import Client
from tfmtl.errors import ServingError
from tfmtl.schema.manifest import read_export

_ROWS = 10
_SERVER_SECONDS = 120.0


def measure(raw: pathlib.Path, work: pathlib.Path) -> dict[str, float]:
    """Seconds of each command by its name, and of all as "total".

    Args:
        raw: The publisher's files.
        work: An empty folder for everything made on the way.

    Raises:
        SystemExit: A command failed; the text is its own.
    """
    prepared, dataset, run, model = (
        work / name for name in ("prepared", "dataset", "run", "model")
    )
    experiment = str(prepared / "experiment.yaml")
    logs = str(prepared / "logs" / "*.parquet")
    steps = {
        "prepare": ["data", "prepare", "kuairand", "--raw", raw, "--out", prepared],
        "preprocess": ["preprocess", experiment, "--input", logs, "--output", dataset],
        "train": ["train", experiment, "--dataset", dataset, "--run", run, "--refit"],
        "evaluate": ["evaluate", run, "--split", "test", "--json", work / "test.json"],
        "export": ["export", run, "--output", model],
    }
    seconds = {}
    for name, arguments in steps.items():
        seconds[name] = _tfmtl(*map(str, arguments))
    began = time.perf_counter()
    with _serving(model) as url:
        seconds["serve"] = time.perf_counter() - began
        rows = work / "rows.json"
        rows.write_text(json.dumps(_newest_rows(prepared / "logs", model)))
        seconds["predict"] = _tfmtl("predict", url, "--rows", str(rows))
    return {**seconds, "total": sum(seconds.values())}


def _tfmtl(*arguments: str) -> float:
    """Runs a command; the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tfmtl", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"tfmtl {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    if arguments[0] == "predict" and len(json.loads(done.stdout)) != _ROWS:
        raise SystemExit(f"tfmtl predict did not answer {_ROWS} rows: {done.stdout}")
    return time.perf_counter() - began


@contextlib.contextmanager
def _serving(model: pathlib.Path) -> Iterator[str]:
    """`tfmtl serve` until the block ends; yields the model's URL once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/models/{model.name}"
    server = subprocess.Popen(
        [sys.executable, "-m", "tfmtl", "serve", str(model), "--rest-port", str(port)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _SERVER_SECONDS
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"tfmtl serve {model} did not answer")
            time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _answers(url: str) -> bool:
    try:
        with Client(url, timeout=5) as client:
            return any(v["state"] == "AVAILABLE" for v in client.status())
    except ServingError:
        return False


def _newest_rows(logs: pathlib.Path, model: pathlib.Path) -> list[dict[str, object]]:
    """The last rows of the log, by the names of the model's inputs; null left out."""
    (version,) = [p for p in model.iterdir() if p.name.isdigit()]
    inputs = {i.name: i.column for i in read_export(version).inputs}
    file = pq.ParquetFile(max(logs.glob("*.parquet")))
    table = file.read_row_group(file.num_row_groups - 1)
    rows = table.slice(table.num_rows - _ROWS).to_pylist()
    return [
        {n: row[c] for n, c in inputs.items() if row.get(c) is not None} for row in rows
    ]


def main() -> int:
    """Runs the chain and prints its times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, help="a new or an empty folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or pathlib.Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        found = measure(given.raw.resolve(), work.resolve())
    for name, seconds in found.items():
        print(json.dumps({"command": name, "seconds": round(seconds, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
