"""What a model sees in one user: some interests, what each comes from and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.retrieval.interests_of import OneInterest

if TYPE_CHECKING:
    import pandas as pd


class Interests(Sequence[OneInterest]):
    """A user's interests in their order; `FittedModel.interests` makes it.

    Attributes
    ----------
    user : raw id, or None of a history.
    names : what to print for an item's id.
    """

    def __init__(self, user: Any, found: Sequence[OneInterest], names: dict[Any, str]) -> None:
        self.user, self._found, self.names = user, list(found), names

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """(K', d); an item's score is its best inner product with them."""
        return np.stack([each.vector for each in self._found])

    @property
    def frame(self) -> pd.DataFrame:
        """A row an interest: its share of the history, the behaviours it has most of, and the items it finds."""
        import pandas as pd

        rows = {
            each.number: {
                "share": each.share,
                "because": ", ".join(self._name(item) for item, _ in each.because),
                "finds": ", ".join(self._name(item) for item in each.finds),
            }
            for each in self._found
        }
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["share", "because", "finds"])
        return frame.rename_axis("interest")

    def _name(self, item: Any) -> str:
        return "an unknown item" if item is None else self.names.get(item, str(item))

    def __getitem__(self, place: Any) -> Any:
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        who = "a history" if self.user is None else f"user {self.user}"
        lines = [f"<mind.Interests of {who}: {len(self)}>"]
        for each, row in zip(self._found, self.frame.itertuples(), strict=True):
            lines.append(f"{each.number}: {each.share:.0%} of the history, most from {row.because}; finds {row.finds}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        who = "a history" if self.user is None else f"user {escape(str(self.user))}"
        rows = "".join(
            f"<tr><td>{each.number}</td><td>{each.share:.0%}</td><td>{escape(str(row.because))}</td>"
            f"<td>{escape(str(row.finds))}</td></tr>"
            for each, row in zip(self._found, self.frame.itertuples(), strict=True)
        )
        head = "<tr><th>interest</th><th>of the history</th><th>most of it from</th><th>finds</th></tr>"
        return f"<b>Interests of {who}</b><table>{head}{rows}</table>"
