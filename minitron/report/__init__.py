"""From records to phase diagrams and verdicts, as text, picture and page.

Read first: phase.py, then verdict.py.
"""
