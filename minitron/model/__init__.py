"""The transformer: each operation with its gradient, the blocks built of them, AdamW.

Read first: ops.py, then transformer.py.
"""
