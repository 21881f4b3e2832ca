"""The search as pictures: PNG files by matplotlib, the extra `plot`.

- `history`: the score of each trial, and the hypervolume over time;
- `parallel`: values of the hyper-parameters and what they led to;
- `front`: the trade-off between objectives, with error bars over seeds;
- `canvas`: what they share.
"""

from tfmtl.tuning.plots.canvas import MISSING, available
from tfmtl.tuning.plots.front import draw_front
from tfmtl.tuning.plots.history import draw_history
from tfmtl.tuning.plots.parallel import draw_parallel

__all__ = ["MISSING", "available", "draw_front", "draw_history", "draw_parallel"]
