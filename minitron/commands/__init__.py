"""The commands of `python -m minitron`, one file each.

Read first: eval.py.
"""
