"""Progress on standard error, tables on standard output.

On a terminal a stage is a progress bar; elsewhere (a log file, CI) it is a line at its
start, at most one every ten seconds in between, and one with its time at its end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from tfmtl.cli.errors import check_signals
from tfmtl.progress import Listener

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_PLAIN_INTERVAL = 10.0
_PLAIN_WIDTH = 160


class PlainProgress:
    """A listener that writes lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name: str | None = None
        self._total: int | None = None
        self._done = 0
        self._begun = self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(failed=error is not None)

    def stage(self, name: str, total: int | None = None) -> None:
        """Ends the stage before and announces the next."""
        check_signals()
        self._end(failed=False)
        self._name, self._total, self._done = name, total, 0
        self._begun = self._told = time.monotonic()
        self._write(name + (f" ({total:,})" if total else ""))

    def advance(self, amount: int = 1) -> None:
        """Counts; tells where things stand every ten seconds."""
        check_signals()
        self._done += amount
        if time.monotonic() - self._told >= _PLAIN_INTERVAL:
            self._told = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            self._write(f"  {self._name}: {self._done:,}{of}")

    def note(self, text: str) -> None:
        """Writes the line."""
        self._write(f"  {text}")

    def _end(self, *, failed: bool) -> None:
        if self._name is not None:
            how = "stopped after" if failed else "done in"
            taken = time.monotonic() - self._begun
            self._write(f"{self._name}: {how} {taken:.1f} s")
        self._name = None

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class BarProgress:
    """A listener that draws one bar per stage."""

    def __init__(self, console: Console) -> None:
        from rich import progress

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._end()
        self._bars.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """Fills the bar before and begins the next."""
        check_signals()
        self._end()
        self._task = self._bars.add_task(name, total=total)

    def advance(self, amount: int = 1) -> None:
        """Moves the bar."""
        check_signals()
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Writes a line above the bars."""
        self._bars.console.print(f"  {text}", highlight=False, markup=False)

    def _end(self) -> None:
        if self._task is None:
            return
        done = self._bars.tasks[self._task].completed
        self._bars.update(self._task, total=max(done, 1), completed=max(done, 1))
        self._bars.stop_task(self._task)
        self._task = None


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Listener]:
    """The listener that fits standard error: bars on a terminal, lines elsewhere."""
    from rich.console import Console

    target = stream if stream is not None else sys.stderr
    console = Console(file=target)
    if console.is_terminal:
        with BarProgress(console) as bars:
            yield bars
    else:
        with PlainProgress(target) as lines:
            yield lines


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
) -> None:
    """Writes a table to standard output, whole lines where it is no terminal.

    Args:
        title: Above the table; may be empty.
        columns: Headings.
        rows: Cells; None is shown as "-", floats with four digits.
        numbers: Headings of the columns that are aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    if title:
        console.print(title, style="bold", highlight=False, markup=False)
    table = Table()
    for name in columns:
        table.add_column(
            name, justify="right" if name in numbers else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    console.print(table)


def _cell(value: object) -> str:
    from rich.markup import escape

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return escape(str(value))
