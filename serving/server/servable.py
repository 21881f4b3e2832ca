"""One loaded version of a SavedModel: graph, session and signatures.

A session is what TensorFlow Serving runs, too: it feeds and fetches tensors by the
names in `saved_model.pb`, gives its memory back when closed, and answers a small
request in 0.1 ms where a restored `tf.function` takes 0.6 ms.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format

from serving.server.errors import RequestError, from_model
from tfmtl._keras import tf  # first, since it keeps TensorFlow's start quiet

# isort: split
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.saved_model import loader_impl

Arrays = dict[str, np.ndarray[Any, Any]]

# `loader_impl` is what `tf.compat.v1.saved_model.loader.load` calls; that one announces
# its deprecation in the log of every start.
_TAG = "serve"
# Two graphs restored at once would share TensorFlow's default-graph bookkeeping.
_loading = threading.Lock()


class Servable:
    """A version that answers requests until `close`.

    Args:
        path: The version's directory.
        version: Its number.

    Raises:
        OSError: No SavedModel is there.
        RuntimeError: It has no meta graph tagged "serve".
        tf.errors.OpError: The model is damaged or does not fit this TensorFlow.
    """

    def __init__(self, path: str | os.PathLike[str], version: int) -> None:
        self.path = os.fspath(path)
        self.version = version
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with _loading, graph.as_default():
                loader = loader_impl.SavedModelLoader(self.path)
                meta_graph = loader.load(self._session, [_TAG])
            self.signatures: dict[str, Any] = dict(meta_graph.signature_def)
            self._callables = {
                name: self._callable(signature)
                for name, signature in self.signatures.items()
                if signature.inputs
            }
        except BaseException:
            self._session.close()
            raise

    def _callable(self, signature: Any) -> Callable[..., list[Any]]:
        options = config_pb2.CallableOptions()
        options.feed.extend(info.name for info in signature.inputs.values())
        options.fetch.extend(info.name for info in signature.outputs.values())
        made: Callable[..., list[Any]] = self._session._make_callable_from_options(
            options
        )
        return made

    def signature(self, name: str) -> Any:
        """The signature's proto.

        Raises:
            RequestError: There is none of that name (400).
        """
        if name not in self.signatures:
            raise RequestError(
                f'Serving signature name: "{name}" not found in signature def'
            )
        return self.signatures[name]

    def signature_json(self) -> dict[str, Any]:
        """All signatures as the metadata request shows them."""
        return {
            name: json_format.MessageToDict(
                signature,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, signature in self.signatures.items()
        }

    def run(self, name: str, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
        """Runs a signature.

        Args:
            name: A signature with inputs.
            inputs: One array per input, of the signature's types.

        Returns:
            One array per output.

        Raises:
            RequestError: A shape does not fit (400), or the graph failed.
        """
        signature = self.signature(name)
        for key, info in signature.inputs.items():
            _check_shape(key, info, inputs[key].shape)
        try:
            values = self._callables[name](*(inputs[key] for key in signature.inputs))
        except tf.errors.OpError as error:
            raise from_model(error) from error
        return dict(zip(signature.outputs, map(np.asarray, values), strict=True))

    def close(self) -> None:
        """Gives the session's memory back; no request may be running."""
        self._callables.clear()
        self._session.close()


def _check_shape(key: str, info: Any, shape: tuple[int, ...]) -> None:
    if info.tensor_shape.unknown_rank:
        return
    declared = [dim.size for dim in info.tensor_shape.dim]
    fits = len(declared) == len(shape) and all(
        size < 0 or size == got for size, got in zip(declared, shape, strict=True)
    )
    if not fits:
        raise RequestError(
            f"Input {key} must have the shape {declared} (-1: any). "
            f"Received: {list(shape)}."
        )
