"""What an evaluation found: metrics with intervals, by band, beside the baselines; as frames and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from pipelines.evaluation.report import Band, ModelReport, Report

HEADLINES = ("hit_rate", "recall", "ndcg", "mrr", "coverage")


class Evaluation:
    """One evaluation of a model; `FittedModel.evaluate` makes it.

    Attributes
    ----------
    report : all that was found, as in report.json.
    folder : report.json, users.parquet with a row a user, and pictures.
    """

    def __init__(self, report: Report, folder: Path) -> None:
        self.report, self.folder = report, folder

    @property
    def metrics(self) -> dict[str, float]:
        """Means over the users, by name: ``recall@20``; ``new/recall@20`` counts targets new to a user alone."""
        return dict(self._model.metrics)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Between what 95 % of the means of resampled users lie, by the metric's name."""
        return {name: (low, high) for name, (low, high) in self._model.intervals.items()}

    @property
    def frame(self) -> pd.DataFrame:
        """A row a model, the evaluated one first, then those beside it and the baselines; a column a metric."""
        import pandas as pd

        rows = {model.label: dict(model.metrics) for model in self.report.models}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    @property
    def differences(self) -> pd.DataFrame:
        """The model less each other one: mean, interval, and whether they are told apart."""
        import pandas as pd

        rows = [
            {"less": each.against, "metric": each.metric, "mean": each.mean, "low": each.low, "high": each.high,
             "told": each.told}
            for each in self.report.differences
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["less", "metric", "mean", "low", "high", "told"])

    @property
    def by_history(self) -> pd.DataFrame:
        """The headline metric by how many behaviours a user has; ``size`` is users."""
        return self._bands(lambda model: model.by_history, self.report.metric)

    @property
    def by_popularity(self) -> pd.DataFrame:
        """Share of targets found by how popular they are; ``size`` is targets."""
        return self._bands(lambda model: model.by_popularity, f"recall@{self.report.metric.split('@')[1]}")

    def plot(self) -> Figure:
        """Draw the metric by band of users and of targets, beside the other models."""
        import matplotlib.pyplot  # noqa: F401  # in a notebook it makes figures show

        from pipelines.evaluation.figures import bands_figure

        return bands_figure(self.report)

    @property
    def _model(self) -> ModelReport:
        return self.report.models[0]

    def _bands(self, of: Callable[[ModelReport], list[Band]], metric: str) -> pd.DataFrame:
        import pandas as pd

        sizes = {band.name: band.size for band in of(self._model)}
        columns = {model.label: {band.name: band.metrics[metric] for band in of(model)} for model in self.report.models}
        return pd.DataFrame({"size": sizes, **columns}).rename_axis(metric)

    def __repr__(self) -> str:
        metric = self.report.metric
        low, high = self.intervals[metric]
        lines = [
            f"<mind.Evaluation of {self._model.name}: {self.report.protocol}>",
            f"{metric} {self.metrics[metric]:.4f}, 95 % interval {low:.4f} to {high:.4f}",
        ]
        for each in self.report.headlines:
            told = "" if each.told else ", not told apart"
            lines.append(f"less {each.against}: {each.mean:+.4f} ({each.low:+.4f} to {each.high:+.4f}{told})")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cutoff = self.report.metric.split("@")[1]
        names = [f"{kind}@{cutoff}" for kind in HEADLINES if f"{kind}@{cutoff}" in self.metrics]
        low, high = self.intervals[self.report.metric]
        shown = self.frame[names].map("{:.4f}".format)
        headline = [str(cell) for cell in shown[self.report.metric]]
        shown[self.report.metric] = [f"{headline[0]} ({low:.4f} to {high:.4f})", *headline[1:]]
        return f"<b>{escape(self._model.name)}</b><br>{escape(self.report.protocol)}{shown.to_html()}"
