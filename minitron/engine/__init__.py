"""The model file, and run.c as a Python class.

Read first: model_file.py, then ../../run.c, then engine.py, with arguments.py and threads.py.
"""
