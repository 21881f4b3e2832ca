"""The Beam job: raw logs in, a dataset directory of block TFRecords out.

`pipeline.preprocess.run` is the entry point. Importing this package imports neither
TensorFlow nor Beam.
"""
