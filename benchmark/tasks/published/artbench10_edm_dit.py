"""artbench10-edm-dit@1: MUCS' ArtBench-10 (arXiv 2605.17938): 50,000 artworks by style, a diffusion transformer, EDM.

From the authors' code (sony/mucs, a210019, artbench10_dit_edm): as ``cifar10-edm-dit``, at 64x64 pixels in patches of
4 (theirs: patches of 2 after a convolution that halves the picture), by one of ten styles, dropped for 10 % while
training, guidance 2; rate 2e-4, 250 epochs of 1,000 updates; the union of the targets' top 998 is removed.
"""

from dataclasses import replace

from ..spec import RemovalPlan
from .cifar10_edm_dit import TASK as CIFAR10

RECIPE = CIFAR10.recipe
SIZES = {"sample_size": 64, "patch_size": 4, "num_embeds_ada_norm": 10}  # and one more label, for none
TASK = replace(
    CIFAR10,
    name="artbench10-edm-dit",
    title="ArtBench-10 as MUCS has it: 64x64, diffusion transformer by style, EDM",
    dataset="artbench10",
    recipe=replace(
        RECIPE,
        model=replace(RECIPE.model, config={**RECIPE.model.config, **SIZES}, null={"class_labels": 10}),
        steps=250_000,
        learning_rate=2e-4,
        cond_drop=0.1,
    ),
    queries=replace(CIFAR10.queries, guidance=2.0),
    removal=RemovalPlan(top_share=998 / 50_000, seeds=3, per_query=1, per_query_shares=(0.02,)),
)
