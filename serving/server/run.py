"""Runs the embedded server: in the foreground, or in a thread for tests and demos."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from serving.limits import MAX_BODY_BYTES
from serving.server.app import create_app
from serving.server.registry import Registry, Versions
from tfmtl.errors import ConfigError, ServingError

logger = logging.getLogger(__name__)

_STARTUP_SECONDS = 30.0
# Connections that wait while the model is being loaded, or in a burst.
_BACKLOG = 2048


def serve(
    model_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    versions: Versions = "latest",
    poll_seconds: float = 1.0,
    max_body_bytes: int = MAX_BODY_BYTES,
    threads: int | None = None,
) -> None:
    """Serves a model until SIGINT or SIGTERM; requests in flight are finished.

    Args:
        model_dir: Holds one directory per version, as TensorFlow Serving's
            `--model_base_path`.
        name: The model's name in URLs; by default the directory's.
        host: The address to listen on; "0.0.0.0" is every interface.
        rest_port: The port of the REST API; 0 takes a free one.
        versions: "latest", "all" or a list of versions.
        poll_seconds: How often the directory is looked at.
        max_body_bytes: A larger request is answered 413.
        threads: Requests that are worked on at once; by default 4 per core.

    Raises:
        ConfigError: An argument is out of range, or the address is taken.
        DataError: No version can be loaded.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listening(host, rest_port))
        server, model = stack.enter_context(
            _application(
                model_dir, name, versions, poll_seconds, max_body_bytes, threads
            )
        )
        logger.info("REST API: %s/v1/models/%s", _base_url(listener), model)
        with _signals_return():
            server.run(sockets=[listener])


@contextlib.contextmanager
def _signals_return() -> Iterator[None]:
    """Lets `serve` return after a signal: uvicorn raises it again once it is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(
    model_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    versions: Versions = "latest",
    poll_seconds: float = 1.0,
    max_body_bytes: int = MAX_BODY_BYTES,
    threads: int | None = None,
) -> Iterator[str]:
    """Serves a model from a background thread while the block runs.

    Args:
        model_dir: As for `serve`, like all further arguments.
        name: The model's name.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        versions: The versions to serve.
        poll_seconds: How often the directory is looked at.
        max_body_bytes: The size limit of a request.
        threads: Requests at once.

    Yields:
        The base URL, such as "http://127.0.0.1:34567"; requests are answered already.

    Raises:
        ConfigError: An argument is out of range, or the address is taken.
        DataError: No version can be loaded.
        ServingError: The server did not start.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listening(host, port))
        server, _ = stack.enter_context(
            _application(
                model_dir, name, versions, poll_seconds, max_body_bytes, threads
            )
        )
        thread = threading.Thread(
            target=server.run, args=([listener],), name="tfmtl-serving", daemon=True
        )
        thread.start()
        try:
            _await_start(server, thread)
            yield _base_url(listener)
        finally:
            server.should_exit = True
            thread.join()


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ServingError("The embedded server did not start; see the log.")
        time.sleep(0.005)


@contextlib.contextmanager
def _application(
    model_dir: str | os.PathLike[str],
    name: str | None,
    versions: Versions,
    poll_seconds: float,
    max_body_bytes: int,
    threads: int | None,
) -> Iterator[tuple[uvicorn.Server, str]]:
    """Loads the model, watches its directory, and yields a server ready to run."""
    workers = 4 * (os.cpu_count() or 1) if threads is None else threads
    if not poll_seconds > 0 or max_body_bytes < 1 or workers < 1:
        raise ConfigError(
            "`poll_seconds`, `max_body_bytes` and `threads` must be positive. "
            f"Received: {poll_seconds}, {max_body_bytes}, {threads}."
        )
    model = model_name(model_dir, name)
    registry = Registry(model_dir, name=model, versions=versions)
    registry.poll()
    registry.require_served()
    stop = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(registry, stop, poll_seconds), name="tfmtl-versions",
        daemon=True,
    )  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor(workers, "tfmtl-predict") as pool:
        watcher.start()
        try:
            app = create_app(registry, pool=pool, max_body_bytes=max_body_bytes)
            yield uvicorn.Server(_config(app)), model
        finally:
            stop.set()
            watcher.join()
    registry.close()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=30,
    )


def _watch(registry: Registry, stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        try:
            registry.poll()
        except Exception:
            logger.exception("looking for new versions failed; the old ones stay")


def model_name(model_dir: str | os.PathLike[str], name: str | None = None) -> str:
    """The name a model is served under: `name`, or that of its directory.

    Raises:
        ConfigError: The name is empty or cannot be part of a URL's path.
    """
    chosen = pathlib.Path(model_dir).resolve().name if name is None else name
    if not chosen or set(chosen) & set("/:?#% "):
        raise ConfigError(
            "`name` must not be empty or hold a space or one of / : ? # %. "
            f"Received: {chosen!r}."
        )
    return chosen


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket: taken before the model is loaded, so that errors come at once."""
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, address = found[0][0], found[0][4]
            # The protocol is named (create_server leaves it 0) because asyncio sets
            # TCP_NODELAY only then; without it every answer waits 40 ms for an ACK.
            listener = stack.enter_context(
                socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            )
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                "`host` and `port` must name a free address of this machine. "
                f"Received: {host}:{port} ({error})."
            ) from error
        yield listener


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
