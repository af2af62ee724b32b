"""What a run's page says at its top: what it is, of which data, what came out, and the command that comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DECISION = "**Decision:**"
NOTE = "mlflow.note.content"  # the tag that MLflow's pages show as a description, in Markdown


def note(what: str, data: str, found: Sequence[str] = (), then: str | None = None) -> str:
    """Write a description.

    Parameters
    ----------
    what : a sentence, of what the run does.
    data : a sentence, of what it reads.
    found : a sentence each, of what came out; empty while it runs.
    then : the next command.

    Examples
    --------
    >>> print(note("Training of preset default.", "Dataset ml-1m.", ["ndcg@20 0.1234."], "mind evaluate CONF"))
    Training of preset default. Dataset ml-1m.
    <BLANKLINE>
    - ndcg@20 0.1234.
    <BLANKLINE>
    Next: `mind evaluate CONF`
    """
    parts = [f"{what} {data}", "\n".join(f"- {line}" for line in found), f"Next: `{then}`" if then else ""]
    return "\n\n".join(part for part in parts if part)


def learning_curve(report: Mapping[str, float], metric: str) -> dict[str, float]:
    """Name the loss and the headline metric of a report once more, so that their charts come first.

    MLflow orders charts by the names of the groups, in which ``curve`` stands before routing, startup, test and train.

    >>> learning_curve({"train/loss": 2.0, "validation/ndcg@20": 0.1, "epoch": 1.0}, "ndcg@20")
    {'curve/loss': 2.0, 'curve/validation ndcg@20': 0.1}
    """
    names = {"train/loss": "curve/loss", f"validation/{metric}": f"curve/validation {metric}"}
    return {curve: report[name] for name, curve in names.items() if name in report}


def best_validation(metrics: Mapping[str, float]) -> dict[str, float]:
    """Name the metrics of the best validation, and when it was: single numbers, whose charts come last.

    >>> best_validation({"validation/ndcg@20": 0.1, "epoch": 2.0, "train/loss": 1.0})
    {'validation/best/ndcg@20': 0.1, 'validation/best/epoch': 2.0}
    """
    found = {
        f"validation/best/{name.removeprefix('validation/')}": value
        for name, value in metrics.items()
        if name.startswith("validation/")
    }
    return found | ({"validation/best/epoch": metrics["epoch"]} if "epoch" in metrics else {})


def with_decision(description: str, decision: str) -> str:
    """Put a decision at the head of a description, in place of an earlier one.

    >>> with_decision(with_decision("A model.", "Refused: worse."), "Promoted: better.")
    '**Decision:** Promoted: better.\\n\\nA model.'
    """
    head, _, rest = description.partition("\n\n")
    kept = rest if head.startswith(DECISION) else description
    return f"{DECISION} {decision}\n\n{kept}".rstrip()


def decision_kept(description: str, text: str) -> str:
    """Replace a description but for the decision at its head.

    >>> decision_kept("**Decision:** Refused.\\n\\nOld.", "New."), decision_kept("Old.", "New.")
    ('**Decision:** Refused.\\n\\nNew.', 'New.')
    """
    head = description.partition("\n\n")[0]
    return f"{head}\n\n{text}" if head.startswith(DECISION) else text
