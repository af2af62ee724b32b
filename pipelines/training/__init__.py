"""From a dataset to a model: Ray Train's workers, their data, the loop and its checkpoints.

In: the train and validation splits, and settings. Out: a model's folder, a run's state, metrics in MLflow. Read
start.py (the command), train.py (on the driver), worker.py (what each worker does), loop.py (steps and validations),
data.py with labels.py, memory_input.py and stream_input.py (what it trains on), then checkpoints.py, snapshot.py (Ray's
record of them), callback.py (to MLflow), scaling.py, ray_trainer.py, startup.py, step_profile.py.
"""
