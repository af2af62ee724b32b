"""Multi-interest retrieval from Python: a frame in, a trained model out, with lists, metrics and interests.

    import mind

    dataset = mind.Dataset.from_frame(purchases, user="household", item="product", time="bought_at")
    model = dataset.fit(train={"epochs": 5})
    model.evaluate()
    model.recommend(["7", "13"], n=10)

And a trained model alone, loaded from its folder and asked in a few lines, without Ray or MLflow:

    model = mind.load("mind_home/models/complete-journey-default-a0245400f5")
    answer = model.recommend([1029743, 995242, 1082185], n=5, profile={"age": "35-44"})
    for item, score in zip(answer.ids, answer.scores):
        print(item, round(score, 3))

What a request may say, and what an answer holds, is in pipelines.models.requests and pipelines.models.answers.
"""

from __future__ import annotations

from mind.dataset import Dataset
from mind.evaluation import Evaluation
from mind.fitted import FittedModel
from mind.interests import Interests
from mind.recommender import Recommender, load
from mind.sample import SampleLog, sample_log
from pipelines.errors import UserError
from pipelines.models.answers import Answer, Why
from pipelines.models.limits import Limits, RequestError

__all__ = [
    "Answer",
    "Dataset",
    "Evaluation",
    "FittedModel",
    "Interests",
    "Limits",
    "Recommender",
    "RequestError",
    "SampleLog",
    "UserError",
    "Why",
    "load",
    "sample_log",
]
