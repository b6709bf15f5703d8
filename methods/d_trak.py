"""D-TRAK: TRAK's kernel on gradients of an output function that is not the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..datasets.queries import Queries
from ..models.draws import Draws, Law
from .base import Estimate, Method, register
from .engines.gradients import Output, Projector, per_sample_gradients, train_features
from .engines.kernel import GradientKernel
from .view import View


@dataclass(frozen=True)
class Params:
    """draws: levels per item, equally spaced over the training law (the paper: 10 or 100); proj_dim: k.

    output: the attributed scalar; ``mean-square`` is the published code's mean of the squared noise prediction.
    damping: lambda relative to tr(kernel)/N; the paper sweeps an absolute one on the set it reports, and
    0.1 is `tdabench tune`'s choice on digits.
    scope: whether noise is ``shared`` by all items or drawn per ``item``.
    """

    draws: int = 100
    proj_dim: int | None = 32768
    output: Output = "mean-square"
    damping: float = 0.1
    scope: Literal["shared", "item"] = "shared"


@dataclass(frozen=True)
class State:
    """The factorised kernel and what made its features."""

    kernel: GradientKernel
    draws: Draws
    projector: Projector


@register("d-trak")
class DTrak(Method):
    """phi_q (Phi^T Phi + lambda I)^-1 Phi^T with phi the projected gradient of mean |eps|^2 (arXiv 2311.00500).

    There is no first-order reason for the sign; it is the published one (see that paper's section 4).
    """

    needs = ("gradients",)
    signed = False
    citation = "Zheng et al., Intriguing Properties of Data Attribution on Diffusion Models, arXiv 2311.00500"
    Params = Params
    presets = {"paper": Params(), "quick": Params(draws=4, proj_dim=4096)}
    notes = {"paper": "damping relative to the kernel, not the paper's sweep", "quick": "4 draws and k = 4096"}
    search = {"damping": (0.001, 0.01, 0.1, 1.0, 10.0), "scope": ("shared", "item")}

    def fit(self, view: View) -> State:
        """Return the factorised kernel of the training gradients."""
        draws = view.draws(self.params.draws, Law("even"), self.params.scope)
        projector = Projector(self.params.proj_dim, view.seed)
        features = train_features(view, view.model(), draws, self.params.output, projector)
        return State(GradientKernel(features, self.params.damping), draws, projector)

    def attribute(self, view: View, state: State, queries: Queries) -> Tensor:
        """Return scores [Q, N]."""
        gradients = per_sample_gradients(view.model(), queries.batch, state.draws, self.params.output)
        return state.kernel.scores(state.projector(gradients).cpu()).float()

    def estimate(self, n_items: int, n_queries: int, n_parameters: int) -> Estimate:
        """One gradient per draw of every item and query; features and their kernel in memory."""
        width = self.params.proj_dim or n_parameters
        passes = (n_items + n_queries) * self.params.draws
        return Estimate(per_sample=passes, bytes=12 * n_items * width + 8 * min(n_items, width) ** 2)
