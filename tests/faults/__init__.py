"""The fault harness: a stage is started for real, one thing breaks, and in the end nothing may be lost, left or other.

stages.py       what is started, when it may be disturbed, and what it must have made
commands.py     a command as a process, its tree, and what it leaves behind
cases.py        one fault in one stage: break, repeat, compare, look around
faults.py       what breaks: signals, disk, memory
surroundings.py what breaks around it: another command, the rights to its files, the clock (clock.c)
stores.py       what breaks beside it: MLflow, its database, S3; servers.py runs them
anything.py     settings, logs, item tables and requests as nobody means them, by seed
table.py        docs/reliability.md, from the cases that were run
soak.py         does anything grow? an hour of train, evaluate, recommend, and of the endpoint; grows.py looks
"""
