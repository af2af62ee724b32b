"""`mind preprocess`: a log of any size becomes a dataset, in four passes of Ray Data.

Comes in: the data section of a configuration. Goes out: a dataset's folder, all at once. Read preprocess (the passes
in turn), workspace (what a killed command goes on from), clean_log, buckets and exchange, sort_parts, core_items,
write_parts (the passes); then append and append_parts (a new day), summary (what the user is told), synthetic
(generated logs).
"""
