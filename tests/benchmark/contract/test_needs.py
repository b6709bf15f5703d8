"""Every need that a method may declare is met: a probe for each passes every check, and none is skipped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.benchmark.contract.suite import check_method
from tdabench.benchmark.contract.tiny import BY_LABEL, BY_TEXT, LATENT, TWIN, TWINS, planted_ids, shuffled, tiny_problem
from tdabench.methods.base import NEEDS

torch.set_num_threads(1)

PROBE = '''
import torch
from tdabench.methods import Draws, Law, Method, per_sample_gradients, register


def features(view, at, batch, output="loss"):
    model, draws = view.model(at), view.draws(2, Law("even"))
    return torch.cat([per_sample_gradients(model, batch[i : i + 8], draws, output) for i in range(0, len(batch), 8)])


def pixels(view, queries):
    return view.by_id((part, view.train.pixels(torch.arange(48)[part]).flatten(1)) for part, _ in view.batches(16))


@register("{name}")
class Probe(Method):
    """Looks at what it needs, and tells images apart by their pixels besides."""

    {attributes}

    def attribute(self, view, state, queries):
        x = queries.x.flatten(1)
        out = view.by_id((part, -torch.cdist(batch.x.flatten(1), x)) for part, batch in view.batches(16)).T
        {body}
        return out
'''
SAME = "found = view.by_id((part, {}) for part, batch in view.batches(16))"
# Attributes, and what is done with what is needed; the scores start as minus the distance of the images.
PROBES = {
    "gradients": (
        "needs = ('gradients',)",
        SAME.format("features(view, 'final', batch)")
        + "\n        asked = features(view, 'final', queries.batch)"
        + "\n        out = torch.nn.functional.normalize(asked) @ torch.nn.functional.normalize(found).T",
    ),
    "checkpoints": (
        "needs = ('gradients', 'checkpoints')",
        "assert len(view.checkpoints) > 1"
        "\n        for step, rate in view.checkpoints:"
        "\n            part = torch.cat([features(view, step, b) for b in [view.train.batch(torch.arange(48))]])"
        "\n            asked = features(view, step, queries.batch)"
        "\n            norm = torch.nn.functional.normalize"
        "\n            out = out + rate * norm(asked) @ norm(part).T",
    ),
    "recipe": (
        "needs = ('recipe',)",
        "seen = torch.zeros(48)"
        "\n        for i in range(3): seen[view.training_step(i).ids] += 1"
        "\n        out = out + 1e-3 * seen"
        "\n        view.optimizer(view.model('untrained').parameters())",
    ),
    "encoder": (
        "needs = ('encoder',)\n    encoders = ('clip', 'random-conv')",
        "for name in self.encoders:"
        "\n            encode = view.encoder(name)"
        "\n            out = out - torch.cdist(encode(queries.pixels), encode(view.train.pixels(torch.arange(48))))",
    ),
    "cond": (
        "needs = ('cond',)",
        "model, draws = view.model(), view.draws(2, Law('even'))"
        "\n        with torch.no_grad():"
        "\n            losses = lambda batch: view.losses(model, batch, draws).mean(1)"
        "\n            found = view.by_id((part, losses(batch)) for part, batch in view.batches(16))"
        "\n            asked = losses(queries.batch)"
        "\n        out = out - (asked[:, None] - found).abs()",
    ),
    "trajectory": (
        "needs = ('trajectory',)\n    query_kinds = ('generated',)",
        "levels, x, end = view.trajectory(view.model(), queries)"
        "\n        assert len(levels) == len(x) and (levels.diff() > 0).all()"
        "\n        near = (end - queries.x).abs().max()"
        "\n        out = out / (1 + levels.std()) if near < 1e-4 else out * float('nan')",
    ),
    "stored-scores": (
        "needs = ('stored-scores',)\n    members = ('pixel', 'trak')",
        "out = out + sum(view.stored_scores[name](queries.ids) for name in self.members)",
    ),
    "open-truth": (
        "needs = ('open-truth',)",
        "masks, losses, asked = view.open_truth"
        "\n        found = torch.corrcoef(torch.cat([losses.T, masks.float().T]))"
        "\n        out = out + 1e-3 * found[: len(asked), len(asked) :].mean(0)",
    ),
    "generated-only": ("query_kinds = ('generated',)", "pass"),
    "external-only": ("query_kinds = ('external',)", "pass"),
    "conditional-trajectory": (
        "needs = ('trajectory', 'cond')\n    query_kinds = ('generated',)",
        "found, asked = view.train.cond, queries.cond"
        "\n        for name in found:"
        "\n            a, b = (cond[name].float().reshape(len(cond[name]), -1) for cond in (asked, found))"
        "\n            out = out - (torch.cdist(a, b) > 0).float()"
        "\n        assert (view.trajectory(view.model(), queries).end - queries.x).abs().max() < 1e-4",
    ),
}


def probe(folder, name, attributes, body):
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(PROBE.format(name=name, attributes=attributes, body=body))
    return path


def test_there_is_a_probe_for_every_need():
    assert set(NEEDS) <= set(PROBES)
    assert all(f"'{need}'" in PROBES[need][0] for need in NEEDS)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_passes_every_check_and_none_is_skipped(name, tmp_path):
    checks = check_method(probe(tmp_path, f"probe-{name}", *PROBES[name]))
    assert not [f"{check.name}: {check.detail}" for check in checks if check.status != "pass"]


LOSES = {
    "ignores": "pass",
    "reads": "assert view.train.cond and queries.cond",
}


@pytest.mark.parametrize("name", LOSES)
def test_a_method_that_loses_the_conditions_is_found(name, tmp_path):
    checks = check_method(probe(tmp_path, f"loses-{name}", "needs = ('cond',)", LOSES[name]))
    failed = {check.name: check.detail for check in checks if check.status == "fail"}
    assert list(failed) == ["other models"] and "swap their conditions" in failed["other models"]


SPOILS = {
    "null": "next(iter(view.train.null.values())).add_(1)",
    "latents": "view.train.latents.add_(1)",
    "base": "next(iter(view.problem.base.values())).add_(1)",
    "autoencoder": "next(iter(view.problem.autoencoder.values())).add_(1)",
}


@pytest.mark.parametrize("part", SPOILS)
def test_every_part_that_is_changed_in_place_is_found(part, tmp_path):
    from tdabench.benchmark.contract.subject import Subject
    from tdabench.methods import registry

    pytest.importorskip("peft")
    path = probe(tmp_path, f"spoils-{part}", "version = 1", SPOILS[part])
    cls = registry.method_class(f"spoils-{part}", (path,))
    subject = Subject(cls, registry.listings((path,))[f"spoils-{part}"], "quick")
    spec = BY_TEXT if part == "null" else LATENT
    outcome = subject.run([subject.last], source=lambda: subject.source(spec))
    assert outcome.error is None and len(outcome.changed) == 1, outcome


def test_without_peft_the_latent_twin_is_left_out_with_a_reason(tmp_path, monkeypatch):
    import sys

    from tdabench.benchmark.contract import tiny

    tiny._trained.cache_clear()
    monkeypatch.setitem(sys.modules, "peft", None)
    checks = check_method(probe(tmp_path, "without-peft", "version = 1", "pass"))
    assert {check.status for check in checks} == {"pass"}
    found = next(check.detail for check in checks if check.name == "other models")
    assert "not tried on adapters" in found and "LoRA needs peft" in found


@pytest.mark.parametrize("spec", TWINS.values(), ids=TWINS)
def test_a_twin_holds_copies_of_its_queries(spec):
    if spec is LATENT:
        pytest.importorskip("peft")
    for kinds, count in ((("heldout", "generated"), 3), (("generated",), 3), (("external",), 3)):
        problem = tiny_problem(0, spec, kinds)
        planted = planted_ids(problem)
        assert len(planted) == count and set(problem.queries.kinds) & set(kinds)
        for query, item in planted.items():
            row = problem.queries.ids.index(query)
            for name, value in problem.queries.cond.items():
                assert torch.equal(value[row], problem.train.cond[name][item])


def test_shuffled_conditions_are_the_same_ones_at_other_images():
    problem = tiny_problem(0, BY_LABEL)
    labels, moved = problem.train.cond["class_labels"], shuffled(problem).train.cond["class_labels"]
    assert torch.equal(labels.sort().values, moved.sort().values) and (labels != moved).float().mean() > 0.7
    assert torch.equal(problem.train.images, shuffled(problem).train.images)


def test_the_twins_are_of_different_kinds():
    specs = [replace(spec).recipe.model for spec in (TWIN, BY_LABEL, BY_TEXT, LATENT)]
    assert [spec.architecture for spec in specs] == [
        "UNet2DModel", "UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel",
    ]  # fmt: skip
    assert [spec.process.get("kind", "ddpm") for spec in specs] == ["ddpm", "ddpm", "edm", "edm"]
