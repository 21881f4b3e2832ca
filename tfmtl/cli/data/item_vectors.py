"""`tfmtl data item-vectors`."""

from __future__ import annotations

import os
import pathlib

import click

from tfmtl.cli.base import IN_FILE, OUT_FILE, Command, example, set_option

_MIN_1 = click.IntRange(1)


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl data item-vectors alibaba/experiment.yaml \\",
        "    --input 'alibaba/logs/*.parquet' --column history_brand \\",
        "    --out alibaba/brand_vectors.parquet",
    ),
)
@click.argument("experiment", type=IN_FILE)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="GLOB",
    help="Parquet, CSV or Avro files; quote the pattern. Repeatable.",
)
@click.option(
    "--column",
    required=True,
    help="Raw column of a sequence feature: the items a user acted on.",
)
@click.option(
    "--out", type=OUT_FILE, required=True, help="Parquet file of items and vectors."
)
@click.option(
    "--size", type=_MIN_1, default=32, show_default=True, help="Numbers in a vector."
)
@click.option(
    "--window",
    type=_MIN_1,
    default=5,
    show_default=True,
    help="Neighbours on each side, at most.",
)
@click.option("--negatives", type=_MIN_1, default=5, show_default=True)
@click.option("--epochs", type=_MIN_1, default=20, show_default=True)
@click.option(
    "--min-count",
    type=_MIN_1,
    default=2,
    show_default=True,
    help="Rarer items get no vector.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--workers",
    type=_MIN_1,
    default=1,
    show_default=True,
    help="Threads; with one alone the same seed gives the same vectors.",
)
@set_option
def item_vectors(
    experiment: pathlib.Path,
    inputs: tuple[str, ...],
    column: str,
    out: pathlib.Path,
    size: int,
    window: int,
    negatives: int,
    epochs: int,
    min_count: int,
    seed: int,
    workers: int,
    overrides: tuple[str, ...],
) -> None:
    """Learn item vectors from the users' sequences (word2vec).

    Reads raw logs per EXPERIMENT, rows of its training split alone, and writes a side
    table for its `dataset.side_tables`. Needs gensim: pip install 'tfmtl[w2v]'.
    """
    from pipeline import item_vectors as word2vec
    from tfmtl.schema.load import load_experiment

    # Its side tables may be what is to be made: their files need not be there.
    dataset = load_experiment(experiment, overrides).dataset
    settings = word2vec.ItemVectors(
        size=size,
        window=window,
        negatives=negatives,
        epochs=epochs,
        min_count=min_count,
        seed=seed,
        workers=workers,
    )
    item = word2vec.item_feature(dataset, column)
    found = word2vec.run(dataset, inputs, column, out, settings)
    click.echo(
        f"{len(found.vectors):,} items of {found.events:,} events in "
        f"{found.sentences:,} sequences; {found.rare:,} rarer ones have no vector: "
        f"{out}"
    )
    path = os.path.relpath(out, experiment.parent)
    click.echo("next, in the experiment's `dataset`:")
    click.echo(
        f"  side_tables: {{item_vectors: {{path: {path}, key: {word2vec.KEY}, "
        f"feature: {item}}}}}"
    )
    click.echo(
        f"  features: [{{name: word2vec, kind: vector, side: item, column: "
        f"{word2vec.VECTOR}, table: item_vectors, size: {size}}}, ...]"
    )
