"""What a model recommends: lists to look at, lists of everybody, and what a serving system loads.

In: a dataset, and a model of it. Out: printed lists, one file of lists, or <home>/exports/ with item vectors, users'
interests and lists. Read recommend.py (the command), user_lists.py (its lists), show_lists.py (printing),
list_files.py (one file of lists), export.py (the folder). Passing over all users is pipelines.models.over_users.
"""
