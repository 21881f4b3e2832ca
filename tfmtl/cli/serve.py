"""`tfmtl serve`."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import click

from serving.limits import MAX_BODY_BYTES
from tfmtl.cli.base import IN_FOLDER, Command, example

_PORT = click.IntRange(0, 65535)


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl serve model",
        "tfmtl serve model --rest-port 9000 --max-body-mib 4",
        "tfmtl serve model --server tensorflow_model_server --host 0.0.0.0",
    ),
)
@click.argument("model_dir", type=IN_FOLDER)
@click.option("--rest-port", type=_PORT, default=8501, show_default=True)
@click.option(
    "--grpc-port",
    type=_PORT,
    default=8500,
    show_default=True,
    help="Of tensorflow_model_server; the embedded server has no gRPC.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every interface.",
)
@click.option("--name", help="The model's name in URLs; by default the folder's.")
@click.option(
    "--server",
    type=click.Choice(["auto", "embedded", "tensorflow_model_server"]),
    default="auto",
    show_default=True,
    help="tensorflow_model_server listens on every interface, whatever --host says; "
    "auto takes it only with --host 0.0.0.0, and where it is installed.",
)
@click.option(
    "--max-body-mib",
    type=click.IntRange(min=1),
    help="The embedded server answers 413 to a larger request. tensorflow_model_server "
    f"has no such limit.  [default: {MAX_BODY_BYTES // 2**20}]",
)
def serve(
    model_dir: pathlib.Path,
    rest_port: int,
    grpc_port: int,
    host: str,
    name: str | None,
    server: str,
    max_body_mib: int | None,
) -> None:
    """Serve MODEL_DIR over TensorFlow Serving's API.

    The newest version is served, and new ones are picked up while it runs. An embedded
    server answers TensorFlow Serving's REST API (without gRPC), on the loopback address
    unless --host says otherwise; --server tensorflow_model_server starts TensorFlow
    Serving itself, where it is installed.
    """
    from serving.launch import launch

    settings: dict[str, Any] = {
        "rest_port": rest_port,
        "grpc_port": grpc_port,
        "host": host,
        "name": name,
        "server": server,
        "max_body_bytes": None if max_body_mib is None else max_body_mib * 2**20,
    }
    logging.getLogger("serving").setLevel(logging.INFO)
    launch(model_dir, **settings)
