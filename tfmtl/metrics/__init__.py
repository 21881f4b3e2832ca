"""Ranking quality, calibration and errors of predictions, per task and scenario.

- `exact`: one number from whole arrays (NumPy, float64); its parts are `grouped`,
  `regression`, `multiclass` and `score_bins`;
- `bootstrap`: confidence intervals by resampling users (NumPy);
- `calibration`: corrections fitted after training (NumPy);
- `report`: the JSON document of an evaluation (NumPy);
- `front`, `hypervolume`: points none of which is better in all metrics, and how much
  they leave behind them (NumPy);
- `histogram`: AUC from counts per bin, with its error bound (NumPy);
- `streaming`, `streaming_values`: sums kept inside a `tf.function` while
  batches pass (TensorFlow).

The package itself imports nothing, so that an evaluation of stored predictions does
not pay for TensorFlow.
"""
