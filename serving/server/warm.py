"""Runs a version's recorded warm-up requests before it gets traffic."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np

from serving.server import examples
from serving.server.servable import Servable
from serving.warmup import MAX_RECORDS, read_warmup
from tfmtl._keras import tf
from tfmtl.errors import DataError

logger = logging.getLogger(__name__)


def warm_up(servable: Servable) -> int:
    """Replays `assets.extra/tf_serving_warmup_requests`.

    A file that cannot be read is reported and passed over. A request that the model
    refuses is an error: the version would fail on real requests, too.

    Returns:
        How many requests ran.

    Raises:
        RequestError: The model failed on its own warm-up request.
    """
    count = 0
    try:
        for log in itertools.islice(read_warmup(servable.path), MAX_RECORDS):
            count += _replay(servable, log)
    except DataError as error:
        logger.warning("%s", error)
    return count


def _replay(servable: Servable, log: Any) -> bool:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        name = request.model_spec.signature_name or "serving_default"
        keys = servable.signature(name).inputs
        servable.run(name, {key: tf.make_ndarray(request.inputs[key]) for key in keys})
        return True
    if kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        name = request.model_spec.signature_name or "serving_default"
        method = examples.classify if kind == "classify_log" else examples.regress
        method(servable, name, _serialized(request.input))
        return True
    logger.warning("a warm-up request of the kind %s is passed over", kind)
    return False


def _serialized(given: Any) -> np.ndarray[Any, Any]:
    context = b""
    items = given.example_list.examples
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        items = given.example_list_with_context.examples
    array = np.empty(len(items), dtype=object)
    # Concatenated protos merge: a feature of the example replaces the context's.
    array[:] = [context + item.SerializeToString() for item in items]
    return array
