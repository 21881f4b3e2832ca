"""Who proposes trials, and who stops them early.

- `make`: any oracle by its name; `random_search`, `hyperband`, `bayesian`: the oracles;
- `durable`, `stored`, `outcomes`: keras-tuner's protocol and files, safe against a
  kill;
- `values`, `coordinates`: what a space allows, and the cube it is searched in;
- `gaussian`, `acquisition`, `hypervolume`, `beliefs`: the maths of Bayesian search;
- `pruning`: the median rule.

The package itself imports nothing: keras-tuner imports TensorFlow.
"""
