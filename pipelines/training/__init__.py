"""`mind train`: a dataset becomes a model, on any number of workers of Ray Train.

Comes in: a dataset and a configuration. Goes out: a model artifact and one MLflow run. Read train (the driver),
worker (what each worker does), loop (steps, validations, the end), data, memory_input and stream_input (what is
trained on), checkpoints and callback (what survives a kill, and what is seen of it), scaling, startup, step_profile.
"""
