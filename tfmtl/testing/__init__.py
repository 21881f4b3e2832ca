"""Tiny data sets and conformance suites for models and balancers of your own."""
