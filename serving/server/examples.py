"""The classify and regress requests: JSON examples in, scores and values out."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import types_pb2

from serving.server.errors import RequestError
from serving.server.parse import (
    is_base64,
    parse_object,
    shown,
    signature_name,
    to_bytes,
)
from serving.server.servable import Arrays, Servable

Array = np.ndarray[Any, Any]

_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def decode_examples(body: bytes) -> tuple[str, Array]:
    """Reads the body of a classify or regress request.

    Returns:
        The signature's name and the serialized tf.Examples, bytes [B]. What `context`
        holds is in every example, unless the example has it itself.

    Raises:
        RequestError: The body is malformed (400).
    """
    document = parse_object(body)
    name = signature_name(document)
    context = _features(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise RequestError("key 'examples' is expected and was not found")
    items = document["examples"]
    if not isinstance(items, list):
        raise RequestError(
            f"JSON Value: {shown(items)} Expecting 'examples' to be an list/array"
        )
    if not items:
        raise RequestError("'examples' value is an empty array")
    serialized = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        example = example_pb2.Example(
            features=feature_pb2.Features(feature={**context, **_features(item)})
        )
        serialized[index] = example.SerializeToString()
    return name, serialized


def _features(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RequestError(f"Example must be JSON object but got JSON {shown(item)}")
    return {name: _feature(name, value) for name, value in item.items()}


def _feature(name: str, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    kinds = {_kind(name, item) for item in values}
    if len(kinds) > 1:
        raise RequestError(
            f"Unexpected element type in feature: {name} expecting one type, got "
            f"{', '.join(sorted(kinds))}"
        )
    feature = feature_pb2.Feature()
    if kinds == {"bytes"}:
        feature.bytes_list.value.extend(to_bytes(item) for item in values)
    elif kinds == {"int64"}:
        feature.int64_list.value.extend(int(item) for item in values)
    elif kinds == {"float"}:
        feature.float_list.value.extend(float(item) for item in values)
    return feature


def _kind(name: str, value: Any) -> str:
    """The list of tf.train.Feature that a value goes to: `2` is int64, `2.0` float."""
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, bool):
        return "int64"
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return "int64"
        raise RequestError(
            f"Feature: {name} has an integer beyond 64 bits. Only int64 is supported."
        )
    if isinstance(value, float):
        if _LARGEST_FLOAT < abs(value) < float("inf"):
            raise RequestError(
                f"Cannot convert JSON value: {value} to float without loss."
            )
        return "float"
    raise RequestError(
        f"Feature: {name} has element with unexpected JSON type: {shown(value)}"
    )


def regress(servable: Servable, name: str, examples: Array) -> dict[str, Any]:
    """Answers a regress request: one number per example.

    Raises:
        RequestError: The signature is none for regression, or the model failed.
    """
    outputs = _run(servable, name, examples, {"outputs"})
    values = outputs["outputs"]
    _check_output("outputs", values, len(examples), np.float32)
    if values.size != len(examples):
        raise RequestError(
            f"Expected Tensor shape of outputs: [batch] or [batch, 1]. "
            f"Received: {list(values.shape)}."
        )
    return {"results": values.reshape(-1).tolist()}


def classify(servable: Servable, name: str, examples: Array) -> dict[str, Any]:
    """Answers a classify request: per example a list of [label, score].

    Raises:
        RequestError: The signature is none for classification, or the model failed.
    """
    outputs = _run(servable, name, examples, {"classes", "scores"})
    scores = outputs.get("scores")
    labels = outputs.get("classes")
    given = scores if scores is not None else labels
    if given is None or given.ndim != 2:
        raise RequestError("Expected 'classes' and 'scores' of shape [batch, C].")
    if labels is None:
        labels = np.full(given.shape, b"", dtype=object)
    if scores is None:
        scores = np.zeros(given.shape, np.float32)
    _check_output("scores", scores, len(examples), np.float32)
    _check_output("classes", labels, len(examples), np.object_)
    if labels.shape != scores.shape:
        raise RequestError("'classes' and 'scores' must have the same shape.")
    return {
        "results": [
            [
                [label.decode("utf-8", errors="replace"), score]
                for label, score in zip(row_labels, row_scores, strict=True)
            ]
            for row_labels, row_scores in zip(
                labels.tolist(), scores.tolist(), strict=True
            )
        ]
    }


def _run(servable: Servable, name: str, examples: Array, outputs: set[str]) -> Arrays:
    signature = servable.signature(name)
    if len(signature.inputs) != 1:
        raise RequestError("Expected one input Tensor.")
    # The signature's method_name is not looked at: nor does TensorFlow Serving, unless
    # it runs with --enable_signature_method_name_check.
    if "inputs" not in signature.inputs:
        raise RequestError("The signature must name its input 'inputs'.")
    if signature.inputs["inputs"].dtype != types_pb2.DT_STRING:
        raise RequestError("The input must be serialized tf.Examples (strings).")
    if not signature.outputs or not set(signature.outputs) <= outputs:
        raise RequestError(
            f"Expected outputs among {sorted(outputs)}. "
            f"Received: {sorted(signature.outputs)}."
        )
    return servable.run(name, {"inputs": examples})


def _check_output(name: str, array: Array, batch: int, dtype: type) -> None:
    if array.dtype != dtype or array.shape[:1] != (batch,):
        raise RequestError(
            f"Expected output {name} of type {np.dtype(dtype).name} and batch {batch}. "
            f"Received: {array.dtype.name} {list(array.shape)}.",
            500,
        )
