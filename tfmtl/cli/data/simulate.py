"""`tfmtl data simulate`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import OUT_FOLDER, Command, example, overwrite_option


@click.command(
    cls=Command, epilog=example("tfmtl data simulate --out logs --rows 200000 --seed 1")
)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder to write.")
@click.option(
    "--rows", type=int, default=1_000_000, show_default=True, help="Impressions."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--users", type=int, default=20_000, show_default=True)
@click.option("--items", type=int, default=5_000, show_default=True)
@overwrite_option
def simulate(
    out: pathlib.Path, rows: int, seed: int, users: int, items: int, overwrite: bool
) -> None:
    """Simulate logs with known truth.

    Three scenarios, a funnel from click to buy, position bias, histories. Writes
    logs/*.parquet, the true probability of every label (truth.parquet) and the best AUC
    that any model can reach (summary.json).
    """
    from tfmtl.adapters.simulate import simulate as run
    from tfmtl.cli.console import print_table, progress

    with progress() as listener:
        listener.stage("simulate", rows)
        reached = 0

        def follow(done: int, total: int) -> None:
            nonlocal reached
            listener.advance(done - reached)
            reached = done

        summary = run(
            out,
            rows=rows,
            seed=seed,
            users=users,
            items=items,
            overwrite=overwrite,
            progress=follow,
        )
    click.echo(f"{summary.rows:,} rows in {summary.requests:,} requests: {out}")
    print_table(
        "",
        ["scenario", "rows"],
        list(summary.scenarios.items()),
        numbers=["rows"],
    )
    logs = f"{out}/logs/*.parquet"
    click.echo(
        f"next: tfmtl preprocess {out}/experiment.yaml --input '{logs}' --output ..."
    )
