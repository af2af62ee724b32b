"""How good a model is: every test user ranked over the whole catalogue, beside baselines and other models.

In: a dataset, and models of it. Out: report.json, users.parquet and figures in <home>/evaluations/, metrics in MLflow,
and the decision of `mind promote`. Read evaluate.py (the command), baselines.py (the rules beside it), ranking.py (what
an actor does with a slice of users), interests.py and lists.py (what it keeps of interests and lists), report.py (the
figures made of it), show_report.py (the terminal), figures.py (the pictures), report_page (`mind report`), promote.py
(champion and challenger).
"""
