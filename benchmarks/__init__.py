"""Measurements: slow, noisy, and run by hand (`make bench`), never by the tests."""
