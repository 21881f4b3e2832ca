"""A refused or failed request, with the HTTP status TensorFlow Serving gives it."""

from __future__ import annotations

import re

from tfmtl._keras import tf

# TensorFlow's status codes as HTTP, as TensorFlow Serving's REST API maps them.
_HTTP_STATUS = {
    tf.errors.CANCELLED: 499,
    tf.errors.UNKNOWN: 500,
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.DEADLINE_EXCEEDED: 504,
    tf.errors.NOT_FOUND: 404,
    tf.errors.ALREADY_EXISTS: 409,
    tf.errors.PERMISSION_DENIED: 403,
    tf.errors.UNAUTHENTICATED: 401,
    tf.errors.RESOURCE_EXHAUSTED: 503,
    tf.errors.FAILED_PRECONDITION: 400,
    tf.errors.ABORTED: 409,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.INTERNAL: 500,
    tf.errors.UNAVAILABLE: 503,
    tf.errors.DATA_LOSS: 500,
}
# Where TensorFlow appends the Python lines that built the graph: not for callers.
_ORIGIN = re.compile(
    r"\n+(Original stack trace|Errors may have originated|Detected at node)"
)


class RequestError(Exception):
    """Ends a request with `status` and the body `{"error": message}`."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def from_model(error: tf.errors.OpError) -> RequestError:
    """The answer to a request on which the graph itself failed."""
    message = _ORIGIN.split(str(error.message), maxsplit=1)[0]
    return RequestError(message, _HTTP_STATUS.get(error.error_code, 500))
