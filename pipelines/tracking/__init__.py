"""MLflow, and nothing else of the product calls it: runs, metrics, models, names.

Comes in: a stage's settings, numbers, files. Goes out: runs that a dashboard shows, model versions with aliases. Read
store (where it all lies), moved (a home that was moved), run (a run for every stage), registry (champion and
challenger), dashboard (`mind ui`), versions (what the code was).
"""
