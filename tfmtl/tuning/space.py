"""A search space over an experiment: dotted paths <-> keras-tuner's parameters."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfmtl.errors import ConfigError, Place
from tfmtl.schema.dimension_base import DimensionSpec
from tfmtl.schema.document import set_value
from tfmtl.schema.load import default_optimizers
from tfmtl.schema.ranges import RangeDimension
from tfmtl.schema.tuning import WEIGHTS, TuningSpec
from tfmtl.tuning.parameters import decode, encode, hyperparameters

_CLASSES = ("model.class", "balancer.class")
_NOT_TRAINED = ("seed", "tuning")


class Space:
    """What a search may change in an experiment, and how.

    A trial's document is the experiment's with some settings replaced, as `--set` does.
    Two rules beside that: the file's `config` of model or balancer belongs to the
    file's own class, and is dropped where the space chooses another; and where loss
    weights are searched over a balancer `Equal`, the balancer becomes `Fixed`.

    Args:
        spec: The dimensions.
        document: The experiment, resolved: its `model_dump(mode="json",
            by_alias=True)`. Is not changed.
    """

    def __init__(self, spec: TuningSpec, document: Mapping[str, Any]) -> None:
        self.spec = spec
        self.document = document
        self.conditions = {path: spec.conditions(path) for path in spec.space}
        ordered = sorted(spec.space, key=lambda path: len(self.conditions[path]))
        self.names: tuple[str, ...] = tuple(ordered)
        """The dimensions, parents before what depends on them."""
        self.defaults = {path: self._default(path) for path in self.names}
        """The experiment's own values where they are in the range, else the middle."""

    def hyperparameters(self) -> Any:
        """The space as `keras_tuner.HyperParameters`, at its defaults.

        Lists, null and choices among booleans are JSON texts there: keras-tuner knows
        texts and numbers, and makes 0 and 1 of booleans.
        """
        space = self.spec.space
        return hyperparameters(
            {
                path: (space[path], self.defaults[path], self._encoded(path))
                for path in self.names
            }
        )

    def values(self, parameters: Any) -> dict[str, Any]:
        """The values of the active dimensions.

        Args:
            parameters: keras-tuner's, of a trial; they may have crossed a wire, where
                keras-tuner adds defaults of dimensions that are not active.
        """
        found: dict[str, Any] = {}
        for path in self.names:
            if path in parameters.values and self.is_active(path, found):
                dimension = self.spec.space[path]
                found[path] = decode(dimension, parameters.values[path])
        return found

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What `values` answered, as keras-tuner has it."""
        return {p: encode(self.spec.space[p], value) for p, value in values.items()}

    def is_active(self, path: str, values: Mapping[str, Any]) -> bool:
        """Whether a dimension is part of the search, given the others' values."""
        return all(
            parent in values and values[parent] in allowed
            for parent, allowed in self.conditions[path].items()
        )

    def apply(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The document of a trial, without a search in it.

        Args:
            values: Of the active dimensions.

        Raises:
            ConfigError: A path leads through something that is no mapping.
        """
        document = copy.deepcopy(dict(self.document))
        document["tuning"] = None
        if any(path.startswith("optimizers.") for path in values):
            document["optimizers"] = document.get("optimizers") or default_optimizers()
        for path in _CLASSES:
            part = path.partition(".")[0]
            if path in values and values[path] != document[part]["class"]:
                document[part]["config"] = {}
        weighed = any(path.startswith(WEIGHTS) for path in values)
        if weighed and "balancer.class" not in self.spec.space:
            balancer = document["balancer"]
            equal = balancer["class"] == "Equal"
            balancer["class"] = "Fixed" if equal else balancer["class"]
        for path, value in values.items():
            set_value(document, path, copy.deepcopy(value), f"`tuning.space`: {path}")
        return document

    def probes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Trials that together try each dimension at its ends, or each of its values.

        Each changes as little as it can: what the dimension's conditions ask, and the
        dimensions that go with the same choice of a class, which may not do without.

        Yields:
            The dimension, and the document of a trial.

        Raises:
            ConfigError: see `apply`.
        """
        for path, _, values in self._probed():
            yield path, self.apply(values)

    def _probed(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """The dimension of each probe, its value, and all values that are set."""
        for path in self.names:
            if path in self.spec.record_paths:
                continue  # Each combination of these is a data set, see below.
            for value in self.spec.space[path].ends:
                values = self._least(path) | {path: value}
                chosen = {*self.conditions[path], path} & set(_CLASSES)
                for other in self.names:
                    beside = other not in values and chosen & set(
                        self.conditions[other]
                    )
                    if beside and self.is_active(other, values):
                        values[other] = self.defaults[other]
                yield path, value, values
        yield from self._records_probed()

    def _records_probed(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """Every combination of what changes the records: each is a data set."""
        paths = [path for path in self.names if path in self.spec.record_paths]
        least: dict[str, Any] = {}
        for path in paths:
            least |= self._least(path)
        tried = [_all_values(self.spec.space[path]) for path in paths]
        for chosen in itertools.product(*tried) if paths else ():
            values = least | dict(zip(paths, chosen))
            active = {p: v for p, v in values.items() if self.is_active(p, values)}
            yield paths[-1], chosen[-1], active

    def check(self, parse: Callable[[dict[str, Any]], object]) -> None:
        """Tries each dimension before the first trial.

        Args:
            parse: Takes a trial's document and raises ConfigError where it is wrong:
                the schema's check, that of the classes' settings, and whether there
                are data for it.

        Raises:
            ConfigError: A dimension leads to an experiment that there cannot be. It
                names the dimension, the value and the rule; `places` has its place.
        """
        for path, value, values in self._probed():
            try:
                parse(self.apply(values))
            except ConfigError as error:
                raise self._refusal(error, path, value, values) from error

    def fingerprint(self) -> str:
        """SHA-256 of the space and the experiment, but for what trials share anyway.

        The seed, the budget and the goal are left out: trials of another search over
        the same space may be used again.
        """
        space = {p: d.model_dump(mode="json") for p, d in self.spec.space.items()}
        rest = {k: v for k, v in self.document.items() if k not in _NOT_TRAINED}
        text = json.dumps([space, rest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _default(self, path: str) -> Any:
        dimension = self.spec.space[path]
        own = _read(self.document, path.split("."))
        if own is None and path.startswith(WEIGHTS):
            own = 1.0
        number = isinstance(own, int | float) and not isinstance(own, bool)
        if number and isinstance(dimension, RangeDimension):
            low, high = dimension.ends
            return dimension.nearest(own) if low <= own <= high else dimension.middle
        return own if dimension.has(own) else dimension.middle

    def _encoded(self, path: str) -> dict[str, list[Any]]:
        """What must hold for a dimension, in keras-tuner's values."""
        space = self.spec.space
        return {
            parent: [encode(space[parent], value) for value in allowed]
            for parent, allowed in self.conditions[path].items()
        }

    def _least(self, path: str) -> dict[str, Any]:
        """Values of the parents under which a dimension is active."""
        return {
            parent: self.defaults[parent]
            if self.defaults[parent] in allowed
            else allowed[0]
            for parent, allowed in self.conditions[path].items()
        }

    def _refusal(
        self, error: ConfigError, path: str, value: Any, values: Mapping[str, Any]
    ) -> ConfigError:
        """An error of a trial's document, told as one of the space.

        Of the dimensions that were set together it blames the one that the error is
        about.
        """
        blamed = [o for p in error.places for o in values if _same(o, p)]
        if blamed:
            path, value = blamed[0], values[blamed[0]]
        head, *reasons = str(error).split("\n")
        why = "; ".join(r.strip() for r in reasons) or head
        return ConfigError(
            f"`tuning.space`: {path} = {value!r} makes no experiment: {why}",
            [("tuning", "space", path)],
        )


def _all_values(dimension: DimensionSpec) -> tuple[Any, ...]:
    """Every value of a dimension, which has a step where it is a range."""
    if isinstance(dimension, RangeDimension):
        steps = range(dimension.count or 0)
        return tuple(dimension.nearest(dimension.at(step)) for step in steps)
    return dimension.ends


def _same(path: str, place: Place) -> bool:
    """Whether an error's place lies at a path or below it."""
    at = ".".join(str(p) for p in place)
    return at == path or at.startswith(f"{path}.")


def _read(document: Any, keys: Sequence[str]) -> Any:
    """The value at a path; None where there is none."""
    for key in keys:
        if isinstance(document, list):
            named = [
                i for i in document if isinstance(i, dict) and i.get("name") == key
            ]
            if not named and not key.isdigit():
                return None
            document = named[0] if named else dict(enumerate(document)).get(int(key))
        elif isinstance(document, dict):
            document = document.get(key)
        else:
            return None
    return document
