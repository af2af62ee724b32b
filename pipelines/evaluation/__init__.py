"""`mind evaluate` and `mind promote`: full ranking of held-out users, and who is better.

Comes in: models and a dataset. Goes out: a report of metrics with intervals, bands and figures; the champion. Read
evaluate (the stage), ranking (what is kept of each user), report (averages and differences), figures, promote.
"""
