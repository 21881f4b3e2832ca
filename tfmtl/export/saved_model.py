"""Writes and verifies an exported version."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from tfmtl._keras import tf
from tfmtl.errors import DataError
from tfmtl.export.signature import ServingModule, served_outputs
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.manifest import (
    EXPORT_FILE,
    ExportManifest,
    ServedInput,
    write_manifest,
)


def serving_module(
    model: MultiTaskModel,
    dataset: pathlib.Path,
    outputs: tuple[str, ...] | None,
    fusion: FusionSpec | None = None,
) -> ServingModule:
    """Joins a model with the transform graph of its data set.

    Args:
        model: The trained model.
        dataset: The dataset directory.
        outputs: Tasks to answer; all main ones where None.
        fusion: How outputs become one more, `score`; or None.

    Raises:
        DataError: The data set's transform graph is missing.
    """
    import tensorflow_transform as tft
    from tensorflow_transform.saved.saved_transform_io_v2 import SavedModelLoader

    folder = dataset / "transform"
    if not folder.is_dir():
        raise DataError(f"the data set {str(dataset)!r} has no transform graph")
    output = tft.TFTransformOutput(str(folder))
    # What `transform_features_layer()` wraps: as a Keras model, the layer would be
    # saved with a graph of its own for each way it may be called.
    transform = SavedModelLoader(output.transform_savedmodel_dir)
    return ServingModule(
        model, transform, served_outputs(model.manifest.dataset, outputs), fusion
    )


def save(module: ServingModule, manifest: ExportManifest, folder: pathlib.Path) -> None:
    """Writes a SavedModel and its card.

    Args:
        module: What to serve.
        manifest: The model card.
        folder: An empty folder.
    """
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    _say_what_is_kept(folder, manifest.inputs)
    write_manifest(manifest, folder / EXPORT_FILE)


def _say_what_is_kept(folder: pathlib.Path, inputs: Sequence[ServedInput]) -> None:
    """Names the second dimension of each list by what the model reads of it.

    Servers hand the name on with the signature, so that a client cuts as the graph
    does. `tf.TensorSpec` has no names of dimensions, hence the edit of the file.
    """
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in model.meta_graphs:
        signature = graph.signature_def["serving_default"]
        for item in inputs:
            if item.keep is not None:
                signature.inputs[item.name].tensor_shape.dim[1].name = item.keep
    path.write_bytes(model.SerializeToString(deterministic=True))
    # It holds checksums of the file.
    fingerprinting_utils.write_fingerprint(str(folder))


def versions_in(base: pathlib.Path) -> dict[int, pathlib.Path]:
    """The versions in a model's base directory, oldest first.

    As TensorFlow Serving has it, a version is a folder whose name is a number: what a
    killed export leaves (`.7.....partial`) is none.
    """
    found = {
        int(path.name): path
        for path in base.glob("*")
        if path.name.isascii() and path.name.isdigit() and path.is_dir()
    }
    return dict(sorted(found.items()))


def load_signature(folder: pathlib.Path) -> Any:
    """`serving_default` of an exported version.

    Raises:
        DataError: The folder holds no SavedModel.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(
            "`model` must be a version of an exported model. Received: "
            f"{str(folder)!r} ({error})"
        ) from error
    function = loaded.signatures["serving_default"]
    function.keep_alive = loaded  # the function holds no reference to its variables
    return function
