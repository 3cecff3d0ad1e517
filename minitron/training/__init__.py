"""A training run: shards on threads, checkpoints, start and finish.

Read first: run.py; the loop is train.py.
"""
