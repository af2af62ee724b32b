"""The dataset between preprocessing and everything after it: its folder, and what its rows are made of. No Ray.

Comes in: sorted events of some users. Goes out: rows of every split, vocabularies, tensors for mind_core. Read
dataset (the folder's layout and its manifest), sorted_events, splits and split_rows (from events to rows), behaviours
(weights, sessions, gaps), vocabulary and feature_rows (from values to embedding rows), column_summary, part_files,
tensors (from rows to torch).
"""
