"""What a benchmark promises, what it reached, and how both are told.

A benchmark measures one or more figures, each with a target or none. It may be skipped
(its data are absent) or fail (its command does); either is an outcome, and the next one
goes on.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TextIO

ROOT = pathlib.Path(__file__).resolve().parents[1]

State = Literal["pass", "missed", "measured", "failed", "skipped"]
_SHOWN_LINES = 12

BALANCING = {
    "loss weighting": 1.15,
    "FAMO": 1.45,
    "GradNorm": 1.4,
    "full": 3.2,
    "representation": 1.5,
}
"""A step of a balancer by that of Equal at most: FAMO and GradNorm, other loss
weightings, and gradient weightings by where they take their gradients."""


class Failed(Exception):
    """The benchmark could not be carried out; the text says why."""


class Skipped(Exception):
    """The benchmark needs what is not there; the text says how to get it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One figure and its bound.

    Attributes:
        name: What is measured.
        bound: The largest (or, without `at_most`, the smallest) figure that passes;
            None where nothing is promised.
        unit: Of figure and bound, such as "s"; may be empty.
        at_most: Whether less is better.
    """

    name: str
    bound: float | None = None
    unit: str = ""
    at_most: bool = True

    def state(self, figure: float) -> State:
        """Whether a figure passes; NaN does not."""
        if self.bound is None:
            return "measured"
        met = figure <= self.bound if self.at_most else figure >= self.bound
        return "pass" if met else "missed"

    @property
    def promise(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "-"
        return f"{'<=' if self.at_most else '>='} {self.bound:g} {self.unit}".rstrip()


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Something to measure.

    Attributes:
        title: For people.
        targets: What it promises, in the order of the report.
        measure: Measures; returns the figure of each target by its name, and raises
            `Failed` or `Skipped`.
    """

    title: str
    targets: tuple[Target, ...]
    measure: Callable[[], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a target.

    Attributes:
        target: The target.
        state: "missed" is a figure on the wrong side, "failed" no figure.
        figure: None where there is none.
    """

    target: Target
    state: State
    figure: float | None = None


def carry_out(benchmark: Benchmark, stream: TextIO) -> list[Outcome]:
    """Runs one benchmark; one outcome for each of its targets, whatever happens."""
    stream.write(f"\n== {benchmark.title}\n")
    stream.flush()
    began = time.perf_counter()
    try:
        figures = benchmark.measure()
        missing = [t.name for t in benchmark.targets if t.name not in figures]
        if missing:
            raise Failed(f"no figure for: {', '.join(missing)}")
    except Skipped as error:
        stream.write(f"skipped: {error}\n")
        return [Outcome(target, "skipped") for target in benchmark.targets]
    except Failed as error:
        stream.write(f"FAILED: {error}\n")
        return [Outcome(target, "failed") for target in benchmark.targets]
    outcomes = [
        Outcome(target, target.state(figures[target.name]), figures[target.name])
        for target in benchmark.targets
    ]
    stream.write(table(outcomes) + f"\n-- {time.perf_counter() - began:.1f} s\n")
    stream.flush()
    return outcomes


def table(outcomes: Iterable[Outcome]) -> str:
    """One line for each outcome: what, figure, target, state."""
    cells = [
        (
            o.target.name,
            "-" if o.figure is None else f"{o.figure:.4g} {o.target.unit}".rstrip(),
            o.target.promise,
            o.state,
        )
        for o in outcomes
    ]
    head = ("figure of", "reached", "target", "state")
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        .rstrip()
        for row in (head, *cells)
    )  # fmt: skip


def conclude(outcomes: Sequence[Outcome], stream: TextIO) -> int:
    """Writes the table of all, and names what failed or missed its target.

    Returns:
        The exit code: 1 if anything failed or was missed, else 0.
    """
    stream.write(f"\n== all figures\n{table(outcomes)}\n\n")
    for state in ("failed", "missed", "skipped"):
        names = [o.target.name for o in outcomes if o.state == state]
        if names:
            stream.write(f"{state}: {'; '.join(names)}\n")
    stream.flush()
    return int(any(o.state in ("failed", "missed") for o in outcomes))


def python(
    *arguments: str, limit: float, codes: Sequence[int] = (0,)
) -> tuple[str, float]:
    """Runs `python ARGUMENTS` in a process of its own.

    Args:
        arguments: Behind the interpreter.
        limit: Seconds before it is stopped, with all that it started.
        codes: Exit codes that are no failure.

    Returns:
        Its standard output, and the seconds it took.

    Raises:
        Failed: It ended with another code, or was stopped.
    """
    shown = f"python {' '.join(arguments)}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own, so that what it starts can be stopped with it.
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{shown}: stopped after its limit of {limit:.0f} s") from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode not in codes:
        lines = [line for line in (output + errors).splitlines() if line.strip()]
        raise Failed(
            "\n".join(
                [
                    f"{shown}: exit code {process.returncode}",
                    *[f"    {line}" for line in lines[-_SHOWN_LINES:]],
                ]
            )
        )
    return output, seconds
