"""Base: what every room stands on: errors, files, the command line, random streams, the terminal.

Read first: rng.py.
"""
