"""An index of the item vectors, built with FAISS: who asks it per interest and merges gets about the exact list.

<export>/index-<kind>/
    items.faiss    the index; position p is row p of the export's items
    ids.parquet    number (p), id: what stands where
    report.json    see index_report
    report.png

Scores are inner products of the vectors as they are stored; where the model normalises them they are cosines.
FAISS is an extra: pip install 'mind-retrieval[index]'.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from mind_core.hits import TopList, merge_interests
from mind_core.special_rows import FIRST_ITEM
from pipelines.errors import UserError

IndexKind = Literal["flat", "hnsw", "ivf_pq"]
KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
INDEX_FILE, IDS_FILE = "items.faiss", "ids.parquet"

HNSW_LINKS, HNSW_BUILD = 32, 200  # M and efConstruction
PQ_BITS, PQ_WIDTH = 8, 4  # of a code; dimensions that a code stands for
PQ_LEAST_ITEMS = 39 * 2**PQ_BITS  # of which FAISS learns codes without a warning
LEARNED_FROM = 2**18  # items at most, for cells and codes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemIndex:
    """A FAISS index of `kind` over item vectors; position p is item index p + FIRST_ITEM."""

    kind: IndexKind
    faiss: Any

    @classmethod
    def load(cls, folder: Path) -> ItemIndex:
        """Open the index of an export: <export>/index-<kind>.

        Raises
        ------
        UserError
            Without FAISS or without an index there.
        """
        kind = folder.name.removeprefix("index-")
        if kind not in KINDS or not (folder / INDEX_FILE).is_file():
            raise UserError(f"{folder}: no index; must be EXPORT/index-KIND of mind export --index KIND")
        return cls(kind, _faiss().read_index(str(folder / INDEX_FILE)))

    @property
    def knob(self) -> str | None:
        """Name the setting that trades speed for recall."""
        return {"flat": None, "hnsw": "ef", "ivf_pq": "nprobe"}[self.kind]

    def settings(self, n: int) -> list[int | None]:
        """Choose values of the setting to try for lists of n: n and powers of 2 above it (ef), powers of 2 (nprobe)."""
        powers = [2**power for power in range(16)]
        if self.kind == "hnsw":  # it looks at n candidates anyway
            return [n, *[power for power in powers if n < power][:4]]
        return [None] if self.kind == "flat" else [power for power in powers if power <= min(256, self.faiss.nlist)]

    def search(self, vectors: Floats, n: int, setting: int | None = None) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Find n items for each of `vectors` (R, d): scores (R, n) and positions (R, n), -1 where there are fewer."""
        faiss, parameters = _faiss(), None
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(n, setting or 128))
        elif self.kind == "ivf_pq":
            parameters = faiss.SearchParametersIVF(nprobe=setting or 32)
        found: tuple[Floats, npt.NDArray[np.int64]] = self.faiss.search(vectors, n, params=parameters)
        return found

    def top(self, interests: Tensor, own: Tensor, n: int, setting: int | None = None) -> TopList:
        """Ask for n items of each own interest and merge them into the n best of each user.

        Parameters
        ----------
        interests : (B, K, d).  own : (B, K) bool.
        """
        scores, positions = self.search(interests[own].contiguous().numpy(), n, setting)
        items = torch.zeros(*own.shape, n, dtype=torch.int64)
        best = torch.full((*own.shape, n), float("-inf"))
        items[own] = torch.from_numpy(positions + FIRST_ITEM).where(torch.from_numpy(positions) >= 0, 0)
        best[own] = torch.from_numpy(scores)
        return merge_interests(items, best, n)


def build_index(kind: IndexKind, vectors: Tensor) -> ItemIndex:
    """Build an index of vectors (N, d), of which padding and unknown are none.

    Raises
    ------
    UserError
        Without FAISS, and for an ivf_pq of too few items.
    """
    faiss = _faiss()
    count, dim = vectors.shape
    flat = faiss.IndexFlatIP(dim)
    index = flat
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD
    elif kind == "ivf_pq":
        if count < PQ_LEAST_ITEMS:
            raise UserError(f"--index ivf_pq: {count:,} items are too few to learn codes of, it takes "
                            f"{PQ_LEAST_ITEMS:,}; use --index flat or hnsw")  # fmt: skip
        cells = 2 ** round(np.log2(4 * count**0.5))
        codes = dim // PQ_WIDTH if dim % PQ_WIDTH == 0 else dim
        index = faiss.IndexIVFPQ(flat, dim, min(cells, count // 39), codes, PQ_BITS, faiss.METRIC_INNER_PRODUCT)
        step = -(-count // LEARNED_FROM)
        index.train(vectors[::step].contiguous().numpy())
    for block in vectors.split(2**18):
        index.add(block.contiguous().numpy())
    return ItemIndex(kind, index)


def save_index(index: ItemIndex, ids: pa.Array, folder: Path) -> None:
    """Write the index and what stands at its positions."""
    import pyarrow.parquet as pq

    _faiss().write_index(index.faiss, str(folder / INDEX_FILE))
    table = pa.table({"number": pa.array(np.arange(len(ids))), "id": ids})
    pq.write_table(table, folder / IDS_FILE)


def require_faiss() -> None:
    """See that FAISS is there before the work that needs it; a UserError if not."""
    _faiss()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise UserError(
            "--index: FAISS is not installed; install it with: pip install 'mind-retrieval[index]'"
        ) from None
    return faiss
