"""`tfmtl fuse`: weights of the fused score, found without training."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tfmtl.cli.base import (
    IN_FILE,
    IN_FOLDER,
    OUT_FILE,
    Command,
    example,
    json_option,
    print_json,
)

if TYPE_CHECKING:
    from tfmtl.schema.fusion import Form

_FORMS = (
    "product",
    "sum",
    "shifted_product",
    "exponential_sum",
    "exponential_product",
    "rank",
)
_SHOWN = 12  # points of the front in the table


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl fuse run --objective buy/ndcg@10",
        "tfmtl fuse run --objective buy/ndcg@10 --constraint 'click/ndcg@10 >= 0.4'",
        "tfmtl fuse run --objective buy/mrr --constraint "
        "'click/mrr >= baseline - 0.01' --evaluations 5000",
        "tfmtl evaluate run --split test",
    ),
)
@click.argument("run", type=IN_FOLDER)
@click.option(
    "--objective",
    required=True,
    metavar="METRIC",
    help="What to maximise: output/metric@K or output@scenario/metric@K; metrics are "
    "ndcg, map, hr, gndcg, gmap at K, and mrr.",
)
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="'METRIC >= BOUND'",
    help="What must hold (>= or <=); the bound is a number, or `baseline` plus or "
    "minus a number: what the configured weights reach. Repeatable.",
)
@click.option(
    "--evaluations",
    type=click.IntRange(16),
    default=2000,
    show_default=True,
    help="Weights to try, at most.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--form",
    type=click.Choice(_FORMS),
    help="Of the score; the experiment's by default, `product` where it has none.",
)
@click.option(
    "--predictions",
    type=IN_FILE,
    help="Search on these, which `tfmtl evaluate RUN --predictions` wrote; on the "
    "validation split's by default, computed once and kept in the run.",
)
@click.option("--dataset", type=IN_FOLDER, help="Where the dataset lies now, if moved.")
@click.option(
    "--figure",
    type=OUT_FILE,
    help="PNG file of the front; fusion.png in RUN by default, where matplotlib is "
    "installed.",
)
@click.option(
    "--write/--no-write",
    default=True,
    show_default=True,
    help="Write the weights into RUN, for evaluate, export and score.",
)
@json_option
def fuse(
    run: pathlib.Path,
    objective: str,
    constraints: tuple[str, ...],
    evaluations: int,
    seed: int,
    form: str | None,
    predictions: pathlib.Path | None,
    dataset: pathlib.Path | None,
    figure: pathlib.Path | None,
    write: bool,
    as_json: bool,
) -> None:
    """Search the weights of the fused score of RUN, on stored predictions.

    Nothing is trained: thousands of weights are tried in seconds. The weights found go
    into RUN as fusion.json, which evaluate, export and score then use (--fusion there).
    """
    from tfmtl import workflow
    from tfmtl.cli.console import progress

    with progress() as listener:
        document = workflow.fuse(
            run,
            objective,
            constraints,
            evaluations=evaluations,
            seed=seed,
            form=typing.cast("Form | None", form),
            predictions=predictions,
            dataset=dataset,
            figure=figure,
            write=write,
            listener=listener,
        )
    if as_json:
        print_json(document)
    else:
        _print(document, str(run / "fusion.json") if write else None)


def _print(document: Mapping[str, Any], written: str | None) -> None:
    """Prints the front, and what was found against what was configured."""
    from tfmtl.cli.console import print_table

    used = [n for n, w in document["found"]["weights"].items() if w]
    metrics = list(document["found"]["metrics"])
    columns = [*(f"w {name}" for name in used), *metrics]

    def cells(point: Mapping[str, Any]) -> list[object]:
        weights = [f"{point['weights'][name]:.4g}" for name in used]
        return [*weights, *(point["metrics"][name] for name in metrics)]

    forms = {document[k]["form"] for k in ("configured", "found")}
    rows: list[list[object]] = [
        [
            name if len(forms) == 1 else f"{name} ({document[name]['form']})",
            *cells(document[name]),
        ]
        for name in ("configured", "found")
    ]
    rows += [["", *cells(point)] for point in _some(document["front"])]
    print_table(
        f"{document['rows']:,} rows, {document['evaluations']:,} weights tried; below "
        f"the first two the front, {document['front_size']:,} points in all",
        ["", *columns],
        rows,
        numbers=columns,
    )
    goal = document["objective"]
    before, after = (document[k]["metrics"][goal] for k in ("configured", "found"))
    click.echo(f"{goal}: {before:.4f} configured, {after:.4f} found")
    for constraint in document["constraints"]:
        click.echo(f"kept: {constraint}")
    if written is not None:
        click.echo(f"written: {written}; measure it on a split it was not searched on")


def _some(points: Sequence[Any]) -> list[Any]:
    """At most `_SHOWN` points, evenly along the front."""
    if len(points) <= _SHOWN:
        return list(points)
    step = (len(points) - 1) / (_SHOWN - 1)
    return [points[round(i * step)] for i in range(_SHOWN)]
