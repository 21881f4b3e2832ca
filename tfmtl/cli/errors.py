"""Exceptions to messages and exit codes: 2 usage, 3 failure, 130 Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import click

from tfmtl.errors import TfmtlError

USAGE = 2
FAILURE = 3
INTERRUPTED = 128 + signal.SIGINT


_signals: list[int] = []
"""The signals that came since the command began."""


@contextlib.contextmanager
def orderly_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGINT end the process as exceptions, which leave no half file.

    A command with a better answer (training saves first, a server finishes its
    requests) installs its own handlers.
    """

    def stop(number: int, _: object) -> None:
        _signals.append(number)
        check_signals()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _signals.clear()
    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    # A shell starts what runs in the background with Ctrl-C ignored: left so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_signals() -> None:
    """Ends the command, once more, if a signal came and its exception was lost.

    An extension module that is being imported drops any exception which a signal raises
    between two lines of its initialisation (seen in NumPy's), and the command would go
    on. Progress listeners ask here.

    Raises:
        KeyboardInterrupt: A Ctrl-C came since the command began.
        SystemExit: A SIGTERM came.
    """
    if signal.SIGTERM in _signals:
        sys.exit(128 + signal.SIGTERM)
    if _signals:
        raise KeyboardInterrupt


def run(command: Callable[[], object], *, debug: bool) -> int:
    """Runs a command and answers with its exit code, errors told on standard error.

    Args:
        command: What to run.
        debug: Print the traceback too.

    Returns:
        0, or the exit code of what went wrong.
    """
    try:
        result = command()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _told("interrupted", INTERRUPTED, debug)
    except click.ClickException as error:
        if debug:
            traceback.print_exc()
        error.show()
        return USAGE if isinstance(error, click.UsageError) else FAILURE
    except TfmtlError as error:
        return _told(f"Error: {error}", error.exit_code, debug)
    except ModuleNotFoundError as error:
        return _told(f"Error: {_missing(error)}", FAILURE, debug)
    except OSError as error:
        return _told(f"Error: {_file(error)}", FAILURE, debug)
    except Exception as error:
        text = str(error).strip() or "no message"
        hint = "" if debug else "\n--debug shows where it came from."
        return _told(f"Error: {type(error).__name__}: {text}{hint}", FAILURE, debug)
    return result if isinstance(result, int) else 0


def _told(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(message, err=True)
    return code


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").partition(".")[0]
    extra = {"apache_beam": "pipeline", "tensorflow_transform": "pipeline"}
    package = f"tfmtl[{extra[name]}]" if name in extra else name.replace("_", "-")
    return (
        f"this command needs the Python package {name!r}, which is not installed: "
        f"pip install '{package}'. `tfmtl doctor` lists what is missing."
    )


def _file(error: OSError) -> str:
    if error.filename is None:
        return f"{type(error).__name__}: {error}"
    return f"{error.filename!s}: {error.strerror}"
