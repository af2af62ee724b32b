"""Models that are trained: how they are stored, found, loaded and served, and how all users pass through them.

In: a model's folder (weights, item vectors, vocabularies) and a dataset. Out: top-N lists, or what a worker class
makes of every user. Read artifact.py (the folder, and a loaded model), find.py (which one a command means),
over_users.py (a pass over all users), then runs.py (a training's state on disk) and serving.py (the file that MLflow
runs).
"""
