"""`tfmtl serve`."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import click

from tfmtl.cli.base import IN_FOLDER, Command, example

_PORT = click.IntRange(0, 65535)


@click.command(
    cls=Command,
    epilog=example("tfmtl serve model", "tfmtl serve model --rest-port 9000"),
)
@click.argument("model_dir", type=IN_FOLDER)
@click.option("--rest-port", type=_PORT, default=8501, show_default=True)
@click.option("--grpc-port", type=_PORT, default=8500, show_default=True)
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
)
def serve(
    model_dir: pathlib.Path,
    rest_port: int,
    grpc_port: int,
    host: str,
    name: str | None,
    server: str,
) -> None:
    """Serve MODEL_DIR over TensorFlow Serving's API.

    The newest version is served, and new ones are picked up while it runs. Starts
    tensorflow_model_server where it is installed; otherwise an embedded server answers
    the same REST API (without gRPC).
    """
    from serving.launch import launch

    settings: dict[str, Any] = {
        "rest_port": rest_port,
        "grpc_port": grpc_port,
        "host": host,
        "name": name,
        "server": server,
    }
    logging.getLogger("serving").setLevel(logging.INFO)
    launch(model_dir, **settings)
