"""Clients of TensorFlow Serving and of the embedded server: rows in, predictions out.

`Client` speaks REST with the standard library alone and imports in milliseconds;
`GrpcClient` imports grpcio and TensorFlow when it is made. Both ask the server once for
the model's inputs, and send rows as the exported model's signature wants them.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from serving.rows import InputSpec, Unknown, encode_rows
from tfmtl.errors import ConfigError, ServingError

logger = logging.getLogger(__name__)

Row = Mapping[str, object]
Prediction = dict[str, Any]

_MODEL_PATH = re.compile(
    r"(?P<prefix>.*?)/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+))?"
    r"(?::predict|/metadata)?"
)
# What a server that closed an idle connection looks like to the next request on it.
_STALE = (
    http.client.RemoteDisconnected,
    http.client.CannotSendRequest,
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
)


class RequestRefused(ServingError):
    """The server answered with an error, or not at all.

    Attributes:
        status: The HTTP status or gRPC's code number; None without an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _RowClient:
    """What both protocols share: signature, columns, chunks."""

    def __init__(
        self,
        *,
        signature: str,
        inputs: Mapping[str, InputSpec] | None,
        defaults: Row | None,
        unknown: Unknown,
        sequence_length: int | None,
        batch_size: int,
    ) -> None:
        if batch_size < 1 or (sequence_length is not None and sequence_length < 1):
            raise ConfigError(
                "`batch_size` and `sequence_length` must be positive. Received: "
                f"{batch_size}, {sequence_length}."
            )
        if unknown not in ("error", "ignore"):
            raise ConfigError(
                f"`unknown` must be 'error' or 'ignore'. Received: {unknown!r}."
            )
        self.signature = signature
        self._given_inputs = dict(inputs) if inputs is not None else None
        self._signature_json: Mapping[str, Any] | None = None
        self._defaults = dict(defaults or {})
        self._unknown: Unknown = unknown
        self._sequence_length = sequence_length
        self._batch_size = batch_size

    def _signatures(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def _predict_columns(
        self, columns: Mapping[str, list[Any]], inputs: Mapping[str, InputSpec]
    ) -> dict[str, list[Any]]:
        raise NotImplementedError

    def inputs(self) -> dict[str, InputSpec]:
        """The signature's inputs: those given, else the server's, asked for once.

        Raises:
            ServingError: The server does not answer, or lacks the signature.
        """
        if self._given_inputs is not None:
            return self._given_inputs
        return parse_inputs(self._signature())

    def _signature(self) -> Mapping[str, Any]:
        if self._signature_json is None:
            self._signature_json = find_signature(self._signatures(), self.signature)
        return self._signature_json

    def _fresh_signature(self) -> Mapping[str, Any]:
        self._signature_json = None
        return self._signature()

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Predicts for rows of raw features.

        Args:
            rows: One mapping per example. Absent keys and None are missing values;
                5, 5.0 and "5" are the same category; lists go from old to new.

        Returns:
            One mapping of output names to values per row, in order.

        Raises:
            ConfigError: A row does not fit the model; row and key are named.
            ServingError: The server refused or did not answer.
        """
        if isinstance(rows, (str, bytes, Mapping)):
            raise ConfigError(
                "`rows` must be a list of mappings, one per example. "
                f"Received: {type(rows).__name__}."
            )
        predictions: list[Prediction] = []
        for start in range(0, len(rows), self._batch_size):
            chunk = rows[start : start + self._batch_size]
            outputs = self._predict_chunk(chunk, start)
            for name, values in outputs.items():
                if not isinstance(values, list) or len(values) != len(chunk):
                    raise ServingError(
                        f"Output {name!r} must hold one value per row ({len(chunk)}). "
                        f"Received: {str(values)[:60]}."
                    )
            for cells in zip(*outputs.values(), strict=True):
                predictions.append(dict(zip(outputs, cells, strict=True)))
        return predictions

    def _predict_chunk(self, rows: Sequence[Row], start: int) -> dict[str, list[Any]]:
        known = self._signature_json
        try:
            return self._encode_and_send(rows, start)
        except (RequestRefused, ConfigError):
            # A new version may have other inputs than the one that was asked about.
            if self._given_inputs is not None or known is None:
                raise
            if self._fresh_signature() == known:
                raise
        return self._encode_and_send(rows, start)

    def _encode_and_send(self, rows: Sequence[Row], start: int) -> dict[str, list[Any]]:
        inputs = self.inputs()
        columns = encode_rows(
            rows,
            inputs,
            defaults=self._defaults,
            unknown=self._unknown,
            sequence_length=self._sequence_length,
            first_row=start,
        )
        return self._predict_columns(columns, inputs)


class Client(_RowClient):
    """A REST client; it may be shared by threads, each has its own connection.

    Args:
        url: The server, such as "http://localhost:8501", or the model's own URL,
            "http://localhost:8501/v1/models/ranker", with or without ":predict".
        model: The model's name, unless `url` has it.
        version: A version; None is the newest that is served.
        timeout: Seconds for one request.
        signature: The signature to call.
        inputs: The signature's inputs, instead of asking the server for them.
        defaults: Values for inputs that a row lacks, instead of "missing".
        unknown: "error" refuses rows with keys that are no input, "ignore" drops them.
        sequence_length: The one length of all lists. A server that batches requests
            needs it, see `serving/config/batching.config`; None pads each request to
            its longest list.
        batch_size: Rows per request; more rows are sent in several requests.

    Raises:
        ConfigError: An argument is wrong, or no model is named.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        version: int | None = None,
        *,
        timeout: float = 30.0,
        signature: str = "serving_default",
        inputs: Mapping[str, InputSpec] | None = None,
        defaults: Row | None = None,
        unknown: Unknown = "error",
        sequence_length: int | None = None,
        batch_size: int = 512,
    ) -> None:
        super().__init__(
            signature=signature,
            inputs=inputs,
            defaults=defaults,
            unknown=unknown,
            sequence_length=sequence_length,
            batch_size=batch_size,
        )
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "`url` must look like http://host:8501 or "
                f"http://host:8501/v1/models/NAME. Received: {url!r}."
            )
        prefix, in_url, version_in_url = _split_path(parts.path, url)
        self.model = model or in_url
        if self.model is None:
            raise ConfigError(
                "`model` must name the model, or `url` must end in /v1/models/NAME. "
                f"Received: {url!r} without a model."
            )
        self.version = version_in_url if version is None else version
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self._timeout = timeout
        self._path = f"{prefix}/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"
        self._local = threading.local()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes this thread's connection; the next request opens another."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def status(self) -> list[dict[str, Any]]:
        """The state of the model's versions, newest first.

        Raises:
            ServingError: The server does not know the model, or does not answer.
        """
        found: list[dict[str, Any]] = self._request("GET", "")["model_version_status"]
        return found

    def metadata(self) -> dict[str, Any]:
        """The answer to the metadata request: `model_spec` and all signatures.

        Raises:
            ServingError: The server does not know the model, or does not answer.
        """
        return self._request("GET", "/metadata")

    def _signatures(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.metadata()["metadata"]["signature_def"]
        return found["signature_def"]  # type: ignore[no-any-return]

    def _predict_columns(
        self, columns: Mapping[str, list[Any]], inputs: Mapping[str, InputSpec]
    ) -> dict[str, list[Any]]:
        document = {"signature_name": self.signature, "inputs": columns}
        body = json.dumps(document, default=_base64, separators=(",", ":"))
        outputs = self._request("POST", ":predict", body.encode())["outputs"]
        if isinstance(outputs, dict):
            return outputs
        # A single output comes without its name, maybe from a newer version than the
        # one that was asked about.
        names = list(self._signature()["outputs"])
        if len(names) != 1:
            names = list(self._fresh_signature()["outputs"])
        if len(names) != 1:
            raise ServingError(
                f"The server answered with one output, but the signature has {names}."
            )
        return {names[0]: outputs}

    def _request(
        self, method: str, suffix: str, body: bytes | None = None
    ) -> dict[str, Any]:
        """One request; a connection that went stale while idle is replaced once."""
        path = self._path + suffix
        where = f"{self._scheme}://{self._host}:{self._port or ''}{path}"
        try:
            status, text = self._exchange(method, path, body)
        except TimeoutError as error:
            self.close()
            raise RequestRefused(
                f"{where} did not answer within {self._timeout} s."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RequestRefused(
                f"{where} cannot be reached: {error or type(error).__name__}. "
                "Is the server running?"
            ) from error
        try:
            document = json.loads(text)
        except ValueError:
            document = {"error": text[:500].decode("utf-8", errors="replace")}
        if status != 200 or not isinstance(document, dict):
            message = document.get("error") if isinstance(document, dict) else document
            raise RequestRefused(f"{where} answered {status}: {message}", status)
        return document

    def _exchange(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        reused = getattr(self._local, "connection", None) is not None
        try:
            connection = self._connection()
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except _STALE:
            if not reused:
                raise
            self.close()
            connection = self._connection()
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        return response.status, response.read()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None
        connection = getattr(self._local, "connection", None)
        if connection is None:
            make = (
                http.client.HTTPSConnection
                if self._scheme == "https"
                else http.client.HTTPConnection
            )
            connection = make(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
        return connection


class GrpcClient(_RowClient):
    """A gRPC client of TensorFlow Serving; the embedded server has no gRPC.

    Args:
        target: The server's gRPC address, such as "localhost:8500".
        model: The model's name.
        version: A version; None is the newest that is served.
        timeout: Seconds for one request.
        max_message_bytes: The largest answer to accept.
        signature: As for `Client`, like all further arguments.
        inputs: The signature's inputs.
        defaults: Values for inputs that a row lacks.
        unknown: What to do with unknown keys.
        sequence_length: The one length of all lists.
        batch_size: Rows per request.

    Raises:
        ConfigError: An argument is wrong, or the packages for gRPC are not installed.
    """

    def __init__(
        self,
        target: str,
        model: str,
        version: int | None = None,
        *,
        timeout: float = 30.0,
        max_message_bytes: int = 64 * 2**20,
        signature: str = "serving_default",
        inputs: Mapping[str, InputSpec] | None = None,
        defaults: Row | None = None,
        unknown: Unknown = "error",
        sequence_length: int | None = None,
        batch_size: int = 512,
    ) -> None:
        super().__init__(
            signature=signature,
            inputs=inputs,
            defaults=defaults,
            unknown=unknown,
            sequence_length=sequence_length,
            batch_size=batch_size,
        )
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc as service
        except ImportError as error:
            raise ConfigError(
                "gRPC needs the packages grpcio and tensorflow-serving-api "
                f"({error}); REST does not: use `Client`."
            ) from error
        self.model, self.version, self._timeout = model, version, timeout
        self._target = target
        self._channel = grpc.insecure_channel(
            target, options=[("grpc.max_receive_message_length", max_message_bytes)]
        )
        self._stub = service.PredictionServiceStub(self._channel)
        self._rpc_error = grpc.RpcError

    def __enter__(self) -> GrpcClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; the client cannot be used after that."""
        self._channel.close()

    def _signatures(self) -> Mapping[str, Any]:
        from google.protobuf import json_format
        from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

        request = metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill_spec(request.model_spec)
        response = self._call(self._stub.GetModelMetadata, request)
        signatures = metadata.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            name: json_format.MessageToDict(
                found,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, found in signatures.signature_def.items()
        }

    def _predict_columns(
        self, columns: Mapping[str, list[Any]], inputs: Mapping[str, InputSpec]
    ) -> dict[str, list[Any]]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        from serving.warmup import tensor_proto

        request = predict_pb2.PredictRequest()
        self._fill_spec(request.model_spec)
        request.model_spec.signature_name = self.signature
        for name, column in columns.items():
            request.inputs[name].CopyFrom(tensor_proto(column, inputs[name]))
        response = self._call(self._stub.Predict, request)
        outputs = {}
        for name, proto in response.outputs.items():
            values = tf.make_ndarray(proto)
            text = values.dtype == object and not name.endswith("_bytes")
            outputs[name] = _decoded(values.tolist()) if text else values.tolist()
        return outputs

    def _fill_spec(self, spec: Any) -> None:
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except self._rpc_error as error:
            code = error.code()
            raise RequestRefused(
                f"{self._target} answered {code.name}: {error.details()}",
                code.value[0],
            ) from error


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", errors="replace")


def _base64(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} has no place in a request")


def _split_path(path: str, url: str) -> tuple[str, str | None, int | None]:
    match = _MODEL_PATH.fullmatch(path.rstrip("/"))
    if match:
        version = match["version"]
        model = urllib.parse.unquote(match["model"])
        return match["prefix"], model, None if version is None else int(version)
    if "/v1/" in path:
        raise ConfigError(
            "`url` must end in /v1/models/NAME, /v1/models/NAME/versions/N or be the "
            f"server's address. Received: {url!r}."
        )
    return path.rstrip("/"), None, None


def find_signature(signatures: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One signature of a metadata answer.

    Raises:
        ServingError: The model lacks it.
    """
    if name not in signatures:
        legal = sorted(key for key in signatures if not key.startswith("__"))
        raise ServingError(
            f"`signature` must be one of the model's: {', '.join(legal)}. "
            f"Received: {name!r}."
        )
    found: Mapping[str, Any] = signatures[name]
    return found


def parse_inputs(signature: Mapping[str, Any]) -> dict[str, InputSpec]:
    """The inputs of a signature as the metadata request shows it."""
    return {
        name: InputSpec(
            info["dtype"],
            tuple(int(dim["size"]) for dim in info["tensor_shape"].get("dim", ())),
        )
        for name, info in sorted(signature["inputs"].items())
    }
