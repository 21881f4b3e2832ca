"""Parts of the log simulator; `tfmtl.adapters.simulate` is the public entry."""
