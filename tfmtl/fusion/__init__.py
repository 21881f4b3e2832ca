"""One score from the outputs of several tasks, and the search for its weights.

- `scores`: the forms of `schema.fusion` on arrays (NumPy);
- `graph`: the same inside a served model (TensorFlow);
- `table`, `criteria`, `objective`: stored predictions, what to maximise on them, and
  the value of a set of weights, quickly (NumPy);
- `search`: the search over weights (NumPy, SciPy);
- `figure`: the front as a picture (matplotlib).

The package itself imports nothing: all but `graph` run without TensorFlow.
"""
