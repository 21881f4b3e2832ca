"""Simulated logs with known truth: `tfmtl data simulate`.

Users are shown lists of items in three scenarios of very different size and click,
put in the cart or the favourites, buy, like and watch. The true probability of every
label is written beside the log, so that any model's share of the attainable gap,
(AUC - 0.5) / (Bayes AUC - 0.5), can be told.

`OUT/logs/part-*.parquet`, a row per impression in order of time:

| column | type | meaning |
|---|---|---|
| row_id | int64 | number of the row, key of `truth.parquet` |
| request_id | int64 | list the row belongs to, 5 to 20 rows of one user and time |
| timestamp | int64 | seconds since the epoch (UTC), that of the request; over 10 days |
| scenario | string | feed 75 %, search 20 %, live 5 % of the requests |
| position | int64 | 0, 1 ... within the request; lower positions are clicked less |
| user_id, item_id | string | 20,000 users of skewed activity, 5,000 items by Zipf |
| user_age_group | string | 7 values |
| user_gender | string, null | 3 values |
| user_city | string, null | 100 values, Zipf |
| user_device | string | 4 values |
| user_price_level | int64 | 1 to 7, purchasing power (a label for a price-level task) |
| user_activity | float, null | visits in the month before the log |
| user_interests | list<string> | 0 to 4 of 24 topics |
| item_category | string | 50 values, Zipf |
| item_creator | string, null | 500 values |
| item_price | float, null | price |
| item_price_level | int64 | 1 to 7, equally many items each |
| item_age_days | float | days since the item was made |
| item_quality | float, null | editors' rating, standard normal |
| item_content | list<float> | 8 numbers: embedding that tells part of the taste |
| follows_creator | int64 | 1 where the user follows the item's creator |
| hist_item | list<string> | the user's last 50 clicks before the request, newest last |
| hist_action | list<string> | aligned: click, like, favourite, cart or buy |
| hist_age_hours | list<float> | aligned: hours since, above 0 |
| click | int64 | label, of every impression |
| cart, favourite | int64 | labels, only where clicked |
| buy | int64 | label, only where put in the cart or the favourites |
| like | int64, null | label, only where clicked; null where unanswered |
| watch_time | float, null | label in seconds; null where not clicked |

`OUT/truth.parquet` has row_id and, for every row, the true probability of click, of
click at position 0, of cart, favourite, buy and like for the impression, of each given
a click (`cart_given_click` ...), of `intent_given_click` (cart or favourite) and
`buy_given_intent`, of like for an impression whose like is known (`like_where_known`:
what a model of all rows with a label estimates), and the mean of watch_time (and of
its logarithm) given a click.
`OUT/summary.json` is `SimulationSummary`; `OUT/experiment.yaml` fits the log.

The click logit in scenario s is

    a_s + b_user + b_item + scale * match(u, v, angle_s) + price, freshness, follow
        + position + hour

with latent tastes u and v of length 8. A stated share of their variance is a function
of the features (age group, gender, city, interests; category, creator, content), the
rest shows in ids and histories only (missing feature values hide a little more).
`match` turns by an angle for each scenario and each task, so that preferences correlate
with the cosine of the difference: scenarios and tasks agree in part and conflict in
part. All numbers are in `simulator.constants`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq

from tfmtl.adapters.catalogue import experiment_text
from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.bayes import bayes_table
from tfmtl.adapters.simulator.columns import LogColumns, truth_table
from tfmtl.adapters.simulator.history import make_histories
from tfmtl.adapters.simulator.impressions import make_impressions
from tfmtl.adapters.simulator.outcomes import draw_labels, make_truth
from tfmtl.adapters.simulator.world import make_follows, make_items, make_users
from tfmtl.errors import ConfigError
from tfmtl.files import atomic_directory

_LOGGER = logging.getLogger(__name__)

ROWS_PER_FILE = 131_072

Progress = Callable[[int, int], None]
"""Called with the rows written so far and in all."""


@dataclasses.dataclass(frozen=True)
class SimulationSummary:
    """What `summary.json` holds.

    Attributes:
        version: Version of the generator; the same seed gives the same data within it.
        seed, rows, requests, users, items: Sizes; users and items are those that exist.
        scenarios: Rows in each scenario.
        counts: Rows of each event, and of unknown likes (`like_missing`).
        readable_share: Share of the variance of user taste, of item taste and of the
            click taste match ("match") that is a function of the features.
        preference_correlation: Correlation of the taste match between two scenarios
            ("feed/search") and of each task's with click's ("click/buy").
        tasks: Bayes figures per task, see `simulator.bayes.bayes_table`.
    """

    version: int
    seed: int
    rows: int
    requests: int
    users: int
    items: int
    scenarios: dict[str, int]
    counts: dict[str, int]
    readable_share: dict[str, float]
    preference_correlation: dict[str, float]
    tasks: dict[str, object]

    def to_json(self) -> str:
        """The content of `summary.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def check_arguments(rows: int, seed: int, users: int, items: int) -> None:
    """Raises unless every number is within its bounds.

    Raises:
        ConfigError: names the argument, the rule and the value.
    """
    bounds = {
        "rows": (rows, 100, 1_000_000_000),
        "seed": (seed, 0, 2**63 - 1),
        "users": (users, 100, 10_000_000),
        "items": (items, 200, 10_000_000),
    }
    for name, (value, least, most) in bounds.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            raise ConfigError(
                f"`{name}` must be an integer from {least} to {most}. "
                f"Received: {value!r}"
            )


def preference_correlation() -> dict[str, float]:
    """Correlation of the taste match between scenarios, and of tasks with click."""
    correlation = {}
    for left in range(len(c.SCENARIOS)):
        for right in range(left + 1, len(c.SCENARIOS)):
            angle = c.SCENARIO_ANGLE[left] - c.SCENARIO_ANGLE[right]
            pair = f"{c.SCENARIOS[left]}/{c.SCENARIOS[right]}"
            correlation[pair] = round(math.cos(angle), 6)
    for task, angle in c.TASK_ANGLE.items():
        if task != "click":
            correlation[f"click/{task}"] = round(math.cos(angle), 6)
    return correlation


def simulate(
    out: pathlib.Path,
    *,
    rows: int,
    seed: int,
    users: int = 20_000,
    items: int = 5_000,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SimulationSummary:
    """Writes a simulated log, its truth and its summary into `out`.

    The same arguments give the same data on the same machine and NumPy version.

    Args:
        out: New or empty folder; see the module for what it will hold.
        rows: Impressions, at least 100.
        seed: Seed of the world and the log, at least 0.
        users: Users that exist, at least 100.
        items: Items that exist, at least 200.
        overwrite: Replace a folder that holds files.
        progress: Called with the rows written so far and in all.

    Returns:
        The summary that was written.

    Raises:
        ConfigError: An argument is out of bounds, or `out` holds files.
    """
    check_arguments(rows, seed, users, items)
    with atomic_directory(out, overwrite=overwrite, name="simulate") as folder:
        people, things = make_users(seed, users), make_items(seed, items)
        follows = make_follows(seed, people, things)
        log = make_impressions(seed, rows, people, things)
        truth = make_truth(log, people, things, follows)
        labels = draw_labels(seed, truth)
        histories = make_histories(log, labels)
        columns = LogColumns(log, people, things, follows, labels, histories)
        (folder / "logs").mkdir()
        for part, start in enumerate(range(0, rows, ROWS_PER_FILE)):
            end = min(rows, start + ROWS_PER_FILE)
            pq.write_table(
                columns.table(start, end), folder / "logs" / f"part-{part:05d}.parquet"
            )
            if progress is not None:
                progress(end, rows)
        pq.write_table(truth_table(truth), folder / "truth.parquet")
        sizes = np.bincount(log.scenario, minlength=len(c.SCENARIOS))
        counts = {name: int(happened.sum()) for name, happened in labels.event.items()}
        counts["like_missing"] = int((~labels.like_known).sum())
        summary = SimulationSummary(
            version=c.VERSION,
            seed=seed,
            rows=rows,
            requests=len(log.request_user),
            users=users,
            items=items,
            scenarios={name: int(sizes[s]) for s, name in enumerate(c.SCENARIOS)},
            counts=counts,
            readable_share={
                "user_taste": c.USER_READABLE,
                "item_taste": c.ITEM_READABLE,
                "match": round(c.USER_READABLE * c.ITEM_READABLE, 6),
            },
            preference_correlation=preference_correlation(),
            tasks=bayes_table(log, truth, labels),
        )
        (folder / "summary.json").write_text(summary.to_json())
        (folder / "experiment.yaml").write_text(experiment_text("simulated"))
    _LOGGER.info("simulated %d rows of %d requests", rows, summary.requests)
    return summary
