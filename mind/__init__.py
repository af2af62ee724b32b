"""The public face of a trained model: load its folder and ask it, in a few lines and without Ray or MLflow.

    import mind

    model = mind.load("mind_home/models/complete-journey-default-a0245400f5")
    answer = model.recommend([1029743, 995242, 1082185], n=5, profile={"age": "35-44"})
    for item, score in zip(answer.ids, answer.scores):
        print(item, round(score, 3))

What a request may say, and what an answer holds, is in pipelines.models.requests and pipelines.models.answers.
"""

from __future__ import annotations

from mind.recommender import Recommender, load
from pipelines.errors import UserError
from pipelines.models.answers import Answer, Why
from pipelines.models.limits import Limits, RequestError

__all__ = ["Answer", "Limits", "Recommender", "RequestError", "UserError", "Why", "load"]
