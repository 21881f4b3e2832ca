"""The one place that decides which Keras the package speaks: tf_keras (Keras 2).

TensorFlow Recommenders refuses Keras 3 and TensorFlow Transform speaks tf_keras, so
`TF_USE_LEGACY_KERAS=1` must hold before `tf.keras` is touched for the first time.
"""

from __future__ import annotations

import os

_chosen = os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

if _chosen != "1" or tf.keras.Model is not tf_keras.Model:
    raise ImportError(
        "tfmtl needs tf_keras (Keras 2), but `tf.keras` is already Keras 3. Import "
        "tfmtl before anything that touches tf.keras, or set the environment variable "
        "TF_USE_LEGACY_KERAS=1."
    )

keras = tf.keras

__all__ = ["keras", "tf"]
