"""Tasks: what one is, how it is found, and one file a task.

Who writes a task of their own takes from here what it is made of: ``from tdabench.benchmark.tasks import TaskSpec``.
"""

from ...models.recipe import AutoencoderSpec, LoRA, ModelSpec, Recipe, Sampler
from .spec import ExemplarPlan, GroupPlan, QueryPlan, RemovalPlan, TaskSpec, TruthPlan

__all__ = [
    "AutoencoderSpec",
    "ExemplarPlan",
    "GroupPlan",
    "LoRA",
    "ModelSpec",
    "QueryPlan",
    "Recipe",
    "RemovalPlan",
    "Sampler",
    "TaskSpec",
    "TruthPlan",
]
