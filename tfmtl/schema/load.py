"""Experiment files: YAML, TOML or JSON in, a checked `Experiment` out."""

from __future__ import annotations

import difflib
import json
import math
import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic
import yaml

from tfmtl.errors import ConfigError
from tfmtl.schema.experiment import Experiment


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
            names the place, the rule and the value.
    """
    file = pathlib.Path(path)
    document = read_document(file)
    if any(o.startswith("optimizers.") for o in overrides):
        # An override of one group must not drop the default of the others.
        default = Experiment.model_fields["optimizers"].default
        groups = {
            k: v.model_dump(mode="json", by_alias=True) for k, v in default.items()
        }
        document.setdefault("optimizers", groups)
    for override in overrides:
        apply_override(document, override)
    for table in _mapping(
        _mapping(document.get("dataset")).get("side_tables")
    ).values():
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            table["path"] = str((file.parent / table["path"]).resolve())
    return parse_experiment(document, source=str(file))


def parse_experiment(document: object, source: str = "experiment") -> Experiment:
    """Checks a document that is already in memory.

    Raises:
        ConfigError: see `load_experiment`.
    """
    try:
        return Experiment.model_validate(document)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, source)) from error


def read_document(path: pathlib.Path) -> dict[str, Any]:
    """Reads a document by its suffix.

    Raises:
        ConfigError: Unknown suffix, missing file, syntax error, or no mapping.
    """
    readers: dict[str, Callable[[str], Any]] = {
        ".yaml": _yaml,
        ".yml": _yaml,
        ".toml": tomllib.loads,
        ".json": json.loads,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"an experiment file must end in one of {sorted(readers)}. Received: "
            f"{str(path)!r}"
        )
    try:
        document = reader(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the experiment file {str(path)!r}: {error.strerror}"
        ) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} does not parse: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"{str(path)!r} must hold a mapping with name, dataset, model ... at the "
            f"top. Received: {type(document).__name__}"
        )
    return document


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets `a.b.0.c=value` in a document; list items go by position or by `name`.

    Raises:
        ConfigError: No `=`, or the path leads through something that is no mapping.
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(
            f"an override must be dotted.path=value. Received: {override!r}"
        )
    keys = path.split(".")
    node: Any = document
    for depth, key in enumerate(keys[:-1]):
        node = _step(node, key, ".".join(keys[: depth + 1]), override)
    try:
        value = _yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of {override!r} does not parse: {error}"
        ) from error
    if isinstance(node, list):
        node[_position(node, keys[-1], path, override)] = value
    elif isinstance(node, dict):
        node[keys[-1]] = value
    else:
        parent = ".".join(keys[:-1])
        raise ConfigError(f"override {override!r}: {parent!r} leads into a plain value")


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
) -> str:
    """One line for each error: place, rule, received value, nearest legal key."""
    lines = [f"{source} has {error.error_count()} error(s):"]
    for item in error.errors():
        place = ".".join(str(p) for p in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{_nearest_key(model, item['loc'])}"
        received = _short(item["input"])
        shown = "" if "Received" in message else f" Received: {received}"
        lines.append(f"  {place or '(top)'}: {message}.{shown}")
    return "\n".join(lines)


def _nearest_key(model: Any, location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        model = _field_type(model, part)
        if model is None:
            return ""
    fields = getattr(model, "model_fields", {})
    close = difflib.get_close_matches(str(location[-1]), list(fields), n=1)
    legal = f"; legal keys: {sorted(fields)}" if fields else ""
    return (f", did you mean {close[0]!r}?" if close else "") + legal


def _field_type(model: Any, part: int | str) -> Any:
    """The model class that a part of an error's location leads to, if it is plain."""
    field = getattr(model, "model_fields", {}).get(part)
    annotation = getattr(field, "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return None


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number and a key given twice is an error."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, str | int | float | bool):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a plain value", key.start_mark
            )
        if name in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {name!r} stands twice", key.start_mark
            )
        seen.add(name)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _step(node: Any, key: str, path: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, key, path, override)]
    if not isinstance(node, dict):
        raise ConfigError(f"override {override!r}: {path!r} leads into a plain value")
    return node.setdefault(key, {})


def _position(node: list[Any], key: str, path: str, override: str) -> int:
    names = [i.get("name") for i in node if isinstance(i, Mapping)]
    if key in names:
        return [isinstance(i, Mapping) and i.get("name") == key for i in node].index(
            True
        )
    if key.lstrip("-").isdigit() and -len(node) <= int(key) < len(node):
        return int(key)
    raise ConfigError(
        f"override {override!r}: {path!r} names no item of the list; items: "
        f"{names or f'0 to {len(node) - 1}'}"
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
