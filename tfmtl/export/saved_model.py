"""Writes and verifies an exported version."""

from __future__ import annotations

import pathlib
from typing import Any

from tfmtl._keras import tf
from tfmtl.errors import DataError
from tfmtl.export.signature import ServingModule, served_outputs
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.manifest import EXPORT_FILE, ExportManifest, write_manifest


def serving_module(
    model: MultiTaskModel, dataset: pathlib.Path, outputs: tuple[str, ...] | None
) -> ServingModule:
    """Joins a model with the transform graph of its data set.

    Args:
        model: The trained model.
        dataset: The dataset directory.
        outputs: Tasks to answer; all main ones where None.

    Raises:
        DataError: The data set's transform graph is missing.
    """
    import tensorflow_transform as tft

    folder = dataset / "transform"
    if not folder.is_dir():
        raise DataError(f"the data set {str(dataset)!r} has no transform graph")
    layer = tft.TFTransformOutput(str(folder)).transform_features_layer()
    return ServingModule(model, layer, served_outputs(model.manifest.dataset, outputs))


def save(module: ServingModule, manifest: ExportManifest, folder: pathlib.Path) -> None:
    """Writes a SavedModel and its card.

    Args:
        module: What to serve.
        manifest: The model card.
        folder: An empty folder.
    """
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    write_manifest(manifest, folder / EXPORT_FILE)


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
