"""Training: one step, one loop, checkpoints that resume exactly."""
