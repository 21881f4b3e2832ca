"""Warm-up requests: what a server runs on a new version before traffic reaches it.

The first request of a graph pays for its optimisation and its memory. TensorFlow
Serving replays `assets.extra/tf_serving_warmup_requests`, a TFRecord file of
PredictionLog protos, before it announces a version; the embedded server does the same.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving.rows import InputSpec, Unknown, encode_rows
from tfmtl.errors import ConfigError, DataError

if TYPE_CHECKING:
    import tensorflow as tf

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
# TensorFlow Serving refuses a version whose file has more records.
MAX_RECORDS = 1000


def write_warmup(
    version_dir: str | os.PathLike[str],
    rows: Sequence[Mapping[str, object]],
    *,
    model_name: str = "",
    signature: str = "serving_default",
    batch_sizes: Sequence[int] = (1,),
    unknown: Unknown = "error",
    sequence_length: int | None = None,
) -> pathlib.Path:
    """Writes warm-up requests into an exported version.

    Args:
        version_dir: The directory with `saved_model.pb`.
        rows: Examples, as `serving.client.Client.predict` takes them.
        model_name: The name the model will be served under; servers do not check it.
        signature: The signature to call.
        batch_sizes: One request per size, of the first rows, repeated where there are
            fewer rows than the size.
        unknown: What to do with keys that are no input: "error" or "ignore".
        sequence_length: Length of the lists; None pads each request on its own.

    Returns:
        The file written.

    Raises:
        ConfigError: No rows, a bad batch size, an unknown signature, or a bad row.
        DataError: No readable saved_model.pb, or the protos are not installed.
    """
    import tensorflow as tf

    prediction_log_pb2, predict_pb2 = _protos()
    if not rows:
        raise ConfigError("`rows` must hold at least one row for the warm-up.")
    if not batch_sizes or min(batch_sizes) < 1 or len(batch_sizes) > MAX_RECORDS:
        raise ConfigError(
            f"`batch_sizes` must hold 1 to {MAX_RECORDS} positive sizes. "
            f"Received: {list(batch_sizes)}."
        )
    directory = pathlib.Path(version_dir)
    inputs = read_inputs(directory, signature)
    path = directory / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for size in batch_sizes:
            chosen = [rows[index % len(rows)] for index in range(size)]
            columns = encode_rows(
                chosen, inputs, unknown=unknown, sequence_length=sequence_length
            )
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, spec in inputs.items():
                request.inputs[name].CopyFrom(tensor_proto(columns[name], spec))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
    os.replace(temporary, path)
    return path


def read_warmup(version_dir: str | os.PathLike[str]) -> Iterator[Any]:
    """Reads a version's warm-up requests, if it has any.

    Yields:
        PredictionLog protos.

    Raises:
        DataError: The file is damaged, or the protos are not installed.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    path = pathlib.Path(version_dir) / WARMUP_FILE
    if not path.exists():
        return
    prediction_log_pb2, _ = _protos()
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except (tf.errors.OpError, DecodeError) as error:
        raise DataError(f"{path} is no readable warm-up file: {error}") from error


def read_inputs(version_dir: pathlib.Path, signature: str) -> dict[str, InputSpec]:
    """The inputs of a signature, from `saved_model.pb`.

    Raises:
        ConfigError: The model has no such signature.
        DataError: The file is missing or damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    path = version_dir / "saved_model.pb"
    try:
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise DataError(f"{path} is no readable SavedModel: {error}") from error
    signatures: dict[str, Any] = {}
    for graph in model.meta_graphs:
        signatures.update(graph.signature_def)
    if signature not in signatures or not signatures[signature].inputs:
        names = sorted(name for name, found in signatures.items() if found.inputs)
        raise ConfigError(
            f"`signature` must be one of {', '.join(names)}. Received: {signature!r}."
        )
    return {
        name: InputSpec.of(
            types_pb2.DataType.Name(info.dtype),
            [(dim.size, dim.name) for dim in info.tensor_shape.dim],
        )
        for name, info in sorted(signatures[signature].inputs.items())
    }


def tensor_proto(column: list[Any], spec: InputSpec) -> tf.compat.v1.TensorProto:
    """A column of `encode_rows` as a TensorProto."""
    import tensorflow as tf

    return tf.make_tensor_proto(column, dtype=getattr(tf, spec.dtype[3:].lower(), None))


def _protos() -> tuple[Any, Any]:
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise DataError(
            "Warm-up requests need the package tensorflow-serving-api, which is not "
            f"installed ({error})."
        ) from error
    return prediction_log_pb2, predict_pb2
