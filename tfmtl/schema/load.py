"""Experiment files: YAML, TOML or JSON in, a checked `Experiment` out."""

from __future__ import annotations

import difflib
import math
import pathlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pydantic
import yaml

from tfmtl.errors import ConfigError, Place
from tfmtl.schema.base import Misplaced
from tfmtl.schema.document import apply_override, read_document
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.lines import naming_lines, places_in

__all__ = [
    "apply_override",
    "default_optimizers",
    "dump_experiment",
    "explain",
    "load_experiment",
    "parse_experiment",
    "read_document",
]

_DIMENSIONS = ("float", "int", "choice", "boolean")


def load_experiment(
    path: str | pathlib.Path, overrides: Sequence[str] = ()
) -> Experiment:
    """Reads an experiment file and applies `dotted.path=value` overrides.

    Relative paths of side tables are resolved against the file's folder.

    Args:
        path: A `.yaml`, `.yml`, `.toml` or `.json` file.
        overrides: Such as `training.batch_size=512`; values are read as YAML.

    Raises:
        ConfigError: The file is missing, does not parse or breaks a rule; the message
            names the place, the rule and the value, and the line in the file.
    """
    file = pathlib.Path(path)
    document = read_document(file)
    if any(o.startswith("optimizers.") for o in overrides):
        document.setdefault("optimizers", default_optimizers())
    for override in overrides:
        apply_override(document, override)
    for table in _mapping(
        _mapping(document.get("dataset")).get("side_tables")
    ).values():
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            table["path"] = str((file.parent / table["path"]).resolve())
    with naming_lines(file, overrides):
        return parse_experiment(document, source=str(file))


def default_optimizers() -> dict[str, Any]:
    """The groups that are meant where a document has none.

    Whoever sets something of one group starts from these: the others must not be lost.
    """
    default = Experiment.model_fields["optimizers"].default
    return {k: v.model_dump(mode="json", by_alias=True) for k, v in default.items()}


def parse_experiment(document: object, source: str = "experiment") -> Experiment:
    """Checks a document that is already in memory.

    Raises:
        ConfigError: see `load_experiment`.
    """
    try:
        return Experiment.model_validate(document)
    except pydantic.ValidationError as error:
        raise explain(error, source) from error


def dump_experiment(experiment: Experiment) -> str:
    """The resolved experiment as YAML, every default written out."""
    return yaml.safe_dump(
        experiment.model_dump(mode="json", by_alias=True),
        sort_keys=False,
        allow_unicode=True,
    )


def explain(
    error: pydantic.ValidationError,
    source: str,
    model: type[pydantic.BaseModel] = Experiment,
    within: Place = (),
) -> ConfigError:
    """One line for each error: place, rule, received value, nearest legal key.

    Args:
        error: What a model was refused for.
        source: Begins the message: the file, or the part of it.
        model: That was refused.
        within: Where in an experiment file it stands.
    """
    lines, places = [f"{source} has {error.error_count()} error(s):"], []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        place, cause = item["loc"], item.get("ctx", {}).get("error")
        if isinstance(cause, Misplaced):
            place = place + cause.place
        shown = ".".join(str(p) for p in _without_tags(place))
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_nearest_key(model, item['loc'])}"
        received = "" if "Received" in message else f" Received: {_input(item, cause)}"
        lines.append(f"  {shown or '(top)'}: {message}.{received}")
        meant = place if isinstance(cause, Misplaced) else places_in(message, place)
        places.append(within + meant)
    return ConfigError("\n".join(lines), places)


def _without_tags(place: Place) -> Place:
    """A place in the space of a search, without the type of a dimension."""
    if place[:2] == ("tuning", "space") and len(place) > 4:
        return place[:3] + place[4:] if place[3] in _DIMENSIONS else place
    return place


def _input(item: Any, cause: object) -> str:
    """What was received, where an error has not said it."""
    value = item["input"]
    if isinstance(cause, Misplaced):
        for key in cause.place:
            known = isinstance(value, Mapping) and key in value
            value = value[key] if known else None
    return _short(value)


def _nearest_key(model: Any, location: Place) -> str:
    for part in location[:-1]:
        model = _below(model, part)
    fields = getattr(model, "model_fields", {})
    names = sorted(field.alias or name for name, field in fields.items())
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    legal = f"; legal keys: {names}" if names else ""
    return (f", did you mean {close[0]!r}?" if close else "") + legal


def _below(annotation: Any, part: int | str) -> Any:
    """What a part of an error's location leads to; None where that is not plain."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _below(inner[0], part)
    if origin in (dict, tuple, list):
        return inner[-1] if origin is dict else inner[0]
    if origin in (typing.Union, types.UnionType):
        models = [m for m in inner if m is not types.NoneType]
        if len(models) == 1:
            return _below(models[0], part)
        tagged = [m for m in models if part in _tags(m)]
        return tagged[0] if tagged else None
    for name, field in getattr(annotation, "model_fields", {}).items():
        if part in (name, field.alias):
            return field.annotation
    return None


def _tags(model: Any) -> list[Any]:
    """The defaults of the fields by which a union tells its classes."""
    fields = getattr(model, "model_fields", {})
    return [fields[tag].default for tag in ("kind", "by", "type") if tag in fields]


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
