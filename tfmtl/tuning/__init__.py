"""Searching: spaces, oracles, goals and what comes out of a search.

`workflow.tune` runs the trials; nothing here trains.
"""
