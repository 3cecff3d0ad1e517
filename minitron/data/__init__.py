"""From a configuration to a task, and from a task to batches.

Read first: tasks.py, then batches.py.
"""
