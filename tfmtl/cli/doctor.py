"""`tfmtl doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from typing import Any, NamedTuple

import click

from tfmtl.cli.base import Command, example, json_option, print_json
from tfmtl.errors import TfmtlError


class Need(NamedTuple):
    """A package: what it is for, which extra brings it, the version the code wants."""

    package: str
    purpose: str
    extra: str | None
    prefix: str = ""


NEEDS = (
    Need("tensorflow", "training, export, serving", None, "2.21."),
    Need("tf_keras", "models", None, "2.21."),
    Need("tensorflow-recommenders", "layers, optimizers", None, "0.7.7"),
    Need("keras-tuner", "hyper-parameter search", None, "1.4.8"),
    Need("tensorboard", "curves of a run", None),
    Need("tensorflow-serving-api", "gRPC client, warm-up", None),
    Need("protobuf", "records, gRPC", None, "6."),
    Need("grpcio", "gRPC client", None),
    Need("pydantic", "experiment files", None, "2."),
    Need("pyarrow", "Parquet", None),
    Need("numpy", "arrays", None),
    Need("scipy", "search, data set ciao", None),
    Need("scikit-learn", "search", None),
    Need("starlette", "embedded server", None),
    Need("uvicorn", "embedded server", None),
    Need("rich", "progress bars", None),
    Need("click", "command line", None),
    Need("apache-beam", "tfmtl preprocess", "pipeline", "2.77."),
    Need("tensorflow-transform", "tfmtl preprocess, export", "pipeline", "1.21."),
    Need("pandas", "tfmtl preprocess", "pipeline"),
    Need("gensim", "tfmtl data item-vectors", "w2v", "4."),
)


@click.command(cls=Command, epilog=example("tfmtl doctor", "tfmtl doctor --json"))
@json_option
def doctor(as_json: bool) -> int:
    """Report what is installed, what is missing, how to get it.

    Versions, processors, memory, GPU. The exit code is 3 where something is missing
    that every command needs.
    """
    from tfmtl import __version__

    packages = [_package(need) for need in NEEDS]
    server = shutil.which("tensorflow_model_server")
    report: dict[str, Any] = {
        "tfmtl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "tensorflow_model_server": server,
        "packages": packages,
        "advice": _advice(packages, server),
    }
    if as_json:
        print_json(report)
    else:
        _print(report)
    broken = any(p["state"] != "ok" and p["extra"] is None for p in packages)
    return TfmtlError.exit_code if broken else 0


def _package(need: Need) -> dict[str, Any]:
    try:
        version: str | None = importlib.metadata.version(need.package)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version is None:
        state = "missing"
    else:
        state = "ok" if version.startswith(need.prefix) else "another version"
    return {
        "name": need.package,
        "version": version,
        "wanted": f"{need.prefix}*" if need.prefix.endswith(".") else need.prefix,
        "state": state,
        "purpose": need.purpose,
        "extra": need.extra,
    }


def _advice(packages: list[dict[str, Any]], server: str | None) -> list[str]:
    advice = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        advice.append("Python 3.11 or 3.12 is needed")
    wrong = [p for p in packages if p["state"] != "ok"]
    if any(p["extra"] is None for p in wrong):
        advice.append(
            "pip install --upgrade tfmtl (or `make setup` in a clone) brings: "
            + ", ".join(p["name"] for p in wrong if p["extra"] is None)
        )
    for extra in dict.fromkeys(p["extra"] for p in wrong if p["extra"]):
        advice.append(
            f"pip install 'tfmtl[{extra}]' brings: "
            + ", ".join(p["name"] for p in wrong if p["extra"] == extra)
        )
    if server is None:
        advice.append(
            "tensorflow_model_server is not installed: `tfmtl serve` uses the embedded "
            "server (REST only). Debian, Ubuntu: package tensorflow-model-server of "
            "TensorFlow's apt repository; elsewhere: docker pull tensorflow/serving"
        )
    return advice


def _memory_gib() -> float | None:
    """Memory that this process may use: the machine's, or its container's limit."""
    try:
        amount = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    if limit.isdigit():
        amount = min(amount, int(limit))
    return round(amount / 2**30, 1)


def _gpus() -> list[str] | None:
    """Names of the GPUs that TensorFlow sees; None where TensorFlow does not import."""
    try:
        from tfmtl._keras import tf
    except ImportError:
        return None
    names = []
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        names.append(str(details.get("device_name", device.name)))
    return names


def _print(report: dict[str, Any]) -> None:
    from tfmtl.cli.console import print_table

    gpus = report["gpus"]
    memory = report["memory_gib"]
    click.echo(f"tfmtl {report['tfmtl']}, Python {report['python']}")
    click.echo(report["platform"])
    click.echo(f"{report['cpus']} processors, {memory or '?'} GiB of memory")
    if gpus is None:
        click.echo("GPU: unknown, TensorFlow does not import")
    else:
        click.echo(f"GPU: {', '.join(gpus) or 'none that TensorFlow can use'}")
    server = report["tensorflow_model_server"]
    click.echo(f"tensorflow_model_server: {server or 'not installed'}")
    print_table(
        "",
        ["package", "version", "wanted", "state", "for"],
        [
            [p["name"], p["version"], p["wanted"] or "any", p["state"], p["purpose"]]
            for p in report["packages"]
        ],
    )
    for line in report["advice"]:
        click.echo(f"- {line}")
