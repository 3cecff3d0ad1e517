"""The transformer: each operation with its gradient, the blocks built of them, AdamW.

Read first: transformer.py, then ops.py.
"""
