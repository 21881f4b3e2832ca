"""Starts a server for a model: the embedded one, or TensorFlow Serving.

`tensorflow_model_server` has flags for its ports, but none for the address: it listens
on all interfaces. So it is not started unless that is wanted, or it is asked for.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Literal

from serving.limits import MAX_BODY_BYTES
from tfmtl.errors import ConfigError, ServingError

logger = logging.getLogger(__name__)

BINARY = "tensorflow_model_server"
Server = Literal["auto", "tensorflow_model_server", "embedded"]
Versions = Literal["latest", "all"] | Sequence[int]

_EVERYWHERE = ("0.0.0.0", "::", "")
_STOP_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which server will run, and how.

    Attributes:
        server: The one chosen.
        command: Its command line; empty for the embedded server.
        model: The model's name in URLs.
        rest_port: The REST API's port.
        grpc_port: gRPC's port; None where there is no gRPC.
        notes: What a person should know about the choice.
    """

    server: Literal["tensorflow_model_server", "embedded"]
    command: tuple[str, ...]
    model: str
    rest_port: int
    grpc_port: int | None
    notes: tuple[str, ...]

    def describe(self) -> str:
        """The choice in words, for a log or a terminal."""
        grpc = f", gRPC on port {self.grpc_port}" if self.grpc_port else ""
        ports = f"REST on port {self.rest_port}{grpc}"
        return "\n".join((f"{self.server}: model {self.model}, {ports}", *self.notes))


def plan(
    model_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    server: Server = "auto",
    poll_seconds: float = 1.0,
    max_body_bytes: int | None = None,
    monitoring_config: str | os.PathLike[str] | None = None,
    batching_config: str | os.PathLike[str] | None = None,
) -> Plan:
    """Chooses the server; starts nothing. Arguments as for `launch`.

    Raises:
        ConfigError: A file is missing, or an option does not go with the server.
    """
    directory = pathlib.Path(model_dir)
    if not directory.is_dir():
        raise ConfigError(
            "`model_dir` must be a directory with one folder per version. "
            f"Received: {str(directory)!r}."
        )
    for option, path in (
        ("monitoring_config", monitoring_config),
        ("batching_config", batching_config),
    ):
        if path is not None and not pathlib.Path(path).is_file():
            raise ConfigError(f"`{option}` must be a file. Received: {str(path)!r}.")
    binary = None if server == "embedded" else shutil.which(BINARY)
    if server not in ("auto", "tensorflow_model_server", "embedded") or (
        server == "tensorflow_model_server" and binary is None
    ):
        raise ConfigError(
            "`server` must be 'auto', 'embedded' or 'tensorflow_model_server', which "
            f"must then be on PATH. Received: {server!r}."
        )
    model = directory.resolve().name if name is None else name
    if binary is None or (server == "auto" and host not in _EVERYWHERE):
        notes = [_why_embedded(host, binary)] if server == "auto" else []
        return _embedded_plan(
            model, rest_port, notes, monitoring_config, batching_config
        )
    command = [
        binary,
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_name={model}",
        f"--model_base_path={directory.resolve()}",
        f"--file_system_poll_wait_seconds={max(1, round(poll_seconds))}",
    ]
    if monitoring_config is not None:
        command.append(f"--monitoring_config_file={os.path.abspath(monitoring_config)}")
    if batching_config is not None:
        command.append("--enable_batching=true")
        command.append(f"--batching_parameters_file={os.path.abspath(batching_config)}")
    notes = []
    if host not in _EVERYWHERE:
        notes.append(
            f"{BINARY} has no option for the address: it listens on all interfaces, "
            f"not on {host} alone. Close the ports to others, or choose the embedded "
            "server."
        )
    if max_body_bytes is not None:
        notes.append(
            f"{BINARY} has no option for the size of a request: let a proxy refuse "
            f"what is larger than {max_body_bytes} bytes."
        )
    return Plan(
        "tensorflow_model_server", tuple(command), model, rest_port, grpc_port,
        tuple(notes),
    )  # fmt: skip


def _why_embedded(host: str, binary: str | None) -> str:
    if binary is None:
        return f"Install {BINARY} for gRPC, batching and monitoring."
    return (
        f"{binary} is not started: it would listen on all interfaces, not on {host} "
        f"alone. Ask for it by the server {BINARY!r}, or by the host 0.0.0.0."
    )


