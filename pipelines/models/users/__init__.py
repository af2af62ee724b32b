"""A pass over users, by its parts: worker (what works on a slice), here (in this process), on_ray (on Ray Data).

Comes in: files of a split, and which of their rows count. Goes out: what the worker made of each slice, in order. The
entry is pipelines.models.over_users.
"""
