"""The regularised gradient kernel that TRAK-like methods share, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..rows import Rows, block_rows, parts_of


class GradientKernel:
    """phi_q (Phi^T Phi + lambda I)^-1 Phi^T for training features Phi [N, k], a tensor or rows read in blocks.

    lambda = ``damping`` times tr(Phi Phi^T) / N, so that it means the same whatever the features' scale. Solved through
    the N x N Gram matrix where N <= k and the k x k one otherwise: equal in exact arithmetic (push-through identity),
    and in float64 stable for any damping > 0. Of the features one block is in float64 at a time. Raises ValueError for
    damping <= 0.
    """

    def __init__(self, features: Tensor | Rows, damping: float) -> None:
        if damping <= 0:
            raise ValueError(f"damping must be positive, not {damping}")
        self.rows = Rows.of(features) if isinstance(features, Tensor) else features
        n, k = self.rows.shape
        self.dual = n <= k
        gram = self._between_items() if self.dual else self._between_features()
        self.shift = damping * float(gram.trace()) / n
        gram.diagonal().add_(self.shift)
        self.factor = torch.linalg.cholesky(gram)

    def scores(self, queries: Tensor) -> Tensor:
        """Return scores [Q, N] float64 for query features [Q, k]."""
        return torch.cat([block for _, block in self.score_blocks(queries)], 1)

    def score_blocks(self, queries: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield (slice of ids, scores [Q, n] float64) for query features [Q, k]."""
        wanted = queries.double().T
        if self.dual:
            products = torch.cat([rows @ wanted for _, rows in self._blocks()])
            solved = torch.cholesky_solve(products, self.factor).T
            yield from ((part, solved[:, part]) for part in parts_of(len(self.rows), self.rows.size))
        else:
            solved = torch.cholesky_solve(wanted, self.factor).T
            for part, rows in self._blocks():
                block = solved @ rows.T
                del rows
                yield part, block

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for part, rows in self.rows.blocks():
            yield part, rows.double()

    def _between_items(self) -> Tensor:
        """Return Phi Phi^T [N, N]."""
        gram = torch.empty(len(self.rows), len(self.rows), dtype=torch.float64)
        for part, rows in self._blocks():
            gram[part, part] = rows @ rows.T
            for other in parts_of(part.start, self.rows.size):
                gram[part, other] = rows @ self.rows.read(other).double().T
                gram[other, part] = gram[part, other].T
            del rows  # or two blocks would be held while the next one is read
        return gram

    def _between_features(self) -> Tensor:
        """Return Phi^T Phi [k, k], summed over blocks."""
        gram = None
        for _, rows in self._blocks():
            block = rows.T @ rows
            gram = block if gram is None else gram.add_(block)
            del rows, block
        assert gram is not None
        return gram


def kernel_bytes(n: int, k: int) -> int:
    """Return the bytes of a kernel of n items and k features beside their rows and a block of these.

    They are the Gram matrix and its factor, and where items are compared block by block the other block.
    """
    return 16 * min(n, k) ** 2 + (8 * block_rows(k) * k if block_rows(k) < n <= k else 0)
