"""`make bench`: every figure the project promises, with its target, on this machine.

    python -m benchmarks.run [--full] [--work DIR]

Quick ones (start-up, preprocessing, reading, simulating, the demo) always run, each in
a process of its own. `--full` adds accuracy over all seeds, an hour or more on two
cores; it reads the publishers' files below $TFMTL_DATA (kuairand-pure, movielens-1m).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(title: str, *arguments: str, limit: float) -> str:
    """Runs `python ARGUMENTS`, prints its last lines and how long it took."""
    print(f"\n== {title}", flush=True)
    began = time.perf_counter()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        print(f"stopped after its limit of {limit:.0f} s")
        return ""
    seconds = time.perf_counter() - began
    output = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    lines = [line for line in output.splitlines() if line.strip()]
    print("\n".join(lines[-12:]))
    state = "" if done.returncode == 0 else f", FAILED with {done.returncode}"
    print(f"-- {seconds:.1f} s{state}", flush=True)
    return output


def quick(work: pathlib.Path) -> None:
    """The figures of speed."""
    run(
        "preprocessing: start-up < 15 s; a million rows < 120 s and < 2 GiB",
        "-m",
        "benchmarks.preprocess",
        limit=600,
    )
    run("reading: at least 10 x one-row records", "-m", "benchmarks.reading", limit=300)
    run(
        "simulator: a million rows < 20 s",
        "-m",
        "tfmtl",
        "data",
        "simulate",
        "--out",
        str(work / "simulated"),
        "--rows",
        "1000000",
        "--seed",
        "1",
        limit=300,
    )
    run("demo: < 300 s", "-m", "tfmtl", "demo", limit=900)


def full(work: pathlib.Path, data: pathlib.Path) -> None:
    """The figures of accuracy."""
    cases = {
        "kuairand": ("kuairand-pure", 5),
        "movielens-1m": ("movielens-1m", 3),
        "movielens-1m-time": ("movielens-1m", 3),
    }
    for name, (folder, seeds) in cases.items():
        if not (data / folder).is_dir():
            print(f"\n== {name}: no {folder} below {data}; set TFMTL_DATA")
            continue
        arguments = ["--raw", str(data / folder), "--work", str(work)]
        run(
            f"accuracy: {name}, {seeds} seeds",
            "-m",
            "benchmarks.accuracy",
            name,
            *arguments,
            "--seeds",
            str(seeds),
            limit=7200,
        )
    run(
        "accuracy: simulated, share of the attainable gap, 3 data seeds",
        "-m",
        "benchmarks.accuracy",
        "simulated",
        "--work",
        str(work),
        limit=7200,
    )


def main() -> None:
    """Prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--work", type=pathlib.Path)
    options = parser.parse_args()
    data = pathlib.Path(os.environ.get("TFMTL_DATA", ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or pathlib.Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        quick(work)
        if options.full:
            full(work, data)


if __name__ == "__main__":
    main()
