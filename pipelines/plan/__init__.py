"""`mind plan`: what a log of a size asks of a cluster, before anything is run. Needs neither torch nor Ray.

Comes in: how many events, users and items, and a machine. Goes out: nodes, memory, network, hours, and what runs out
first. Read plan (the whole), workload and machine (what is given), preprocessing, training, ranking, memory, network
(the formulas), bottlenecks and show (the answer), measure (a machine's own rates).
"""
