"""D-TRAK: TRAK's kernel on gradients of an output function that is not the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ..datasets.queries import Queries
from .base import Estimate, Method, Sizes, register
from .engines.features import FeatureParams, Features, Output
from .engines.kernel import GradientKernel, kernel_bytes
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
    sign = "arbitrary"
    citation = "Zheng et al., Intriguing Properties of Data Attribution on Diffusion Models, arXiv 2311.00500"
    Params = Params
    presets = {"paper": Params(), "quick": Params(draws=4, proj_dim=4096)}
    notes = {"paper": "damping relative to the kernel, not the paper's sweep", "quick": "4 draws and k = 4096"}
    search = {"damping": (0.001, 0.01, 0.1, 1.0, 10.0), "scope": ("shared", "item")}

    def fit(self, view: View) -> State:
        """Return the factorised kernel of the training gradients."""
        features = Features.of(view, self.params, self.params.output)
        return State(features, GradientKernel(features.of_training_set(view), self.params.damping))

    def attribute(self, view: View, state: State, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield (ids, scores [Q, n]) blockwise."""
        for part, block in state.kernel.score_blocks(state.features.of_queries(view, queries)):
            yield part, block.float()

    def estimate(self, sizes: Sizes) -> Estimate:
        """One gradient per draw of every item and query; features and their kernel."""
        features = self.params.estimate(sizes)
        return replace(features, bytes=features.bytes + kernel_bytes(sizes.n_items, self.params.width(sizes)))
