"""Documents of plain values: read from YAML, TOML or JSON, changed by dotted path."""

from __future__ import annotations

import json
import pathlib
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tfmtl.errors import ConfigError


def read_document(path: pathlib.Path) -> dict[str, Any]:
    """Reads a document by its suffix.

    Raises:
        ConfigError: Unknown suffix, missing file, syntax error, or no mapping.
    """
    readers: dict[str, Callable[[str], Any]] = {
        ".yaml": read_yaml,
        ".yml": read_yaml,
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
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of {override!r} does not parse: {error}"
        ) from error
    set_value(document, path, value, f"override {override!r}")


def set_value(document: dict[str, Any], path: str, value: Any, what: str) -> None:
    """Sets `a.b.0.c` in a document; list items go by position or by `name`.

    Args:
        document: Is changed.
        path: Mappings on the way are made where they are not there.
        value: Is put there as it is.
        what: Begins the errors.

    Raises:
        ConfigError: The path leads through something that is no mapping.
    """
    keys = path.split(".")
    node: Any = document
    for depth, key in enumerate(keys[:-1]):
        node = _step(node, key, ".".join(keys[: depth + 1]), what)
    if isinstance(node, list):
        node[_position(node, keys[-1], path, what)] = value
    elif isinstance(node, dict):
        node[keys[-1]] = value
    else:
        parent = ".".join(keys[:-1])
        raise ConfigError(f"{what}: {parent!r} leads into a plain value")


class Loader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number and a key given twice is an error."""


def _construct_mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
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


Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str) -> Any:
    """Reads YAML; raises what PyYAML raises."""
    return yaml.load(text, Loader=Loader)


def _step(node: Any, key: str, path: str, what: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, key, path, what)]
    if not isinstance(node, dict):
        raise ConfigError(f"{what}: {path!r} leads into a plain value")
    return node.setdefault(key, {})


def _position(node: list[Any], key: str, path: str, what: str) -> int:
    names = [i.get("name") for i in node if isinstance(i, Mapping)]
    if key in names:
        return [isinstance(i, Mapping) and i.get("name") == key for i in node].index(
            True
        )
    if key.lstrip("-").isdigit() and -len(node) <= int(key) < len(node):
        return int(key)
    raise ConfigError(
        f"{what}: {path!r} names no item of the list; items: "
        f"{names or f'0 to {len(node) - 1}'}"
    )
