"""JSON values <-> arrays, for the predict request in its row and its column form."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from serving.server.errors import RequestError
from serving.server.parse import (
    is_base64,
    parse_object,
    shown,
    signature_name,
    to_bytes,
    type_error,
)
from serving.server.servable import Arrays, Servable
from tfmtl._keras import tf

Form = Literal["row", "column"]
Array = np.ndarray[Any, Any]

# NumPy's arrays end at 64 dimensions; no signature has that many.
_MAX_RANK = 32
# The largest integers that the types hold exactly; a larger literal is refused.
_EXACT = {"float": 2**24 - 1, "double": 2**53 - 1}
_NUMPY: dict[str, Any] = {
    "float": np.float32, "double": np.float64, "int8": np.int8, "int16": np.int16,
    "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "uint32": np.uint32,
    "uint64": np.uint64,
}  # fmt: skip


def decode_predict(body: bytes, servable: Servable) -> tuple[str, Form, Arrays]:
    """Reads the body of a predict request.

    Returns:
        The signature's name, the form to answer in, one array per input.

    Raises:
        RequestError: The body does not fit the signature (400).
    """
    document = parse_object(body)
    name = signature_name(document)
    inputs = dict(servable.signature(name).inputs)
    if not inputs:
        raise RequestError(f"Failed to get input map for signature: {name}")
    if "instances" in document and "inputs" in document:
        raise RequestError(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one "
            "of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return name, "row", _from_instances(document["instances"], inputs)
    if "inputs" in document:
        return name, "column", _from_inputs(document["inputs"], inputs)
    raise RequestError("Missing 'inputs' or 'instances' key")


def _from_instances(instances: Any, inputs: Mapping[str, Any]) -> Arrays:
    if not isinstance(instances, list):
        raise RequestError(
            f"JSON Value: {shown(instances)} Expecting 'instances' to be an list/array"
        )
    if not instances:
        raise RequestError("No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise RequestError(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    if not _is_named(instances[0]):
        for index, item in enumerate(instances):
            if _is_named(item):
                raise RequestError(
                    f"Expecting value/list but got object at item {index} of input list"
                )
        ((name, info),) = inputs.items() if len(inputs) == 1 else _ambiguous()
        return {name: _stack(instances, name, info)}
    for index, item in enumerate(instances):
        _check_instance(index, item, inputs)
    return {
        name: _stack([item[name] for item in instances], name, info)
        for name, info in inputs.items()
    }


def _ambiguous() -> list[tuple[str, Any]]:
    raise RequestError(
        "instances holds values without names, but the signature has several inputs"
    )


def _is_named(item: object) -> bool:
    return isinstance(item, dict) and not is_base64(item)


def _check_instance(index: int, item: Any, inputs: Mapping[str, Any]) -> None:
    if not _is_named(item):
        raise RequestError(
            f"Expecting object but got list at item {index} of input list"
        )
    if item.keys() == inputs.keys():
        return
    for name in item:
        if name not in inputs:
            raise RequestError(
                f"Failed to process element: {index} key: {name} of 'instances' list. "
                f"Error: JSON object: does not have named input: {name}"
            )
    raise RequestError(
        f"Failed to process element: {index} of 'instances' list. JSON object: "
        f"{shown(item)} keys must be equal to: {','.join(sorted(inputs))}"
    )


def _stack(values: list[Any], name: str, info: Any) -> Array:
    """One input over all instances; on failure the message names the instance."""
    try:
        return to_array(values, info.dtype)
    except RequestError:
        shape: tuple[int, ...] | None = None
        for index, value in enumerate(values):
            where = f"Failed to process element: {index} key: {name} of 'instances'."
            try:
                array = to_array(value, info.dtype)
            except RequestError as error:
                raise RequestError(f"{where} Error: {error.message}") from None
            if shape is not None and array.shape != shape:
                raise RequestError(
                    f"{where} Error: Expecting shape {list(shape)} but got: "
                    f"{list(array.shape)}"
                ) from None
            shape = array.shape
        raise


def _from_inputs(value: Any, inputs: Mapping[str, Any]) -> Arrays:
    if not _is_named(value):
        if len(inputs) > 1:
            raise RequestError(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        return {name: to_array(value, info.dtype) for name, info in inputs.items()}
    for name in sorted(inputs):
        if name not in value:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(value[name], info.dtype) for name, info in inputs.items()}


def to_array(value: Any, dtype: int) -> Array:
    """A JSON value, nested to any depth, as an array.

    Raises:
        RequestError: Lists of unequal length, or values of another type (400).
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) > _MAX_RANK:
            raise RequestError(f"Lists are nested deeper than {_MAX_RANK} levels")
        if not first:
            break
        first = first[0]
    flat = [value]
    for level, size in enumerate(shape):
        for item in flat:
            if not isinstance(item, list):
                raise RequestError(
                    f"JSON Value: {shown(item)} found at incorrect level: {level + 1} "
                    f"in the JSON DOM. Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise RequestError(
                    f"Encountered list at unexpected size: {len(item)} "
                    f"at level: {level} expected size: {size}"
                )
        flat = [leaf for item in flat for leaf in item]
    return _leaves(flat, dtype).reshape(shape)


