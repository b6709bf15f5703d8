"""Devices and precisions: on a fake one every tensor must be where the network is; bf16 against float32."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tdabench.errors import UserError
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.models.draws import Draws, Law
from tdabench.models.precision import check_precision, set_precision
from tdabench.models.training import build, training_loss

from .. import tiny

FAKE = "lazy"  # a device that CPU builds know the name of, and nothing else
KINDS = ("plain", "label", "text")
LEVELS = {  # of which each process has its own buffers
    "ddpm": tiny.LINEAR,
    "v": {**tiny.LINEAR, "prediction_type": "v_prediction"},
    "edm": {"kind": "edm", "sigma_data": 0.5},
    "flow": {"kind": "flow"},
}


@contextmanager
def elsewhere(kind, process="ddpm"):
    """Yield a model on a device whose tensors have shapes and places but no values."""
    model = build(replace(tiny.SPECS[kind], process=LEVELS[process]), 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield model.to(FAKE)


def draws(model, n=3, scope="shared"):
    return Draws("test", n, Law("training"), scope, 0, tiny.SHAPE, model.process)


def test_the_fake_device_finds_what_lies_on_the_cpu():
    with elsewhere("plain") as model:
        assert model.device.type == FAKE
        with pytest.raises(RuntimeError, match="same device"):
            model(tiny.images(3), torch.zeros(3))


@pytest.mark.parametrize("process", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_outputs_are_computed_where_the_network_is(kind, process):
    with elsewhere(kind, process) as model:
        batch = tiny.batch_of(kind, 4)
        for scope in ("shared", "item"):
            losses = model.losses(batch, draws(model, scope=scope))
            assert losses.device.type == FAKE and losses.shape == (4, 3)
        outputs = model.outputs(batch, draws(model))
        assert outputs.device.type == FAKE and outputs.shape == (4, 3, *tiny.SHAPE)


@pytest.mark.parametrize("process", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_steps_are_taken_where_the_network_is(kind, process):
    with elsewhere(kind, process) as model:
        null = {name: value[0] for name, value in tiny.conditions(kind, 1).items()}
        model.null = null
        recipe = replace(tiny.RECIPE, model=model_spec(kind, process), cond_drop=0.5 if null else 0.0)
        loss = training_loss(model, tiny.batch_of(kind, 4), tiny.generator(), recipe)
        loss.backward()
        assert loss.device.type == FAKE and all(p.grad.device.type == FAKE for p in model.parameters())


def model_spec(kind, process):
    return replace(tiny.SPECS[kind], process=LEVELS[process])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_images_are_taken_where_the_network_is(kind):
    with elsewhere(kind) as model:
        found = per_sample_gradients(model, tiny.batch_of(kind, 3), draws(model), "loss")
        assert found.device.type == FAKE and len(found) == 3


# precision


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_computes_coarsely_and_answers_in_float32(kind):
    model, batch = tiny.denoiser(kind), tiny.batch_of(kind, 4)
    exact = model.outputs(batch, draws(model)).detach()
    model.precision = "bf16"
    for one in (model, model.clone()):
        found = one.outputs(batch, draws(model)).detach()
        error = float((found - exact).abs().max() / exact.abs().max())
        assert found.dtype == torch.float32 and 1e-5 < error < 0.05


def test_bf16_reaches_gradients_of_images():
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 3)
    exact = per_sample_gradients(model, batch, draws(model), "loss")
    model.precision = "bf16"
    found = per_sample_gradients(model, batch, draws(model), "loss")
    cosine = torch.nn.functional.cosine_similarity(found, exact)
    assert found.dtype == torch.float32 and (cosine > 0.98).all() and not torch.equal(found, exact)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_tf32_is_used_where_it_is_asked_for_and_nowhere_else(precision):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        set_precision(precision)
        asked = precision == "tf32"
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (asked, asked)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_precision_that_cannot_be_had_is_one_line(monkeypatch):
    assert check_precision("bf16", "cpu") == "bf16"
    with pytest.raises(UserError, match="'half' is none: use float32, tf32, bf16"):
        check_precision("half", "cpu")
    with pytest.raises(UserError, match="cpu has no TF32"):
        check_precision("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    with pytest.raises(UserError, match="an old card has no bfloat16"):
        check_precision("bf16", "cuda:0")
