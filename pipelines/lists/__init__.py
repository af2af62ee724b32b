"""What lists may hold: filters over what is known of the items, files of ids, caps; compiled to rules of mind_core.

In: the section `lists` of the settings, and the columns of a model's items. Out: `mind_core.list_rules.ListRules`,
which `SavedModel.recommend_shelves` obeys. Read rules.py (all of it in turn), columns.py (what can be named),
filters.py (where), tables.py (files of ids and of stock). No Ray.
"""