def _leaves(flat: list[Any], dtype: int) -> Array:
    """Checks and converts values one deep, as the server's parser does by type."""
    name = tf.as_dtype(dtype).name
    name = {"float32": "float", "float64": "double"}.get(name, name)
    if name == "string":
        array = np.empty(len(flat), dtype=object)
        array[:] = [to_bytes(value) for value in flat]
        return array
    if name == "bool":
        return np.array(_only(flat, {bool}, name), dtype=np.bool_)
    if name not in _NUMPY:
        raise RequestError(f"Conversion of JSON values to type: {name}", 501)
    if name in _EXACT:
        return _floats(_only(flat, {int, float}, name), name)
    limits = np.iinfo(_NUMPY[name])
    for value in _only(flat, {int}, name):
        if not limits.min <= value <= limits.max:
            raise type_error(value, name)
    return np.array(flat, dtype=_NUMPY[name])


def _only(flat: list[Any], types: set[type], name: str) -> list[Any]:
    if not set(map(type, flat)) <= types:
        raise type_error(next(v for v in flat if type(v) not in types), name)
    return flat


def _floats(flat: list[Any], name: str) -> Array:
    limit = _EXACT[name]
    for value in flat:
        # Beyond 64 bits the server's parser reads a double, which has no such rule.
        if type(value) is int and limit < abs(value) and -(2**63) <= value < 2**64:
            raise _lossy(value, name)
    try:
        array = np.array(flat, dtype=np.float64)
    except OverflowError:
        raise _lossy("an integer", name) from None
    if name == "float":
        largest = np.finfo(np.float32).max
        beyond = np.isfinite(array) & (np.abs(array) > largest)
        if beyond.any():
            raise _lossy(float(array[beyond][0]), name)
        array = array.astype(np.float32)
    return array


def _lossy(value: object, name: str) -> RequestError:
    return RequestError(
        f"Cannot convert JSON value: {shown(value)} to {name} "
        "without loss of precision."
    )


def encode_predict(outputs: Arrays, form: Form) -> dict[str, Any]:
    """Writes a model's outputs in the form of the request.

    Raises:
        RequestError: In the row form, an output has no batch dimension or another
            number of rows than the rest (400).
    """
    if form == "row":
        _check_batch(outputs)
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if form == "column":
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def _check_batch(outputs: Arrays) -> None:
    batch: int | None = None
    for name, array in outputs.items():
        if not array.shape:
            raise RequestError(f"Tensor name: {name} has no shape information ")
        if batch is not None and array.shape[0] != batch:
            raise RequestError(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {batch}"
            )
        batch = array.shape[0]


def _to_json(name: str, array: Array) -> Any:
    if array.dtype.kind in "biuf":
        return array.tolist()
    if array.dtype == tf.bfloat16.as_numpy_dtype:
        return array.astype(np.float32).tolist()
    if array.dtype.kind not in "OSU":
        raise RequestError(
            f"Failed to write JSON value for tensor type: {array.dtype.name}"
        )
    as_base64 = name.endswith("_bytes")
    cells = np.empty(array.size, dtype=object)
    for index, value in enumerate(array.ravel().tolist()):
        cells[index] = _text(value, as_base64)
    return cells.reshape(array.shape).tolist()


def _text(value: bytes | str, as_base64: bool) -> str | dict[str, str]:
    raw = value.encode() if isinstance(value, str) else value
    if as_base64:
        return {"b64": base64.b64encode(raw).decode("ascii")}
    # The server writes the bytes as they are; a reader of JSON needs valid UTF-8.
    return raw.decode("utf-8", errors="replace")
