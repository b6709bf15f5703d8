"""Models under labels and captions, latent ones with adapters: what pictures are made under, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

import tdabench
from tdabench.benchmark.attribution.found import found
from tdabench.benchmark.attribution.opening import open_model
from tdabench.benchmark.attribution.problem import make
from tdabench.benchmark.attribution.request import Request
from tdabench.errors import UserError

from ...models import folders

N = 12
CAPTIONS = [["a dog", "a cab", "big cab"][i % 3] for i in range(N)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditions")
    folders.save_dit(folder / "dit")
    folders.save_stable_diffusion(folder / "sd")
    folders.save_ddpm(folder / "ddpm")
    save_adapters(folder / "sd", folder / "lora")
    folders.save_images(folder / "plain", folders.colours(N))
    folders.save_images(folder / "classes", folders.colours(N), groups=[str(i % 3) for i in range(N)])
    folders.save_images(folder / "captions", folders.colours(N), captions=CAPTIONS)
    return folder


def save_adapters(model, folder):
    """Save LoRA weights, all of them random, as diffusers does."""
    import diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = diffusers.UNet2DConditionModel.from_pretrained(model / "unet", use_safetensors=True)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    state = {
        name: torch.randn(value.shape, generator=torch.Generator().manual_seed(i))
        for i, (name, value) in enumerate(get_peft_model_state_dict(unet).items())
    }
    diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state)


@pytest.fixture(autouse=True)
def at_home(folder, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)


def test_pictures_are_made_under_labels_and_the_usual_guidance():
    made = make(Request("dit", "classes", generate=3, labels=("2", "0"), top=2))
    queries = made.problem().queries
    assert queries.cond["class_labels"].tolist() == [2, 0, 2] and queries.guidance.tolist() == [4.0] * 3
    assert found(made)["pictures"] == "3 generated from seed 0 under '2', '0', guidance 4"
    plain = make(Request("dit", "classes", generate=3, labels=("2", "0"), guidance=0.0, top=2)).problem().queries
    assert plain.guidance.tolist() == [0.0] * 3 and not torch.equal(plain.x, queries.x)


def test_adapters_alone_are_attributed_under_a_prompt():
    asked = {"lora": "lora", "prompts": ["big dog"], "methods": ["pixel", "grad-sim"], "top": 2, "jobs": 1}
    answer = tdabench.attribute("sd", "captions", generate=1, **asked)
    assert set(answer.scores) == {"pixel:distance", "grad-sim:quick"} and not answer.missing
    problem = answer.made.problem()
    trained = problem.model(problem.checkpoints[-1]).trainable_parameters()
    assert trained and all("lora_" in name for name in trained)
    encoder = open_model("sd").text
    assert encoder is not None
    assert torch.equal(problem.queries.cond["encoder_hidden_states"], encoder.encode(["big dog"]))
    about = found(answer.made)
    assert about["trained"].startswith("adapters of rank 2 alone") and "guidance 7.5" in about["pictures"]
    assert answer.pictures.shape == (1, 3, 8, 8)  # decoded


def test_given_pictures_take_captions_from_beside_or_from_prompts():
    beside = make(Request("sd", "captions", "captions", top=2)).problem().queries
    said = make(Request("sd", "captions", "plain", prompts=("a dog",), top=2)).problem().queries
    name = "encoder_hidden_states"
    # Texts in a batch of another size: sums may round otherwise, by the processor.
    torch.testing.assert_close(said.cond[name][1], beside.cond[name][0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(beside.cond[name][0], beside.cond[name][1], atol=0.01) and len(said) == N


def unsupported(folder):
    shutil.copytree("ddpm", "other", dirs_exist_ok=True)
    index = json.loads((folder / "other/model_index.json").read_text())
    (folder / "other/model_index.json").write_text(json.dumps({**index, "prior": ["diffusers", "PriorTransformer"]}))
    return Request("other", "plain", generate=1)


def other_class(folder):
    shutil.copytree("classes", "more", dirs_exist_ok=True)
    shutil.copytree("classes/1", "more/7", dirs_exist_ok=True)
    return Request("dit", "more", generate=1, top=1)


MISTAKES = {
    "captions missing": (lambda folder: Request("sd", "plain", generate=1), "has not a caption for every image"),
    "labels missing": (lambda folder: Request("dit", "plain", generate=1), "has no labels"),
    "a class too many": (other_class, "label 7, and the model's are 0 to 2"),
    "another label": (lambda folder: Request("dit", "classes", generate=1, top=1, labels=("cat",)), "is 'cat'"),
    "unsupported": (unsupported, "which has prior: supported are DDPMPipeline, DDIMPipeline"),
    "adapters of another": (lambda folder: Request("ddpm", "plain", generate=1, lora=folder / "lora"), "do not fit"),
    "queries nowhere": (lambda folder: Request("sd", "captions", "nowhere"), "there is no folder nowhere"),
    "too few": (lambda folder: Request("ddpm", "plain", generate=1, top=13), "more than the 12 training images"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_what_does_not_fit_is_one_line_before_any_problem_is_stored(folder, what, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(folder / "unused"))
    request, match = MISTAKES[what]
    with pytest.raises(UserError, match=match) as caught:
        make(request(folder))
    assert "\n" not in str(caught.value)
    assert not list((folder / "unused" / "attribution").rglob("manifest.json"))


def test_images_that_cannot_be_read_or_do_not_fit_are_counted_and_named(folder):
    shutil.copytree("plain", "mixed", dirs_exist_ok=True)
    (folder / "mixed" / "03.png").write_bytes(b"torn")
    Image.new("L", (20, 30)).save(folder / "mixed" / "05.png")
    lines = found(make(Request("ddpm", "mixed", "mixed", top=1)))
    changed = "1 resized and cut to the middle; 1 converted to the model's colours"
    assert lines["images"] == f"11; 1 left out that cannot be read: 03.png; {changed}"
    assert lines["pictures"] == "11 given; 1 left out that cannot be read: 03.png"


def test_no_memory_is_one_line(monkeypatch):
    def out(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("tdabench.benchmark.attribution.problem.training_items", out)
    with pytest.raises(UserError, match="out of memory while ddpm was read"):
        make(Request("ddpm", "plain", generate=1))
