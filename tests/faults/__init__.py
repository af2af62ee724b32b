"""The fault harness: a stage is started for real, one thing breaks, and in the end nothing may be lost, left or other.

stages.py       what is started, when it may be disturbed, and what it must have made
commands.py     a command as a process, its tree, and what it leaves behind
cases.py        one fault in one stage: break, repeat, compare, look around
faults.py       what breaks: signals, disk, memory
stores.py       what breaks beside it: MLflow, its database, S3; servers.py runs them
table.py        docs/reliability.md, from the cases that were run
soak.py         does anything grow? minutes of train, evaluate, recommend in one process
"""
