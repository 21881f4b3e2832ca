"""The ASGI application: TensorFlow Serving's REST paths on a registry of versions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import re
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.server import examples, tensors
from serving.server.errors import RequestError
from serving.server.registry import Registry

logger = logging.getLogger(__name__)

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(
    rf"/v1/models/(?P<model>[^/:]+){_VERSION}:(?P<verb>predict|classify|regress)", re.I
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<model>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.I
)
_NOT_FOUND = (
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n"
    b"<H1>Not Found</H1>\n</BODY></HTML>\n"
)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# How much of a body that is too large is read and thrown away, so that a client that
# writes all of it before it reads gets the 413 and not a broken connection.
_DRAINED = 4


def create_app(
    registry: Registry,
    *,
    pool: concurrent.futures.Executor,
    max_body_bytes: int,
) -> Starlette:
    """Builds the application.

    Args:
        registry: The versions to serve.
        pool: Runs parsing, model and encoding, so that the event loop stays free.
        max_body_bytes: A larger body is answered 413.

    Returns:
        The ASGI application.
    """

    async def endpoint(request: Request) -> Response:
        path = request.scope["path"]
        if not path.lower().startswith("/v1/"):
            return Response(_NOT_FOUND, 404, media_type="text/html")
        try:
            body = await _read(request, max_body_bytes)
        except RequestError as error:
            return _response(error.status, {"error": error.message})
        except ClientDisconnect:
            return Response(status_code=499)
        loop = asyncio.get_running_loop()
        status, payload = await loop.run_in_executor(
            pool, answer, registry, request.method, path, body
        )
        return Response(payload, status, media_type="application/json")

    return Starlette(routes=[Route("/{path:path}", endpoint, methods=_METHODS)])


async def _read(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        RequestError: It is larger than `limit` bytes (413).
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif chunks:
            chunks.clear()
        if size > _DRAINED * limit:
            break
    if size > limit:
        raise RequestError(
            f"The request's body is larger than the limit of {limit} bytes", 413
        )
    return b"".join(chunks)


def answer(
    registry: Registry, method: str, path: str, body: bytes
) -> tuple[int, bytes]:
    """Answers one request; whatever goes wrong is an answer, too.

    Returns:
        The HTTP status and the JSON body.
    """
    try:
        return 200, _encode(_dispatch(registry, method, path, body))
    except RequestError as error:
        return error.status, _encode({"error": error.message})
    except Exception as error:
        logger.exception("%s %s failed", method, path)
        return 500, _encode({"error": f"Internal error: {type(error).__name__}"})


def _dispatch(registry: Registry, method: str, path: str, body: bytes) -> Any:
    match = _PREDICTION.fullmatch(path)
    if match and method == "POST":
        name, version = match["model"], _version(match)
        with registry.lease(name, version) as servable:
            verb = match["verb"].lower()
            if verb == "predict":
                signature, form, inputs = tensors.decode_predict(body, servable)
                return tensors.encode_predict(servable.run(signature, inputs), form)
            signature, serialized = examples.decode_examples(body)
            run = examples.classify if verb == "classify" else examples.regress
            return run(servable, signature, serialized)
    match = _STATUS.fullmatch(path)
    if match and method == "GET":
        if match["model"] is None:
            raise RequestError("Missing model name in request.")
        if match["metadata"]:
            return _metadata(registry, match["model"], _version(match))
        return _status(registry, match["model"], _version(match))
    raise RequestError(f"Malformed request: {method} {path}")


def _version(match: re.Match[str]) -> int | None:
    """The version that a path names, None for the newest.

    Raises:
        RequestError: It names a label, which only a models.config can define (400).
    """
    if match["label"] is not None:
        raise RequestError(f"Unrecognized servable version label: {match['label']}")
    if match["version"] is None:
        return None
    if len(match["version"]) > 18:
        raise RequestError(f"Failed to convert version: {match['version'][:40]}")
    return int(match["version"])


def _metadata(registry: Registry, name: str, version: int | None) -> dict[str, Any]:
    with registry.lease(name, version) as servable:
        return {
            "model_spec": {
                "name": name,
                "signature_name": "",
                "version": str(servable.version),
            },
            "metadata": {"signature_def": {"signature_def": servable.signature_json()}},
        }


def _status(registry: Registry, name: str, version: int | None) -> dict[str, Any]:
    statuses = registry.statuses() if name == registry.name else {}
    if version is not None:
        statuses = {v: s for v, s in statuses.items() if v == version}
        if not statuses:
            raise RequestError(f"Could not find version {version} of model {name}", 404)
    if not statuses:
        raise RequestError(f"Could not find any versions of model {name}", 404)
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": status.state,
                "status": {
                    "error_code": status.error_code,
                    "error_message": status.error_message,
                },
            }
            for number, status in statuses.items()
        ]
    }


def _encode(value: Any) -> bytes:
    # A bare NaN is what the server writes; text is cut of what UTF-8 cannot say.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="replace")


def _response(status: int, value: Any) -> Response:
    return Response(_encode(value), status, media_type="application/json")
