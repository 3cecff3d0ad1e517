"""How well a model does, and how it does it: metrics, records, heads, scaling laws.

Read first: evaluate.py.
"""
