"""Clients of TensorFlow Serving and of the embedded server: rows in, predictions out.

`Client` speaks REST with the standard library alone and imports in milliseconds;
`GrpcClient` imports grpcio and TensorFlow when it is made. Both ask the server once for
the model's inputs, and send rows as the exported model's signature wants them.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from serving.grpc_client import GrpcClient
from serving.row_client import Prediction, RequestRefused, Row, RowClient
from serving.rows import InputSpec, Unknown
from tfmtl.errors import ConfigError, ServingError

__all__ = ["Client", "GrpcClient", "InputSpec", "Prediction", "RequestRefused", "Row"]

_MODEL_PATH = re.compile(
    r"(?P<prefix>.*?)/v1/models/(?P<model>[^/:]+)"
    r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?::predict|/metadata)?"
)
# A proxy without a server behind it, and a server that is starting or overloaded.
_TEMPORARY = frozenset({502, 503})
# What a server that closed an idle connection looks like to the next request on it.
_STALE = (
    http.client.RemoteDisconnected,
    http.client.CannotSendRequest,
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
)


class Client(RowClient):
    """A REST client; it may be shared by threads, each has its own connection.

    Args:
        url: The server, such as "http://localhost:8501", or the model's own URL,
            "http://localhost:8501/v1/models/ranker", with or without ":predict".
        model: The model's name, unless `url` has it.
        version: A version; None is the newest that is served.
        label: A version's label, as TensorFlow Serving's models.config gives it.
        timeout: Seconds to wait for the connection, and then for each part of the
            answer.
        retries: How often a request is sent again that found no server or an
            overloaded one (502, 503). What ran out of time is not sent again.
        headers: Sent with every request, such as an authorization.
        ssl_context: For https; None trusts what the system trusts.
        signature: The signature to call.
        inputs: The signature's inputs, instead of asking the server for them.
        defaults: Values for inputs that a row lacks, instead of "missing".
        unknown: "error" refuses rows with keys that are no input, "ignore" drops them.
        sequence_length: The one length of all lists, to which they are padded and
            cut. A server that batches requests needs it, see
            `serving/config/batching.config`; the longest `max_length` of the experiment
            loses nothing. None pads each request to its longest list.
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
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 0,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
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
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "`url` must look like http://host:8501 or "
                f"http://host:8501/v1/models/NAME. Received: {url!r}."
            )
        prefix, in_url = _split_path(parts.path, url)
        self.model = model or in_url.get("model")
        if self.model is None:
            raise ConfigError(
                "`model` must name the model, or `url` must end in /v1/models/NAME. "
                f"Received: {url!r} without a model."
            )
        if version is None and label is None:
            version = int(in_url["version"]) if "version" in in_url else None
            label = in_url.get("label")
        if version is not None and label is not None:
            raise ConfigError(
                "`version` and `label` must not both be given. "
                f"Received: {version}, {label!r}."
            )
        self.version, self.label = version, label
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, parts.port
        self._timeout, self._ssl_context = timeout, ssl_context
        self._headers = dict(headers or {})
        self._path = f"{prefix}/v1/models/{urllib.parse.quote(self.model, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"
        if self.label is not None:
            self._path += f"/labels/{urllib.parse.quote(self.label, safe='')}"
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
        return self._persist(lambda: self._request_once(method, suffix, body))

    def _request_once(
        self, method: str, suffix: str, body: bytes | None
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
                "Is the server running?",
                temporary=True,
            ) from error
        try:
            document = json.loads(text)
        except ValueError:
            document = {"error": text[:500].decode("utf-8", errors="replace")}
        if status != 200 or not isinstance(document, dict):
            message = document.get("error") if isinstance(document, dict) else document
            raise RequestRefused(
                f"{where} answered {status}: {message}",
                status,
                temporary=status in _TEMPORARY,
            )
        return document

    def _exchange(
        self, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
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
            if self._scheme == "https":
                connection = http.client.HTTPSConnection(
                    self._host,
                    self._port,
                    timeout=self._timeout,
                    context=self._ssl_context,
                )
            else:
                connection = http.client.HTTPConnection(
                    self._host, self._port, timeout=self._timeout
                )
            self._local.connection = connection
        return connection


def _base64(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} has no place in a request")


def _split_path(path: str, url: str) -> tuple[str, dict[str, str]]:
    """What stands before /v1, and the model, version and label that the path names."""
    match = _MODEL_PATH.fullmatch(path.rstrip("/"))
    if match:
        found = {name: text for name, text in match.groupdict().items() if text}
        prefix = found.pop("prefix", "")
        return prefix, {name: urllib.parse.unquote(t) for name, t in found.items()}
    if "/v1/" in path:
        raise ConfigError(
            "`url` must end in /v1/models/NAME, with /versions/N or /labels/LABEL "
            f"behind it or not, or be the server's address. Received: {url!r}."
        )
    return path.rstrip("/"), {}
