"""Which line of an experiment file a key stands in, for errors."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from tfmtl.errors import ConfigError, Place
from tfmtl.schema.document import Loader

_MERGE = "tag:yaml.org,2002:merge"
_HEADER = re.compile(r"\s*(\[\[?)(.+?)\]\]?\s*(#.*)?")
_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=(?!=)")


@dataclasses.dataclass(eq=False)
class Node:
    """A key or an item of a file.

    Attributes:
        line: Counted from 1; None where an override put it.
        text: Of a plain value.
        parts: What is below it, by key or position.
    """

    line: int | None
    text: str = ""
    parts: dict[str | int, Node] = dataclasses.field(default_factory=dict)

    def part(self, key: str | int) -> Node | None:
        """What a key leads to; an item of a list also by its `name`."""
        if key in self.parts:
            return self.parts[key]
        if isinstance(key, str) and key.lstrip("-").isdigit():
            position = int(key)
            return self.parts.get(position + len(self.parts) * (position < 0))
        named = (
            item
            for position, item in self.parts.items()
            if isinstance(position, int) and "name" in item.parts
        )
        return next((n for n in named if n.parts["name"].text == key), None)


class Lines:
    """The lines of a file's keys.

    Args:
        root: The whole.
    """

    def __init__(self, root: Node) -> None:
        self.root = root

    @classmethod
    def of(cls, file: pathlib.Path, overrides: Sequence[str] = ()) -> Lines:
        """Of a file; none are known where it does not parse.

        Args:
            file: A `.yaml`, `.yml`, `.json` or `.toml` file.
            overrides: `dotted.path=value`: what they set stands in no line.
        """
        try:
            text = file.read_text(encoding="utf-8")
            if file.suffix.lower() == ".toml":
                root = _from_toml(text)
            else:
                root = _from_yaml(text)
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            root = Node(None)
        lines = cls(root)
        for override in overrides:
            lines.forget(override.partition("=")[0].split("."))
        return lines

    def forget(self, path: Sequence[str]) -> None:
        """Marks a key, which need not be there, as set by an override."""
        node = self.root
        for key in path[:-1]:
            found = node.part(key)
            if found is None:
                found = node.parts[key] = Node(None)
            node = found
        known = node.part(path[-1])
        if known is None:
            node.parts[path[-1]] = Node(None)
        else:  # perhaps by another key: an item's name
            known.line, known.text, known.parts = None, "", {}

    def line(self, place: Sequence[str | int]) -> int | None:
        """The line of a key, or of the nearest key above it that is in the file.

        Args:
            place: As pydantic's errors have it: the tags of unions in between are
                passed over.

        Returns:
            The line, counted from 1; None where the file does not say it.
        """
        node = self.root
        for number, key in enumerate(place):
            found = node.part(key)
            if found is None:
                following = place[number + 1 : number + 2]
                if node is self.root or not following or not node.part(following[0]):
                    break
                continue
            node = found
        return None if node is self.root else node.line

    def name(self, error: ConfigError) -> ConfigError:
        """The error with the line of each of its places."""
        texts = str(error).split("\n")
        first = len(texts) - len(error.places)
        if not error.places or first < 0:
            return error
        for number, place in enumerate(error.places, start=first):
            line = self.line(place)
            if line is not None:
                texts[number] += f" (line {line})"
        return type(error)("\n".join(texts))


@contextlib.contextmanager
def naming_lines(
    file: str | pathlib.Path, overrides: Sequence[str] = ()
) -> Iterator[None]:
    """Adds the file's lines to errors about an experiment that was read from it.

    Args:
        file: The experiment file.
        overrides: What was set beside it.

    Raises:
        ConfigError: As it came, its places told as lines.
    """
    try:
        yield
    except ConfigError as error:
        if not error.places:
            raise
        raise Lines.of(pathlib.Path(file), overrides).name(error) from error


def _from_yaml(text: str) -> Node:
    """The nodes of a YAML file, or of a JSON file, which YAML reads too."""
    known: dict[int, Node] = {}

    def convert(node: yaml.Node) -> Node:
        if id(node) in known:  # an alias, perhaps of what it is in
            return known[id(node)]
        made = known[id(node)] = Node(node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            made.text = node.value
        elif isinstance(node, yaml.SequenceNode):
            made.parts = dict(enumerate(convert(n) for n in node.value))
        elif isinstance(node, yaml.MappingNode):
            merged = [v for k, v in node.value if k.tag == _MERGE]
            for value in merged:
                whole = convert(value)
                several = isinstance(value, yaml.SequenceNode)
                for source in whole.parts.values() if several else [whole]:
                    made.parts = source.parts | made.parts
            for key, value in node.value:
                if key.tag != _MERGE and isinstance(key, yaml.ScalarNode):
                    below = convert(value)
                    line = key.start_mark.line + 1
                    made.parts[key.value] = Node(line, below.text, below.parts)
        return made

    composed = yaml.compose(text, Loader=Loader)
    return Node(None) if composed is None else convert(composed)


def _from_toml(text: str) -> Node:
    """The tables and keys of a TOML file; what is inside a value has its key's line."""
    root = Node(None)
    table = root
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.fullmatch(line):
            keys = _toml_keys(header[2])
            table = _below(root, keys, number)
            if header[1] == "[[":
                item = Node(number)
                table.parts[len(table.parts)] = item
                table = item
        elif found := _KEY.match(line):
            node = _below(table, _toml_keys(found[1]), number)
            node.text = line[found.end() :].strip().strip("\"'")
    return root


def _toml_keys(text: str) -> list[str]:
    """The parts of a dotted key."""
    try:
        node: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys = []
    while isinstance(node, dict):
        key, node = next(iter(node.items()))
        keys.append(key)
    return keys


def _below(node: Node, keys: Sequence[str], line: int) -> Node:
    """The node at some keys, made where it is not there; the last item of a list."""
    for key in keys:
        items = [k for k in node.parts if isinstance(k, int)]
        if items:
            node = node.parts[max(items)]
        node = node.parts.setdefault(key, Node(line))
    return node


def places_in(message: str, place: Place) -> Place:
    """The place that a message names by itself, where its error came from further up.

    Args:
        message: Such as "`training.monitor` must be ..." or "feature 'price' ...".
        place: Where the rule was checked.
    """
    if found := re.match(r"`([a-z]\w*(?:\.\w+)*)`", message):
        keys = tuple(found[1].split("."))
        return keys if keys[: len(place)] == place else place + keys
    if found := re.match(r"(feature|task|side table) '(\w+)'", message):
        part = found[1].replace(" ", "_") + "s"
        start = () if "dataset" in place else ("dataset",)
        return (*place, *start, part, found[2])
    return place
