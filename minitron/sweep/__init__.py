"""Many runs: a grid of cells, a pool of workers, a ledger of records.

Read first: grid.py, then pool.py.
"""
