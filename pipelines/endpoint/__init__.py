"""`mind serve`: a model behind HTTP, on Ray Serve.

In: a model's folder, or an alias of MLflow's registry that is followed. Out: lists, as JSON. Read serve.py (the
command), replica.py (what answers: batches, and the switch to another model), app.py (the routes), page.py (the page
that shows them), follow.py (which model). A request itself is read and answered in pipelines.models.
"""
