"""A trained model as a folder, how it is found, and every user passed through it.

Comes in: a run's best weights, or the name of a model. Goes out: vectors, scores and lists. Read artifact (what the
folder holds; no Ray, no MLflow, no pickle), runs (where a training keeps its state), find (which model a command
means), over_users (all users through models, on Ray Data), serving (the file that MLflow runs).
"""
