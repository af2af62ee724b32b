"""Where raw item ids stand in a catalogue: prepared once, so that looking up a request's ids costs what they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import hash64


class ItemPlaces:
    """The places of ids in a list of distinct ids, by binary search: in the ids, or in hashes of text.

    Parameters
    ----------
    ids : of one canonical type, without nulls.
    """

    def __init__(self, ids: pa.Array) -> None:
        self.ids, self.text = ids, pa.types.is_string(ids.type)
        keys = self._keys(ids)
        self.order = np.argsort(keys, kind="stable")
        self.ascending = keys[self.order]
        self.hashed = not self.text or not (self.ascending[1:] == self.ascending[:-1]).any()

    def of(self, ids: pa.Array) -> npt.NDArray[np.int64]:
        """Find the place of each id, (n,) int64; -1 where there is none.

        >>> ItemPlaces(pa.array(["b", "a"])).of(pa.array(["a", "c", "b"])).tolist()
        [1, -1, 0]
        """
        if not len(self.ids) or not len(ids):
            return np.full(len(ids), -1, np.int64)
        if not self.hashed:  # two ids of one hash
            return np.asarray(pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy(), np.int64)
        keys = self._keys(ids)
        found = np.searchsorted(self.ascending, keys).clip(max=len(self.ascending) - 1)
        places, same = self.order[found], self.ascending[found] == keys
        if self.text:  # of another id there may be the same hash
            same &= pc.equal(self.ids.take(pa.array(places)), ids).to_numpy(zero_copy_only=False)
        return np.where(same, places, -1).astype(np.int64)

    def _keys(self, ids: pa.Array) -> npt.NDArray[np.uint64] | npt.NDArray[np.int64]:
        return hash64(ids) if self.text else ids.to_numpy(zero_copy_only=False)
