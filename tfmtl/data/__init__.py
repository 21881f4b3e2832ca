"""Dataset directories as `tf.data`."""
