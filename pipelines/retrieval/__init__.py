"""`mind recommend` and `mind export`: what a model would show to whom.

Comes in: a model and users, some or all. Goes out: lists to look at, list files, item and interest vectors for a
serving system. Read recommend (some users in this process, all on Ray Data), show_lists, list_files, export.
"""
