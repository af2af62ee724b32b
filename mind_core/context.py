"""What a user is up to: a causal transformer over the behaviours, added to the interests through a gate.

    h = Blocks(e_1 .. e_L)              pre-norm, rotary positions, each behaviour attends to itself and to older ones
    v_j = norm(v_j + a * h_t)           a (d,) is learned and 0 at the start: the model begins as it is without

Routing forgets the order of behaviours; the blocks read it. One pass over a user's window gives h at every behaviour,
so that many labels of a user cost one pass (mind_core.training). Padding stands at the end, where no behaviour sees it.

Source: Vaswani et al. 2017, section 3.2; Kang and McAuley 2018 (SASRec) for its use on behaviours; Su et al. 2021,
eq. 34 (RoFormer), for the positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDER = 4  # hidden width of a feed-forward layer over d
ROTARY_BASE = 10_000.0


class ContextEncoder(nn.Module):
    """Blocks and the gate a.

    Parameters
    ----------
    dim : d.  heads : divide d into as many parts of even width.
    """

    def __init__(self, dim: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.width = dim // heads
        self.first = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(dim)
        self.gate = nn.Parameter(torch.zeros(dim))  # a

    def forward(self, behaviours: Tensor) -> Tensor:
        """Read the behaviours (B, L, d), oldest first: a * h (B, L, d), of each what it and older ones say."""
        x = self.first(behaviours)
        turn = rotation(x.shape[1], self.width, x)
        for block in self.blocks:
            x = block(x, turn)
        said: Tensor = self.gate * self.last(x)
        return said


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.width, self.dropout = heads, dim // heads, dropout
        self.norm, self.norm_wide = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attend, self.join = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide, self.narrow = nn.Linear(dim, WIDER * dim), nn.Linear(WIDER * dim, dim)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """x : (B, L, d).  turn : as `rotation` makes it."""
        x = x + self._drop(self.join(self._attention(self.norm(x), turn)))
        return x + self._drop(self.narrow(self._drop(functional.gelu(self.wide(self.norm_wide(x))))))

    def _attention(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        users, length, dim = x.shape
        parts = self.attend(x).view(users, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)  # (3, B, H, L, d')
        query, key = rotated(parts[0], turn), rotated(parts[1], turn)
        seen = functional.scaled_dot_product_attention(query, key, parts[2], is_causal=True)
        return seen.transpose(1, 2).reshape(users, length, dim)

    def _drop(self, x: Tensor) -> Tensor:
        return dropped(x, self.dropout) if self.training and self.dropout else x


def dropped(x: Tensor, share: float) -> Tensor:
    """Set that share of x to 0, at random, and scale up the rest; the share is rounded to whole 256ths.

    A draw of 64 bits decides eight elements: on a CPU, a draw for each costs more than the layer around it.
    """
    bits = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = bits.view(torch.uint8)[: x.numel()].view(x.shape) >= round(256 * share)
    return x * kept / (1 - round(256 * share) / 256)


def rotation(length: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (L, width / 2) of position t times base^(-2 i / width)."""
    rate = ROTARY_BASE ** (-torch.arange(0, width, 2, device=like.device).float() / width)
    angle = torch.arange(length, device=like.device).float().unsqueeze(1) * rate
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_(i + width / 2)) by its angle: products then depend on how far two positions are apart.

    x : (..., L, width).
    """
    cosine, sine = turn
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)
