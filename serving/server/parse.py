"""JSON text of a request -> Python values, by TensorFlow Serving's rules."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from serving.server.errors import RequestError

_SHOWN = 300


def shown(value: object) -> str:
    """A value as JSON for an error message, cut to a readable length."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "..."
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # TensorFlow Serving finds the first of two equal keys, a dict keeps the last.
    return members if len(members) == len(pairs) else dict(reversed(pairs))


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number too big to be stored in double: {text[:40]}")
    return value


def parse_object(body: bytes) -> dict[str, Any]:
    """Parses a request's body; NaN, Infinity and -Infinity are numbers.

    Raises:
        RequestError: The body is no JSON object (400).
    """
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_first_wins, parse_float=_number
        )
    except RecursionError:
        raise RequestError("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise RequestError(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: dict[str, Any]) -> str:
    """The signature that a request names, or the default.

    Raises:
        RequestError: `signature_name` is no string (400).
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError("'signature_name' key must be a string value.")
    return name or "serving_default"


def is_base64(value: object) -> bool:
    """Whether a value is `{"b64": text}`."""
    return isinstance(value, dict) and len(value) == 1 and type(value.get("b64")) is str


def to_bytes(value: object) -> bytes:
    """A JSON string, or `{"b64": text}`, as the bytes it stands for.

    Raises:
        RequestError: Neither, or bad base64 or Unicode (400).
    """
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError("JSON Parse error: unpaired surrogate") from None
    if isinstance(value, dict) and is_base64(value):
        text = "".join(value["b64"].split())
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise RequestError("Unable to base64 decode") from None
    if isinstance(value, dict):
        raise RequestError(
            f"JSON Value: {shown(value)} not formatted correctly for base64 data"
        )
    raise type_error(value, "string")


def type_error(value: object, expected: str) -> RequestError:
    """The error for a value of the wrong type."""
    names = {dict: "Object", list: "Array", str: "String", bool: str(value)}
    kind = "Null" if value is None else names.get(type(value), "Number")
    return RequestError(
        f"JSON Value: {shown(value)} Type: {kind} is not of expected type: {expected}"
    )
