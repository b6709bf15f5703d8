"""LoRA weights that peft and diffusers saved give the network that they were saved from."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tdabench.errors import UserError
from tdabench.models.pipelines.adapters import read_adapters
from tdabench.models.training import load

from .. import tiny
from . import folders

peft = pytest.importorskip("peft")
RANK, ALPHA = 2, 6
TARGETS = ["to_q", "to_v"]


@pytest.fixture(scope="module")
def adapted():
    """Return a network, one with adapters whose weights are all random, and an answer of it."""
    from diffusers import UNet2DConditionModel

    net = folders.seeded(1, UNet2DConditionModel, **folders.TEXT_UNET)
    plain = {name: value.clone() for name, value in net.state_dict().items()}
    net.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS))
    for i, (name, value) in enumerate(sorted(net.named_parameters())):
        if "lora_" in name:
            value.data = torch.randn(value.shape, generator=tiny.generator(i)) / 3
    return net.eval(), plain, answer(net)


def answer(net):
    x, times, text = (torch.randn(2, *shape, generator=tiny.generator(3)) for shape in ((2, 4, 4), (), (6, 8)))
    with torch.no_grad():
        return net(x, times.abs(), text).sample


def save(kind, net, folder):
    state = peft.utils.get_peft_model_state_dict(net)
    folder.mkdir()
    if kind == "peft":
        save_file({f"base_model.model.{n}": v for n, v in state.items()}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "r": RANK}))
    elif kind == "diffusers":
        from diffusers import StableDiffusionPipeline

        config = {"unet_lora_adapter_metadata": net.peft_config["default"].to_dict()}
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, **config)
    else:
        old = {f"unet.{n}".replace("lora_A", "lora.down").replace("lora_B", "lora.up"): v for n, v in state.items()}
        old |= {"unet.any.alpha": torch.tensor(float(ALPHA))}
        save_file(old, folder / "pytorch_lora_weights.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["peft", "diffusers", "old"])
def test_the_network_answers_as_the_one_that_was_saved(adapted, kind, tmp_path):
    from dataclasses import replace

    net, plain, expected = adapted
    found = read_adapters(save(kind, net, tmp_path / kind))
    assert found.lora.rank == RANK and found.lora.alpha == ALPHA
    spec = replace(tiny.SPECS["text"], config=folders.TEXT_UNET, trainable=found.lora)
    model = load(spec, found.weights, base=plain)
    torch.testing.assert_close(answer(model.net), expected)
    trained = {name.removeprefix("net.") for name in model.trainable_parameters()}
    assert trained == set(found.weights)


def spoil(folder, change):
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: (f / "pytorch_lora_weights.safetensors").unlink(), "holds neither adapter_model.safetensors nor"),
        (lambda f: (f / "pytorch_lora_weights.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda f: spoil(f, lambda t: {**t, "text_encoder.a.lora_A.weight": torch.ones(2, 2)}), "is no LoRA weight of"),
        (lambda f: spoil(f, lambda t: {**t, "unet.a.lora_A.weight": torch.ones(3, 2)}), "adapters of 2 ranks"),
    ],
)
def test_what_is_no_such_adapter_is_one_line(adapted, tmp_path, change, match):
    folder = save("old", adapted[0], tmp_path / "old")
    change(folder)
    with pytest.raises(UserError, match=match):
        read_adapters(folder)


def test_kinds_of_lora_that_are_not_plain_are_refused(adapted, tmp_path):
    folder = save("peft", adapted[0], tmp_path / "peft")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "use_dora": True}))
    with pytest.raises(UserError, match="adapters with use_dora: only plain LoRA"):
        read_adapters(folder)
