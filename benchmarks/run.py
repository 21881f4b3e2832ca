"""`make bench`: every figure the project promises, with its target, on this machine.

    make bench                              speed: start-up, reading, simulator, demo
    make bench ARGS="--raw DIR"             and on real data: KuaiRand, MovieLens-1M
    make bench ARGS="--raw DIR --full"      and accuracy over all seeds: an hour or more
    make bench ARGS="--tests"               and the time of `make test`

DIR holds one folder for each data set, `kuairand-pure` and `movielens-1m`, as
`tfmtl data download` leaves them; $TFMTL_DATA says the same. What it lacks is skipped.

Each benchmark runs in processes of its own. At the end stands a table of all figures;
the exit code is 1 if a benchmark failed or a target was missed, and the last lines name
which.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.targets import (
    BALANCING,
    Benchmark,
    Failed,
    Skipped,
    Target,
    carry_out,
    conclude,
    python,
)

KUAIRAND, MOVIELENS = ("kuairand", "kuairand-pure"), ("movielens-1m", "movielens-1m")

STARTUP = Target("Beam job: start-up, 200 rows", 15, "s")
MILLION = Target("Beam job: a million rows", 120, "s")
MILLION_PEAK = Target("Beam job: a million rows, peak memory", 2, "GiB")
READING = Target("reading: blocks against one-row records", 10, "x", at_most=False)
SIMULATOR = Target("simulator: a million rows", 20, "s")
BAYES_LOW = Target("simulator: Bayes AUC of click", 0.78, at_most=False)
BAYES_HIGH = Target("simulator: Bayes AUC of click, at most", 0.85)
DEMO = Target("make demo, after set-up", 300, "s")
TESTS = Target("make test, after set-up", 1800, "s")
ML_JOB = Target("Beam job: MovieLens-1M", 120, "s")
ML_PEAK = Target("Beam job: MovieLens-1M, peak memory", 2, "GiB")
CHAIN = Target("KuaiRand: raw files to a REST prediction", 600, "s")
FORM_SHARE = Target(
    "simulator: MMoE's share by that of the generator's form", 0.95, at_most=False
)
MEANS_SHARE = Target("simulator: smoothed means' share of the attainable gap", 0.5)

_STEP = "a step with {}, times Equal's"
BALANCERS = {
    ("Uncertainty", ""): Target(
        _STEP.format("Uncertainty"), BALANCING["loss weighting"]
    ),
    ("FAMO", ""): Target(_STEP.format("FAMO"), BALANCING["FAMO"]),
    ("GradNorm", ""): Target(_STEP.format("GradNorm"), BALANCING["GradNorm"]),
    ("PCGrad", ""): Target(_STEP.format("PCGrad"), BALANCING["full"]),
    ("PCGrad", "representation"): Target(
        _STEP.format("PCGrad at activations"), BALANCING["representation"]
    ),
}
"""A balancer and its setting `gradients`, one of each kind that has a target."""

SEEDS = {"kuairand": 5, "movielens-1m": 3, "movielens-1m-time": 3}
ACCURACY = {
    "kuairand": {
        "click": 0.735,
        "long_view": 0.733,
        "like": 0.742,
        "profile_enter": 0.709,
        "mean_cell_auc": None,
    },
    "movielens-1m": {"high": 0.815},
    "movielens-1m-time": {"high": 0.757},
}


def benchmarks(
    work: pathlib.Path, raw: pathlib.Path | None, *, full: bool, tests: bool
) -> list[Benchmark]:
    """What is to be measured, the quick ones first.

    Args:
        work: A folder for everything made on the way.
        raw: Holds the publishers' data sets; None where nobody said.
        full: Accuracy, too.
        tests: The time of all tests, too.
    """
    some = functools.partial
    found = [
        Benchmark("the Beam job", (STARTUP, MILLION, MILLION_PEAK), _job),
        Benchmark("reading", (READING,), _reading),
        Benchmark(
            "the simulator", (SIMULATOR, BAYES_LOW, BAYES_HIGH), some(_simulator, work)
        ),
        Benchmark("the demo", (DEMO,), _demo),
        Benchmark(
            "the Beam job on MovieLens-1M",
            (ML_JOB, ML_PEAK),
            some(_movielens, work, raw),
        ),
        Benchmark("the commands on KuaiRand", (CHAIN,), some(_chain, work, raw)),
        Benchmark(
            "balancers, MMoE on KuaiRand",
            tuple(BALANCERS.values()),
            some(_balancers, work, raw),
        ),
    ]
    if tests:
        found.append(Benchmark("all tests", (TESTS,), _tests))
    if full:
        found += [
            Benchmark(
                f"accuracy: {name}, {SEEDS[name]} seeds",
                tuple(
                    Target(_accuracy_name(name, task), bound, at_most=False)
                    for task, bound in tasks.items()
                ),
                some(_accuracy, work, raw, name),
            )
            for name, tasks in ACCURACY.items()
        ]
        found.append(
            Benchmark(
                "accuracy: simulated, 3 data seeds",
                (FORM_SHARE, MEANS_SHARE),
                some(_attainable, work),
            )
        )
    return found


def json_lines(output: str) -> list[dict[str, Any]]:
    """The lines of an output that are JSON objects.

    Raises:
        Failed: None is.
    """
    found = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
    if not found:
        raise Failed("the command printed no figures")
    return found


def data(raw: pathlib.Path | None, adapter: str, folder: str) -> pathlib.Path:
    """The folder of a publisher's data set.

    Raises:
        Skipped: It is not there; the text says how to get it.
    """
    if raw is not None and (raw / folder).is_dir():
        return raw / folder
    where = "DIR" if raw is None else str(raw)
    said = (
        "no folder of real data is given (--raw DIR, or TFMTL_DATA)"
        if raw is None
        else f"no {folder} in {where}"
    )
    raise Skipped(
        f"{said}. To have it: tfmtl data download {adapter} --out {where}/{folder}, "
        f'then make bench ARGS="--raw {where}"'
    )


def _job() -> Mapping[str, float]:
    # Exit code 1 is a missed target, which the figures tell, too.
    output, _ = python("-m", "benchmarks.preprocess", limit=900, codes=(0, 1))
    found = {line["rows"]: line for line in json_lines(output)}
    if set(found) != {200, 1_000_000}:
        raise Failed(f"figures for {sorted(found)} rows instead of 200 and a million")
    return {
        STARTUP.name: found[200]["seconds"],
        MILLION.name: found[1_000_000]["seconds"],
        MILLION_PEAK.name: found[1_000_000]["rss_gib"],
    }


def _reading() -> Mapping[str, float]:
    output, _ = python("-m", "benchmarks.reading", limit=600)
    ratio = re.search(r"^ratio\s+([\d.]+)", output, re.MULTILINE)
    if ratio is None:
        raise Failed(f"no ratio in: {output}")
    return {READING.name: float(ratio[1])}


def _simulator(work: pathlib.Path) -> Mapping[str, float]:
    logs = work / "simulated"
    arguments = ["--out", str(logs), "--rows", "1000000", "--seed", "1"]
    _, seconds = python(
        "-m", "tfmtl", "data", "simulate", *arguments, "--overwrite", limit=300
    )
    summary = json.loads((logs / "summary.json").read_text())
    auc = summary["tasks"]["click"]["joint"]["expected_auc"]
    return {SIMULATOR.name: seconds, BAYES_LOW.name: auc, BAYES_HIGH.name: auc}


def _demo() -> Mapping[str, float]:
    _, seconds = python("-m", "tfmtl", "demo", limit=1200)
    return {DEMO.name: seconds}


def _tests() -> Mapping[str, float]:
    _, seconds = python("-m", "pytest", "-c", "tests/pytest.ini", "tests", limit=3600)
    return {TESTS.name: seconds}


def _movielens(work: pathlib.Path, raw: pathlib.Path | None) -> Mapping[str, float]:
    source, prepared = data(raw, *MOVIELENS), work / "movielens-1m-prepared"
    arguments = ["--raw", str(source), "--out", str(prepared), "--overwrite"]
    python("-m", "tfmtl", "data", "prepare", MOVIELENS[0], *arguments, limit=600)
    output, _ = python(
        "-m",
        "benchmarks.preprocess",
        "--input",
        str(prepared / "logs" / "*.parquet"),
        "--experiment",
        str(prepared / "experiment.yaml"),
        limit=900,
    )
    (line,) = json_lines(output)
    return {ML_JOB.name: line["seconds"], ML_PEAK.name: line["rss_gib"]}


def _chain(work: pathlib.Path, raw: pathlib.Path | None) -> Mapping[str, float]:
    source = str(data(raw, *KUAIRAND))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        output, _ = python(
            "-m", "benchmarks.chain", "--raw", source, "--work", folder, limit=1800
        )
    seconds = {line["command"]: line["seconds"] for line in json_lines(output)}
    sys.stdout.write("".join(f"   {n:<12}{s:>8.1f} s\n" for n, s in seconds.items()))
    return {CHAIN.name: seconds["total"]}


def _balancers(work: pathlib.Path, raw: pathlib.Path | None) -> Mapping[str, float]:
    source, out = data(raw, *KUAIRAND), work / "balancing"
    kept = out / "balancing_cost.json"
    kept.unlink(missing_ok=True)  # a call continues where an earlier one stopped
    names = sorted({name for name, _ in BALANCERS})
    where = ["--raw", str(source), "--work", str(work), "--out", str(out)]
    python(
        *("-m", "benchmarks.balancing", *where, "--parts", "cost"),
        *("--balancers", *names),
        limit=1800,
    )
    found = {}
    # By processor time: on busy cores the clock tells more of the others.
    for row in json.loads(kept.read_text()):
        target = BALANCERS.get((row["name"], row["config"].get("gradients", "")))
        if target is not None and "failed" not in row:
            found[target.name] = row["cpu_ms"] / row["cpu_equal_ms"]
    return found


def _accuracy_name(name: str, task: str) -> str:
    return f"{name}: mean test AUC of {task}".replace(
        "mean test AUC of mean_cell_auc", "mean cell AUC"
    )


def _accuracy(
    work: pathlib.Path, raw: pathlib.Path | None, name: str
) -> Mapping[str, float]:
    source = data(raw, *(KUAIRAND if name == "kuairand" else MOVIELENS))
    arguments = ["--raw", str(source), "--work", str(work), "--seeds", str(SEEDS[name])]
    output, _ = python("-m", "benchmarks.accuracy", name, *arguments, limit=7200)
    seeds = json_lines(output)
    return {
        _accuracy_name(name, task): statistics.mean(seed[task] for seed in seeds)
        for task in ACCURACY[name]
    }


def _attainable(work: pathlib.Path) -> Mapping[str, float]:
    output, _ = python(
        "-m", "benchmarks.accuracy", "simulated", "--work", str(work), limit=7200
    )
    seeds = json_lines(output)
    return {
        FORM_SHARE.name: statistics.mean(seed["ratio"] for seed in seeds),
        MEANS_SHARE.name: statistics.mean(seed["means_share"] for seed in seeds),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints everything.

    Args:
        arguments: `sys.argv[1:]` where absent.

    Returns:
        1 if a benchmark failed or a target was missed, else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--raw", type=pathlib.Path, help="folder of the data sets; else $TFMTL_DATA"
    )
    parser.add_argument("--full", action="store_true", help="accuracy, too")
    parser.add_argument("--tests", action="store_true", help="all tests, too")
    parser.add_argument("--work", type=pathlib.Path, help="keeps what is made")
    given = parser.parse_args(arguments)
    named = given.raw or os.environ.get("TFMTL_DATA")
    raw = pathlib.Path(named).resolve() if named else None
    if given.raw is not None and not given.raw.is_dir():
        parser.error(f"--raw must be a folder. Received: {str(given.raw)!r}")
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        work = (given.work or pathlib.Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for benchmark in benchmarks(work, raw, full=given.full, tests=given.tests):
            outcomes += carry_out(benchmark, sys.stdout)
    return conclude(outcomes, sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
