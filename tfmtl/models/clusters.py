"""Groups of scenarios that have their experts in common."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from tfmtl.errors import ConfigError

Clusters = Mapping[str, Sequence[str]]


def cluster(
    scenarios: Sequence[str], rates: Sequence[float], wanted: int | Clusters | None
) -> dict[str, tuple[str, ...]]:
    """Cluster to its scenarios, in the order of the scenarios where there is none.

    Args:
        scenarios: Names.
        rates: What scenarios are alike in, such as their mean log-odds.
        wanted: The clusters themselves; or how many: scenarios are then sorted by their
            rates and cut into runs of sizes that differ by 1 at most; None leaves every
            scenario alone.

    Raises:
        ConfigError: Clusters do not hold every scenario once, or are too many.
    """
    if wanted is None:
        return {s: (s,) for s in scenarios}
    if isinstance(wanted, int):
        if wanted > len(scenarios):
            raise ConfigError(
                f"`model.config.clusters` must be at most {len(scenarios)}, the number "
                f"of scenarios. Received: {wanted}"
            )
        order = sorted(range(len(scenarios)), key=lambda s: (rates[s], s))
        cuts = [round(i * len(order) / wanted) for i in range(wanted + 1)]
        return {
            f"cluster_{i}": tuple(scenarios[s] for s in sorted(order[first:last]))
            for i, (first, last) in enumerate(itertools.pairwise(cuts))
        }
    held = [s for members in wanted.values() for s in members]
    if sorted(held) != sorted(scenarios) or not all(wanted.values()):
        raise ConfigError(
            "`model.config.clusters` must hold every scenario once. Received: "
            f"{ {k: list(v) for k, v in wanted.items()} }; scenarios: {list(scenarios)}"
        )
    return {name: tuple(members) for name, members in wanted.items()}
