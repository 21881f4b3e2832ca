"""`tfmtl demo`: the main job, from raw logs to predictions over REST."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from tfmtl.cli.base import (
    OUT_FOLDER,
    Command,
    example,
    overwrite_option,
    set_option,
)

if TYPE_CHECKING:
    from tfmtl.progress import Listener

_SHOWN_ROWS = 5
_SHOWN_COLUMNS = 2


@click.command(
    cls=Command,
    epilog=example("tfmtl demo", "tfmtl demo --raw kuairand=KuaiRand-Pure/data"),
)
@click.option(
    "--raw",
    metavar="NAME=DIR",
    help="Run on a publisher's files instead of simulated logs; see `tfmtl data list`.",
)
@click.option(
    "--rows",
    type=click.IntRange(1000),
    default=200_000,
    show_default=True,
    help="Simulated impressions.",
)
@click.option(
    "--out",
    type=OUT_FOLDER,
    help="Keep logs, dataset, run and model here; by default nothing is kept.",
)
@overwrite_option
@set_option
def demo(
    raw: str | None,
    rows: int,
    out: pathlib.Path | None,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Run the main job from raw logs to predictions over REST.

    Simulates logs (or prepares a publisher's), preprocesses, trains, evaluates on the
    test split, exports, serves the export and asks it for predictions. Each stage is
    one command of this program; here they follow each other.
    """
    from tfmtl.cli.console import progress

    begun = time.monotonic()
    with _folder(out, overwrite) as folder:
        with progress() as listener:
            source = _simulate(folder, rows, listener) if raw is None else None
            logs, file = source or _prepare(folder, str(raw), listener)
            report = _train(folder, logs, file, overrides, listener)
            listener.stage("serve and predict")
            answers = _predict(folder / "model", logs)
        _show(report, answers)
        kept = f"; everything lies in {folder}" if out else ""
    click.echo(f"done in {time.monotonic() - begun:.0f} s{kept}")


@contextlib.contextmanager
def _folder(out: pathlib.Path | None, overwrite: bool) -> Iterator[pathlib.Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="tfmtl-demo-") as name:
            yield pathlib.Path(name)
        return

    import shutil

    from tfmtl.files import check_target

    check_target(out, overwrite=overwrite)
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    yield out


def _simulate(
    folder: pathlib.Path, rows: int, listener: Listener
) -> tuple[pathlib.Path, pathlib.Path]:
    """Simulated logs, and the experiment file that fits them."""
    from tfmtl.adapters.simulate import simulate

    listener.stage("simulate", rows)
    reached = 0

    def follow(done: int, _: int) -> None:
        nonlocal reached
        listener.advance(done - reached)
        reached = done

    summary = simulate(folder / "raw", rows=rows, seed=1, progress=follow)
    listener.note(f"{summary.rows:,} rows of {summary.requests:,} requests")
    return folder / "raw" / "logs", folder / "raw" / "experiment.yaml"


def _prepare(
    folder: pathlib.Path, raw: str, listener: Listener
) -> tuple[pathlib.Path, pathlib.Path]:
    """A publisher's logs, and the experiment file that comes with them.

    Raises:
        click.BadParameter: `raw` is not NAME=DIR with a folder that exists.
    """
    from tfmtl.adapters import catalogue

    name, equals, path = raw.partition("=")
    if not equals or not pathlib.Path(path).is_dir():
        raise click.BadParameter(
            f"must be NAME=DIR with a folder that exists, names: "
            f"{', '.join(catalogue.names())}. Received: {raw!r}",
            param_hint="'--raw'",
        )
    summary = catalogue.prepare(
        name, pathlib.Path(path), folder / "raw", listener=listener
    )
    listener.note(f"{summary.rows_written:,} of {summary.rows_read:,} rows")
    return folder / "raw" / "logs", folder / "raw" / "experiment.yaml"


def _train(
    folder: pathlib.Path,
    logs: pathlib.Path,
    file: pathlib.Path,
    overrides: tuple[str, ...],
    listener: Listener,
) -> dict[str, Any]:
    """Preprocesses, trains, evaluates and exports; answers with the test report."""
    from pipeline import preprocess
    from tfmtl import workflow
    from tfmtl.schema.load import load_experiment

    experiment = load_experiment(file, overrides)
    dataset, run = folder / "dataset", folder / "run"
    manifest = preprocess.run(
        experiment, [str(logs / "*.parquet")], dataset, listener=listener
    )
    for name, split in manifest.splits.items():
        listener.note(f"{name}: {split.rows:,} rows")
    result = workflow.train(experiment, dataset, run, listener=listener)
    value = "-" if result.value is None else f"{result.value:.4f}"
    listener.note(f"best at step {result.step}: {result.monitor} {value}")
    report = workflow.evaluate(run, "test", listener=listener)
    workflow.export(run, folder / "model", metrics=report, listener=listener)
    return report


def _predict(
    model: pathlib.Path, logs: pathlib.Path
) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Serves the export, and asks for the newest raw rows over REST."""
    from serving.client import Client
    from serving.server import running
    from tfmtl.schema.manifest import read_export

    (version,) = [p for p in model.iterdir() if p.name.isdigit()]
    inputs = {i.name: i.column for i in read_export(version).inputs}
    rows = _newest_rows(logs, inputs)
    with running(model) as url, Client(url, model=model.name) as client:
        return list(zip(rows, client.predict(rows), strict=True))


def _newest_rows(logs: pathlib.Path, inputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The last rows of the log, by the names of the model's inputs; null left out."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(max(logs.glob("*.parquet")))
    table = file.read_row_group(file.num_row_groups - 1)
    rows = table.slice(max(0, table.num_rows - _SHOWN_ROWS)).to_pylist()
    return [
        {
            name: row[column]
            for name, column in inputs.items()
            if row.get(column) is not None
        }
        for row in rows
    ]


def _show(
    report: dict[str, Any], answers: list[tuple[dict[str, Any], Mapping[str, Any]]]
) -> None:
    from tfmtl.cli.console import print_table
    from tfmtl.cli.report import print_report

    outputs = list(answers[0][1])
    scalars = [n for n, v in answers[0][0].items() if isinstance(v, str | int | float)]
    shown = list(dict.fromkeys(["scenario", *scalars]))[: _SHOWN_COLUMNS + 1]
    print_table(
        "predictions over REST, from raw rows",
        [*shown, *outputs],
        [
            [*[row.get(n) for n in shown], *[answer[o] for o in outputs]]
            for row, answer in answers
        ],
        numbers=outputs,
    )
    click.echo()
    print_report(report)
