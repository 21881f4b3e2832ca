"""SIGKILL at random times: does every continued run end as if nothing had happened?

    python -m benchmarks.kills                      5 kills of training, 5 of the job
    python -m benchmarks.kills --what train --kills 50 --rows 200000

A reference is made first, uninterrupted. Then the same command is started and killed
after a random time, again and again, until it was killed so often as asked; `--resume`
(training) or the same command (the Beam job) brings it to its end. Whenever one ends
before its kill, it is compared with the reference - weights of the last and the best
checkpoint and rows of the data set bit for bit, the lines of `metrics.jsonl` but for
timings - and the next begins. The exit code is 1 if any comparison fails.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from tests.integration import comparing
from tests.integration.small import EXPERIMENT

Compare = Callable[[pathlib.Path, pathlib.Path], list[str]]
Complete = Callable[[pathlib.Path], bool]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the kills and prints a table.

    Args:
        arguments: `sys.argv[1:]` where absent.

    Returns:
        0 if every continued run equals its reference, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument(
        "--what", choices=("train", "preprocess", "both"), default="both"
    )
    parser.add_argument("--kills", type=int, default=5, help="of each kind")
    parser.add_argument("--rows", type=int, default=6_000, help="of the simulated log")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds in all")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            pathlib.Path(folder),
            what=("train", "preprocess") if given.what == "both" else (given.what,),
            kills=given.kills,
            rows=given.rows,
            epochs=given.epochs,
            seed=given.seed,
            limit=given.limit,
        )
    _print(found)
    return 1 if any(row["differences"] for row in found) else 0


def measure(
    folder: pathlib.Path,
    *,
    what: Sequence[str] = ("train", "preprocess"),
    kills: int = 5,
    rows: int = 6_000,
    epochs: int = 4,
    seed: int = 0,
    limit: float = 600.0,
) -> list[dict[str, Any]]:
    """Kills and continues.

    Args:
        folder: An empty folder to work in.
        what: `train`, `preprocess` or both.
        kills: Of each.
        rows: Of the simulated log.
        epochs: Of a training run.
        seed: Of the times of the kills.
        limit: Start nothing new after so many seconds.

    Returns:
        One row for each of `what`: kills, where they struck, runs that came to their
        end, seconds of the reference, and what differed from it.
    """
    deadline = time.monotonic() + limit
    experiment = folder / "experiment.yaml"
    experiment.write_text(yaml.safe_dump(_experiment(epochs)))
    _finish(
        *("data", "simulate", "--out", folder / "raw"),
        *("--rows", rows, "--seed", seed),
    )
    job = ["preprocess", experiment, "--input", folder / "raw" / "logs" / "*.parquet"]
    job += ["--output"]
    dataset = folder / "dataset"
    seconds = {"preprocess": _finish(*job, dataset)}
    fit = ["train", experiment, "--dataset", dataset, "--resume", "--run"]
    run = folder / "run"
    seconds["train"] = _finish(*fit, run)
    plans: dict[str, tuple[list[Any], pathlib.Path, Complete, Compare]] = {
        "train": (fit, run, lambda p: (p / "result.json").exists(), _compare_runs),
        "preprocess": (job, dataset, pathlib.Path.exists, _compare_datasets),
    }
    times = random.Random(seed)
    return [
        {"what": name, "reference_seconds": seconds[name]}
        | _kill(folder / name, *plans[name], times, kills, seconds[name], deadline)
        for name in what
    ]


def _experiment(epochs: int) -> dict[str, Any]:
    training = EXPERIMENT["training"] | {"epochs": epochs}
    return EXPERIMENT | {"training": training}


def _kill(
    folder: pathlib.Path,
    command: list[Any],
    reference: pathlib.Path,
    complete: Complete,
    compare: Compare,
    times: random.Random,
    kills: int,
    usual: float,
    deadline: float,
) -> dict[str, Any]:
    """Kills one command over and over.

    Args:
        folder: To work in.
        command: Lacks its last argument, the output.
        reference: What it makes undisturbed.
        complete: Whether an output looks complete.
        compare: Differences of two outputs.
        times: Of the kills.
        kills: So many.
        usual: Seconds the command takes.
        deadline: On the monotonic clock.
    """
    folder.mkdir()
    struck: list[float] = []
    differences: list[str] = []
    ended = 0
    while len(struck) < kills and time.monotonic() < deadline:
        output = folder / f"out-{ended}"
        while True:
            wait = times.uniform(0.2 * usual, 1.1 * usual)
            last = len(struck) >= kills or time.monotonic() >= deadline
            began = time.monotonic()
            code = _start([*command, output], None if last else wait)
            if code != -signal.SIGKILL:
                break
            struck.append(time.monotonic() - began)
            if complete(output):
                # Killed after its last rename, before it could say so.
                break
        if code not in (0, -signal.SIGKILL):
            differences.append(f"exit code {code}")
        else:
            differences += compare(output, reference)
        ended += 1
    return {
        "kills": len(struck),
        "runs": ended,
        "after": [round(s, 1) for s in struck],
        "differences": differences,
    }


def _start(arguments: list[Any], kill_after: float | None) -> int:
    """Runs `tfmtl`, and kills it after some seconds; the exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tfmtl", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _finish(*arguments: Any) -> float:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "tfmtl", *map(str, arguments)],
        check=True,
        capture_output=True,
    )
    return time.monotonic() - began


def _compare_runs(run: pathlib.Path, reference: pathlib.Path) -> list[str]:
    found = comparing.different_weights(run, reference)
    if not comparing.steps_once(run):
        found.append("metrics.jsonl lacks a step or has one twice")
    if comparing.events(run) != comparing.events(reference):
        found.append("metrics.jsonl differs")
    results = [
        json.loads((r / "result.json").read_text()) | {"run": "", "reason": ""}
        for r in (run, reference)
    ]
    if results[0] != results[1]:
        found.append("result.json differs")
    return found


def _compare_datasets(dataset: pathlib.Path, reference: pathlib.Path) -> list[str]:
    same = comparing.rows_of(dataset) == comparing.rows_of(reference)
    return [] if same else ["the rows differ"]


def _print(found: Sequence[dict[str, Any]]) -> None:
    print(f"{'what':<12}{'reference':>10}{'kills':>7}{'runs':>6}  differences")
    for row in found:
        told = "; ".join(row["differences"]) or "none"
        print(
            f"{row['what']:<12}{row['reference_seconds']:>8.1f} s{row['kills']:>7}"
            f"{row['runs']:>6}  {told}"
        )
        print(f"{'':<12}killed after {row['after']} s")


if __name__ == "__main__":
    sys.exit(main())
