"""What the REST and the gRPC client share: the model's signature, columns, chunks."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from serving.rows import InputSpec, Unknown, encode_rows
from tfmtl.errors import ConfigError, ServingError

Row = Mapping[str, object]
Prediction = dict[str, Any]
_Answer = TypeVar("_Answer")

# What a server says to a request that another version may take: HTTP's 400 and 404;
# gRPC's INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION.
_MISFITS = frozenset({400, 404, 3, 5, 9})
_FIRST_WAIT_SECONDS = 0.05


class RequestRefused(ServingError):
    """The server answered with an error, or not at all.

    Attributes:
        status: The HTTP status or gRPC's code number; None without an answer.
        temporary: Whether the same request may succeed a moment later: there was no
            connection, or the server is starting or overloaded.
    """

    def __init__(
        self, message: str, status: int | None = None, *, temporary: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.temporary = temporary


class RowClient:
    """A client of one signature; subclasses know how to send columns."""

    def __init__(
        self,
        *,
        signature: str,
        inputs: Mapping[str, InputSpec] | None,
        defaults: Row | None,
        unknown: Unknown,
        sequence_length: int | None,
        batch_size: int,
        retries: int,
    ) -> None:
        if batch_size < 1 or (sequence_length is not None and sequence_length < 1):
            raise ConfigError(
                "`batch_size` and `sequence_length` must be positive. Received: "
                f"{batch_size}, {sequence_length}."
            )
        if retries < 0:
            raise ConfigError(f"`retries` must not be negative. Received: {retries}.")
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
        self._retries = retries

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
        return self._signature_json or self._fresh_signature()

    def _fresh_signature(self) -> Mapping[str, Any]:
        found = find_signature(self._signatures(), self.signature)
        self._signature_json = found
        return found

    def _persist(self, send: Callable[[], _Answer]) -> _Answer:
        """Sends up to `retries` times more, with longer and longer waits."""
        for attempt in itertools.count():
            try:
                return send()
            except RequestRefused as error:
                if not error.temporary or attempt >= self._retries:
                    raise
            # Drawn, so that clients that failed together do not come back together.
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

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
        except (RequestRefused, ConfigError) as error:
            # A new version may have other inputs than the one that was asked about.
            if self._given_inputs is not None or known is None:
                raise
            if isinstance(error, RequestRefused) and error.status not in _MISFITS:
                raise
            try:
                unchanged = self._fresh_signature() == known
            except ServingError:
                unchanged = True
            if unchanged:
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
        name: InputSpec.of(
            info["dtype"],
            [
                (int(dim["size"]), dim.get("name", ""))
                for dim in info["tensor_shape"].get("dim", ())
            ],
        )
        for name, info in sorted(signature["inputs"].items())
    }
