"""`mind report`: what an evaluation and a training have stored, as one page of pictures, and the pictures beside it.

In: <home>/evaluations/, the training's curves in MLflow, and the model for the pictures of a few users. Out:
<home>/reports/<model>-<split>/ with report.html and PNGs, and the same below the evaluation's run in MLflow. Read
command.py (the command), stored.py (what is read), sections.py (which pictures there are and what they say), the
figures (accuracy.py, interests.py, lists.py, plane.py), look.py (light and dark), page.py (the HTML).
"""
