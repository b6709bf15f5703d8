"""D-TRAK: TRAK's kernel on gradients of an output function that is not the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, register
from .engines.features import FeatureParams, Features, Output
from .engines.kernel import GradientKernel
from .view import View


@dataclass(frozen=True)
class Params(FeatureParams):
    """Those of the features (the paper: 10 or 100 draws, k = 32768), and these.

    output: the attributed scalar; ``mean-square`` is the published code's mean of the squared noise prediction.
    damping: lambda relative to tr(kernel)/N; the paper sweeps an absolute one on the set it reports, and
    0.1 is `tdabench tune`'s choice on digits.
    """

    output: Output = "mean-square"
    damping: float = 0.1


class State(NamedTuple):
    """What makes features, and the factorised kernel of the training set's."""

    features: Features
    kernel: GradientKernel


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
        features = Features.of(view, self.params, self.params.output)
        return State(features, GradientKernel(features.of_training_set(view), self.params.damping))

    def attribute(self, view: View, state: State, queries: Queries) -> Tensor:
        """Return scores [Q, N]."""
        return state.kernel.scores(state.features.of_queries(view, queries)).float()

    def estimate(self, n_items: int, n_queries: int, n_parameters: int) -> Estimate:
        """One gradient per draw of every item and query; features in single and double precision, and their kernel."""
        features = self.params.estimate(n_items, n_queries, n_parameters, item_bytes=12)
        smaller = min(n_items, self.params.proj_dim or n_parameters)
        return replace(features, bytes=features.bytes + 8 * smaller**2)
