"""The command line: one file per command, argument parsing and printing only.

Modules here import click and nothing heavy; what a command needs it imports in its
body, so that `tfmtl --help` answers at once.
"""
