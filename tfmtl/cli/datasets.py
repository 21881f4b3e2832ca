"""How the command line shows a dataset directory."""

from __future__ import annotations

import datetime

import click

from tfmtl.cli.console import print_table
from tfmtl.schema.manifest import DatasetManifest


def print_manifest(manifest: DatasetManifest) -> None:
    """Prints rows, positive rates, vocabularies and warnings of a dataset."""
    counts = manifest.counts
    click.echo(
        f"read {counts.read:,} rows: {counts.written:,} written, "
        f"{counts.rejected:,} rejected, {counts.duplicates:,} duplicates, "
        f"{counts.dropped:,} outside the split, {counts.sampled_out:,} sampled out"
    )
    if manifest.sampling is not None:
        _print_sampling(manifest)
    rows: list[list[object]] = []
    for name, split in manifest.splits.items():
        time = f"{_day(split.timestamp_min)} .. {_day(split.timestamp_max)}"
        rows.append([name, "all", split.rows, time, *_means(split.tasks, manifest)])
        for scenario, count in split.scenarios.items():
            if scenario == "unknown" and not count:
                continue
            cells = {task: cells.get(scenario) for task, cells in split.cells.items()}
            rows.append([name, scenario, count, "", *_means(cells, manifest)])
    tasks = list(manifest.dataset.task_names)
    print_table(
        "rows, and mean label where there is one",
        ["split", "scenario", "rows", "time (UTC)", *tasks],
        rows,
        numbers=["rows", *tasks],
    )
    if manifest.vocabularies:
        print_table(
            "vocabularies",
            ["name", "values", "left out", "table rows"],
            [[n, v.size, v.dropped, v.rows] for n, v in manifest.vocabularies.items()],
            numbers=["values", "left out", "table rows"],
        )
    for reason, count in manifest.rejected.items():
        click.echo(f"rejected {count:,}: {reason}")
    for warning in manifest.warnings:
        click.echo(f"warning: {warning}")


def _print_sampling(manifest: DatasetManifest) -> None:
    """Which training rows were left out, and the base rates before that."""
    sampling, spec = manifest.sampling, manifest.dataset.sampling
    assert sampling is not None and spec is not None
    written = manifest.splits["train"].rows
    click.echo(
        f"train: {sampling.rows:,} rows = {written:,} written + "
        f"{sampling.rows - sampling.kept:,} sampled out; {sampling.sure:,} are "
        f"positive for {', '.join(spec.keep)} and always kept"
    )
    print_table(
        "down-sampled training rows (correction: " + spec.correction + ")",
        ["scenario", "rate", "candidates", "kept"],
        [[n, c.rate, c.candidates, c.kept] for n, c in sampling.strata.items()],
        numbers=["rate", "candidates", "kept"],
    )
    rates = [
        [t, before.mean, manifest.splits["train"].tasks[t].mean]
        for t, before in sampling.tasks.items()
    ]
    print_table(
        "mean label of the training rows",
        ["task", "before sampling", "written"],
        rows=rates,
        numbers=["before sampling", "written"],
    )


def _means(stats: object, manifest: DatasetManifest) -> list[float | None]:
    found = stats if isinstance(stats, dict) else {}
    means: list[float | None] = []
    for task in manifest.dataset.task_names:
        cell = found.get(task)
        means.append(cell.mean if cell is not None else None)
    return means


def _day(microseconds: float | None) -> str:
    if microseconds is None:
        return "?"
    # A year past 9999 is a number without a calendar.
    try:
        moment = datetime.datetime.fromtimestamp(microseconds / 1e6, tz=datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{microseconds:g}"
    return moment.strftime("%Y-%m-%d %H:%M")
