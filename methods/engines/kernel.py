"""The regularised gradient kernel that TRAK-like methods share, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


class GradientKernel:
    """phi_q (Phi^T Phi + lambda I)^-1 Phi^T for training features Phi [N, k].

    lambda = ``damping`` times tr(Phi Phi^T) / N, so that it means the same whatever the features' scale. Solved through
    the N x N Gram matrix where N <= k and the k x k one otherwise: equal in exact arithmetic (push-through identity),
    and in float64 stable for any damping > 0. Raises ValueError for damping <= 0.
    """

    def __init__(self, features: Tensor, damping: float) -> None:
        if damping <= 0:
            raise ValueError(f"damping must be positive, not {damping}")
        self.features = features.double()
        n, k = features.shape
        self.dual = n <= k
        gram = self.features @ self.features.T if self.dual else self.features.T @ self.features
        self.shift = damping * float(gram.trace()) / n
        gram.diagonal().add_(self.shift)
        self.factor = torch.linalg.cholesky(gram)

    def scores(self, queries: Tensor) -> Tensor:
        """Return scores [Q, N] float64 for query features [Q, k]."""
        if self.dual:
            return torch.cholesky_solve(self.features @ queries.double().T, self.factor).T
        return torch.cholesky_solve(queries.double().T, self.factor).T @ self.features.T
