"""From records to phase diagrams and verdicts, as text, picture and page.

Read first: phase.py, then verdict.py; text.py prints, page.py and picture.py draw, table.py makes
Markdown.  The metrics of a single run are in ../measure/evaluate.py, its printed table in
../measure/record.py.
"""