def _embedded_plan(
    model: str,
    rest_port: int,
    notes: list[str],
    monitoring_config: str | os.PathLike[str] | None,
    batching_config: str | os.PathLike[str] | None,
) -> Plan:
    notes = [
        "The embedded server answers TensorFlow Serving's REST API; it has no gRPC.",
        *notes,
    ]
    for option, path in (
        ("monitoring_config", monitoring_config),
        ("batching_config", batching_config),
    ):
        if path is not None:
            notes.append(f"The embedded server takes no `{option}`: {path} is unused.")
    return Plan("embedded", (), model, rest_port, None, tuple(notes))


def launch(
    model_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    server: Server = "auto",
    versions: Versions = "latest",
    poll_seconds: float = 1.0,
    max_body_bytes: int | None = None,
    monitoring_config: str | os.PathLike[str] | None = None,
    batching_config: str | os.PathLike[str] | None = None,
) -> Plan:
    """Serves a model until SIGINT or SIGTERM.

    Args:
        model_dir: Holds one directory per version, named by an integer.
        name: The model's name; by default the directory's.
        host: The address to listen on; "0.0.0.0" is every interface.
        rest_port: The port of the REST API.
        grpc_port: The port of gRPC, which only TensorFlow Serving has.
        server: "auto" takes `tensorflow_model_server` where it is on PATH and `host`
            is every interface, since it listens on all of them whatever `host` says;
            elsewhere the embedded server.
        versions: "latest", "all" or a list of versions.
        poll_seconds: How often the directory is looked at.
        max_body_bytes: The embedded server answers 413 to a larger request; None is
            `serving.limits.MAX_BODY_BYTES`. TensorFlow Serving has no such option.
        monitoring_config: A file for `--monitoring_config_file`.
        batching_config: A file for `--batching_parameters_file`; turns batching on.

    Returns:
        What ran, once it was told to stop.

    Raises:
        ConfigError: An argument is wrong.
        DataError: The embedded server finds no version to serve.
        ServingError: TensorFlow Serving ended with an error.
    """
    chosen = plan(
        model_dir,
        name=name,
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        server=server,
        poll_seconds=poll_seconds,
        max_body_bytes=max_body_bytes,
        monitoring_config=monitoring_config,
        batching_config=batching_config,
    )
    logger.info("%s", chosen.describe())
    if chosen.server == "embedded":
        # Only here: the import brings TensorFlow, which the other server does not need.
        from serving.server import serve

        serve(
            model_dir,
            name=chosen.model,
            host=host,
            rest_port=rest_port,
            versions=versions,
            poll_seconds=poll_seconds,
            max_body_bytes=MAX_BODY_BYTES if max_body_bytes is None else max_body_bytes,
        )
        return chosen
    with tempfile.TemporaryDirectory(prefix="tfmtl-serving-") as folder:
        command = list(chosen.command)
        if versions != "latest":
            # Only a config file can ask for other versions than the newest.
            path = pathlib.Path(folder) / "models.config"
            path.write_text(_models_config(chosen.model, model_dir, versions))
            command.append(f"--model_config_file={path}")
        _run(command)
    return chosen


def _models_config(
    model: str, model_dir: str | os.PathLike[str], versions: Versions
) -> str:
    if isinstance(versions, str):
        policy = "all {}"
    else:
        wanted = " ".join(f"versions: {version:d}" for version in versions)
        policy = f"specific {{ {wanted} }}"
    path = str(pathlib.Path(model_dir).resolve())
    return (
        "model_config_list { config {\n"
        f"  name: {_quoted(model)}\n  base_path: {_quoted(path)}\n"
        f'  model_platform: "tensorflow"\n  model_version_policy {{ {policy} }}\n'
        "} }\n"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _run(command: Sequence[str]) -> None:
    """Runs a server in the foreground; SIGTERM to us ends it, too.

    Raises:
        ServingError: It cannot be started, or ended by itself.
    """
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise ServingError(f"{command[0]} cannot be started: {error}.") from error
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        process.terminate()

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {
            number: signal.signal(number, stop)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _end(process)
    if not stopping.is_set() and code != 0:
        raise ServingError(f"{command[0]} ended with exit code {code}; see its output.")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
