"""A configuration for a log that nobody has described: what `mind init` writes. No Ray.

Comes in: paths of a log and its tables. Goes out: YAML in which every guess is said to be one. Read first_look (how a
file is written, what its columns seem to hold), roles (which are user, item and time), all_over (the
times of a log too long to be looked at), odd_rows (what one may want to
leave out), tables (features of items and users), habits and recipe (how users come back, and what follows for the
split, the model and its training), write (all of it in turn).
"""
