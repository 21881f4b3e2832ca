"""The gRPC client; importing it is light, making one imports grpcio and TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from serving.row_client import RequestRefused, Row, RowClient
from serving.rows import InputSpec, Unknown
from tfmtl.errors import ConfigError


class GrpcClient(RowClient):
    """A gRPC client of TensorFlow Serving; the embedded server has no gRPC.

    Args:
        target: The server's gRPC address, such as "localhost:8500".
        model: The model's name.
        version: A version; None is the newest that is served.
        label: A version's label, as TensorFlow Serving's models.config gives it.
        timeout: Seconds for one request.
        retries: How often a request is sent again that found no server or an
            overloaded one. What ran out of time is not sent again.
        credentials: `grpc.ChannelCredentials` for TLS; None sends in the clear.
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
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 0,
        credentials: Any = None,
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
            retries=retries,
        )
        if version is not None and label is not None:
            raise ConfigError(
                "`version` and `label` must not both be given. "
                f"Received: {version}, {label!r}."
            )
        try:
            import grpc
            from tensorflow_serving.apis import prediction_service_pb2_grpc as service
        except ImportError as error:
            raise ConfigError(
                "gRPC needs the packages grpcio and tensorflow-serving-api "
                f"({error}); REST does not: use `Client`."
            ) from error
        self.model, self.version, self.label = model, version, label
        self._target, self._timeout = target, timeout
        options = [("grpc.max_receive_message_length", max_message_bytes)]
        self._channel = (
            grpc.insecure_channel(target, options=options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=options)
        )
        self._stub = service.PredictionServiceStub(self._channel)
        self._rpc_error = grpc.RpcError
        self._unavailable = grpc.StatusCode.UNAVAILABLE

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
        if self.label is not None:
            spec.version_label = self.label

    def _call(self, method: Any, request: Any) -> Any:
        return self._persist(lambda: self._call_once(method, request))

    def _call_once(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except self._rpc_error as error:
            code = error.code()
            raise RequestRefused(
                f"{self._target} answered {code.name}: {error.details()}",
                code.value[0],
                temporary=code == self._unavailable,
            ) from error


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", errors="replace")
