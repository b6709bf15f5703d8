"""Attribution methods: the adapter contract, and what authors of adapters may import.

From here, other packages and plugin files take what they need: ``from tdabench.methods import Method, register``. These
names stay; everything else in tdabench is private and may move.

Method, register, NoParams, Scores              the contract (``base.py``)
Estimate, Sizes                                 what a cell will cost, and what that depends on
View, Batch, Queries, Groups, Denoiser          what an adapter is given
dataset, ImageDataset, Card                     a dataset of one's own: what loads it, is it, and describes it
image_folder                                    a folder of pictures as one
Law, Draws                                      noise levels, and draws of (log-SNR, noise) keyed by names
seeded                                          a context in which layers that take no generator draw by name
per_sample_gradients, named_gradients           gradients of an output function, one per image, by draw or averaged
Features, FeatureParams                         the same at draws that images and queries share, projected
Question, OUTPUTS                               what an output function gets beside answers; the three that have names
Rows                                            rows of the training set, read in blocks: ``view.kept`` makes them
Projector, GradientKernel                       random projection; the regularised kernel of TRAK-like methods
Unlearning, unlearn, null_loss, train_losses    a copy of the model that forgets a query; losses of all items
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..datasets.base import Batch, Card, ImageDataset
    from ..datasets.find import dataset
    from ..datasets.folders import image_folder
    from ..datasets.groups import Groups
    from ..datasets.queries import Queries
    from ..models.denoiser import Denoiser, Question
    from ..models.draws import Draws, Law
    from ..seeds import seeded
    from .base import Estimate, Method, NoParams, Scores, Sizes, register
    from .engines.features import OUTPUTS, FeatureParams, Features, named_gradients, per_sample_gradients
    from .engines.kernel import GradientKernel
    from .engines.projection import Projector
    from .engines.unlearning import Unlearning, null_loss, train_losses, unlearn
    from .rows import Rows
    from .view import View

# Imported when asked for: listing methods takes the registry from this package, and must not wait for torch.
_HOMES = {
    "..datasets.base": ("Batch", "Card", "ImageDataset"),
    "..datasets.find": ("dataset",),
    "..datasets.folders": ("image_folder",),
    "..datasets.groups": ("Groups",),
    "..datasets.queries": ("Queries",),
    "..models.denoiser": ("Denoiser", "Question"),
    "..models.draws": ("Draws", "Law"),
    "..seeds": ("seeded",),
    ".base": ("Estimate", "Method", "NoParams", "Scores", "Sizes", "register"),
    ".engines.features": ("OUTPUTS", "FeatureParams", "Features", "named_gradients", "per_sample_gradients"),
    ".engines.kernel": ("GradientKernel",),
    ".engines.projection": ("Projector",),
    ".engines.unlearning": ("Unlearning", "null_loss", "train_losses", "unlearn"),
    ".rows": ("Rows",),
    ".view": ("View",),
}
HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "OUTPUTS",
    "Batch",
    "Card",
    "Denoiser",
    "Draws",
    "Estimate",
    "FeatureParams",
    "Features",
    "GradientKernel",
    "Groups",
    "ImageDataset",
    "Law",
    "Method",
    "NoParams",
    "Projector",
    "Queries",
    "Question",
    "Rows",
    "Scores",
    "Sizes",
    "Unlearning",
    "View",
    "dataset",
    "image_folder",
    "named_gradients",
    "null_loss",
    "per_sample_gradients",
    "register",
    "seeded",
    "train_losses",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOME[name], __name__), name)
