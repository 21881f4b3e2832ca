"""Which variables the tasks share, and in which groups their gradients are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl.balance.config import GradientConfig
from tfmtl.errors import ConfigError

SHARED = ("shared", "embedding")
"""Kinds of variable groups that every task may reach; see
`MultiTaskModel.variable_groups`."""


class SharedVariables:
    """A model's variables, told apart by whether tasks share them.

    Args:
        groups: Group to variables, a partition.
        order: All variables, in the order of gradients.
        scenarios: Count a scenario's own variables as shared: its tasks share them.

    Attributes:
        all: As `order`.
        shared: Of the kinds `shared` and `embedding`, and of scenarios where they
            count, in the order of all.
        rest: The others: of tasks, gates, scenarios and cells.
        is_table: Which of `shared` are embedding tables.

    Raises:
        ConfigError: Scenarios count, and none has a variable of its own.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[Any]],
        order: Sequence[Any],
        scenarios: bool = False,
    ) -> None:
        owners = {v.ref(): g for g, vs in groups.items() for v in vs}
        kinds = {ref: g.partition("/")[0] for ref, g in owners.items()}
        counted = (*SHARED, "scenario") if scenarios else SHARED
        self.all = list(order)
        self.shared = [v for v in order if kinds[v.ref()] in counted]
        self.rest = [v for v in order if kinds[v.ref()] not in counted]
        self.is_table = [kinds[v.ref()] == "embedding" for v in self.shared]
        self._scenarios = [
            owners[v.ref()] if kinds[v.ref()] == "scenario" else "" for v in self.shared
        ]
        if scenarios and not any(self._scenarios):
            raise ConfigError(
                "`balancer.config.groups: shared+scenario` needs variables of a "
                f"scenario's own; this model has none. Groups: {sorted(groups)}"
            )

    def by_kind(self) -> dict[str, list[Any]]:
        """What all tasks and scenarios share, embedding tables apart; kinds without
        any left out."""
        kinds = {"shared": False, "embedding": True}
        places = zip(self.shared, self.is_table, self._scenarios)
        of_all = [(v, table) for v, table, scenario in places if not scenario]
        found = {
            kind: [v for v, t in of_all if t is table] for kind, table in kinds.items()
        }
        return {kind: variables for kind, variables in found.items() if variables}

    def balanced(self, config: Any) -> list[int]:
        """Places in `shared` of the variables that the balancer's weights apply to."""
        tables = getattr(config, "embedding", "balanced") == "balanced"
        return [i for i, table in enumerate(self.is_table) if tables or not table]

    def probed(self, probe: str, last: str | None) -> list[Any]:
        """Variables whose gradients are compared.

        Args:
            probe: `shared`, `shared+embedding` or `last_shared`.
            last: Part of the names of the last shared layer's variables.

        Raises:
            ConfigError: There is no such variable.
        """
        return [self.shared[i] for i in self._probed(probe, last)]

    def _probed(self, probe: str, last: str | None) -> list[int]:
        places = [i for i, table in enumerate(self.is_table) if not table]
        if probe == "shared+embedding" or not places:
            places = list(range(len(self.shared)))
        if probe == "last_shared":
            names = [self.shared[i].name for i in places]
            layers = [last] if last else [_layer(n) for n in names][-1:]
            places = [i for i, n in zip(places, names) if _in_layer(n, layers, last)]
        if not places:
            raise ConfigError(
                f"`balancer.config.probe: {probe}`"
                + (f" with `last_shared: {last}`" if last else "")
                + " fits no shared variable of this model; there are "
                f"{[v.name for v in self.shared]}"
            )
        return places

    def groups(self, config: GradientConfig) -> list[list[int]]:
        """Groups of places in `shared` whose gradients are compared together.

        In a step where a task reaches none of them, more are: see `OfGradients`.
        """
        places = self._probed(config.probe, config.last_shared)
        if config.granularity == "whole":
            return [places]
        by_group: dict[Any, list[int]] = {}
        # Each table and each tensor gets weights of its own here: all are compared.
        for i in self.balanced(config):
            name = self.shared[i].name
            part = name if config.granularity == "tensor" else _layer(name)
            key = (self._scenarios[i], part)
            by_group.setdefault(key, []).append(i)
        return list(by_group.values())

    def group_of_each(self, config: GradientConfig) -> list[int | None]:
        """For each shared variable, the group whose weights it gets; None: plain."""
        balanced = set(self.balanced(config))
        whole = config.granularity == "whole"
        groups = self.groups(config)
        found: dict[int, int] = {
            i: g for g, places in enumerate(groups) for i in places
        }
        return [
            None if i not in balanced else 0 if whole else found[i]
            for i in range(len(self.shared))
        ]


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _in_layer(name: str, layers: Sequence[str], pattern: str | None) -> bool:
    return pattern in name if pattern else _layer(name) in layers
