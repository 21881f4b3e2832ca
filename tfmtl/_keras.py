"""The one place that decides which Keras the package speaks: tf_keras (Keras 2).

TensorFlow Recommenders refuses Keras 3 and TensorFlow Transform speaks tf_keras, so
`TF_USE_LEGACY_KERAS=1` must hold before `tf.keras` is touched for the first time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_chosen = os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
_level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Drops what TensorFlow writes to file descriptor 2 before its log level holds.

    Exceptions pass as ever; `TF_CPP_MIN_LOG_LEVEL=0` shows everything.
    """
    if _level == "0" or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


with _without_chatter():
    import tensorflow as tf
    import tf_keras

    tf.config.list_physical_devices()

if _chosen != "1" or tf.keras.Model is not tf_keras.Model:
    raise ImportError(
        "tfmtl needs tf_keras (Keras 2), but `tf.keras` is already Keras 3. Import "
        "tfmtl before anything that touches tf.keras, or set the environment variable "
        "TF_USE_LEGACY_KERAS=1."
    )

keras = tf.keras

__all__ = ["keras", "tf"]
