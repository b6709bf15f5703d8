"""Saved pipelines as problems, against what diffusers computes from the same folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tdabench.datasets.base import ImageDataset
from tdabench.errors import UserError
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.methods.registry import method_class, preset_params
from tdabench.methods.view import View
from tdabench.models.draws import Law
from tdabench.models.pipelines.problem import problem_from_pipeline
from tdabench.models.recipe import LoRA
from tdabench.store import FolderStore

from .. import tiny
from . import folders

N = 6
CAPTIONS = ["a dog", "a cab", "big cab", "a dog", "no cab", "a fig"]
LABELS = ["0", "1", "2", "0", "1", "2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with one pipeline of each kind, and pictures for them."""
    home = tmp_path_factory.mktemp("saved")
    folders.save_ddpm(home / "ddpm", beta_schedule="squaredcos_cap_v2")
    folders.save_dit(home / "dit")
    folders.save_stable_diffusion(home / "sd")
    folders.save_images(home / "plain", folders.colours(N))
    folders.save_images(home / "classes", folders.colours(N), groups=LABELS)
    folders.save_images(home / "captions", folders.colours(N), captions=CAPTIONS)
    return home


IMAGES = {"ddpm": "plain", "dit": "classes", "sd": "captions"}
every_kind = pytest.mark.parametrize("kind", IMAGES)


def open_problem(home, kind, **options):
    return problem_from_pipeline(home / kind, home / IMAGES[kind], home / IMAGES[kind], **options)


def encoded(pipe, images):
    """Return latents as diffusers' training scripts make them, of the distribution's mode."""
    config = pipe.vae.config
    with torch.no_grad():
        return (pipe.vae.encode(images).latent_dist.mode() - (config.shift_factor or 0)) * config.scaling_factor


def embedded(pipe, captions):
    tokens = pipe.tokenizer(captions, padding="max_length", max_length=6, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return pipe.text_encoder(tokens.input_ids)[0]


def plain_errors(pipe, x, noise, timesteps, cond):
    """Return squared errors of the network's answers, by diffusers' add_noise and get_velocity."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    net = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    with torch.no_grad():
        answer = net(scheduler.add_noise(x, noise, timesteps), timesteps, **cond).sample[:, : x.shape[1]]
    kind = scheduler.config.prediction_type
    target = {"epsilon": noise, "sample": x, "v_prediction": scheduler.get_velocity(x, noise, timesteps)}[kind]
    return (answer - target).square().flatten(1).mean(1)


def found_and_plain(problem, folder, cond_of, view):
    """Return losses of the problem's model, and the same from diffusers alone."""
    from diffusers import DiffusionPipeline

    pipe, draws = DiffusionPipeline.from_pretrained(folder), view.draws(5, Law("even"), "item")
    found = view.losses(view.model(), problem.train.batch(torch.arange(N)), draws)
    levels, noise = draws.for_ids(range(N))
    x = encoded(pipe, problem.train.images) if hasattr(pipe, "vae") else problem.train.images
    rows = [
        plain_errors(pipe, x, noise[:, s], view.process.timesteps(levels[:, s]), cond_of(pipe)) for s in range(draws.n)
    ]
    return found, torch.stack(rows, 1)


COND = {
    "ddpm": lambda pipe: {},
    "dit": lambda pipe: {"class_labels": torch.tensor([0, 0, 1, 1, 2, 2])},  # in the order of the files' paths
    "sd": lambda pipe: {"encoder_hidden_states": embedded(pipe, CAPTIONS)},
}


@every_kind
def test_losses_are_those_of_diffusers(home, kind, tmp_path):
    problem = open_problem(home, kind)
    found, expected = found_and_plain(problem, home / kind, COND[kind], View(problem, tmp_path))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert problem.recipe is None and problem.queries.kinds == ("external",) * N


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_losses_of_what_a_scheduler_says_is_predicted(home, prediction, tmp_path):
    folder = folders.save_ddpm(tmp_path / "other", scheduler="DDIMScheduler", prediction_type=prediction)
    problem = problem_from_pipeline(folder, home / "plain")
    found, expected = found_and_plain(problem, folder, COND["ddpm"], View(problem, tmp_path))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len(problem.queries) == 0


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip_sample": False, "timestep_spacing": "trailing"},
        {"clip_sample_range": 0.5, "trained_betas": torch.linspace(0.001, 0.2, 40).tolist(), "num_train_timesteps": 40},
        {"thresholding": True, "clip_sample": False, "sample_max_value": 2.0},
    ],
)
def test_samples_are_those_of_the_ddim_pipeline(home, scheduler, settings, tmp_path):
    from diffusers import DDIMPipeline

    folder = folders.save_ddpm(tmp_path / "other", scheduler=scheduler, **settings)
    problem = with_steps(problem_from_pipeline(folder, home / "plain"), 7)
    pipe = DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 3, 8, 8, generator=tiny.generator(4))
    expected = numbers(pipe(2, tiny.generator(4), num_inference_steps=7, output_type="np").images)
    view = View(problem, tmp_path)
    tiny.assert_near(view.sample(view.model(), noise).clamp(-1, 1) / 2 + 0.5, expected, 1e-5)


def test_samples_are_those_of_the_dit_pipeline(home, tmp_path):
    from diffusers import DiTPipeline

    problem, pipe = with_steps(open_problem(home, "dit"), 6), DiTPipeline.from_pretrained(home / "dit")
    pipe.set_progress_bar_config(disable=True)
    expected = numbers(pipe([2, 0], 1.0, tiny.generator(4), num_inference_steps=6, output_type="np").images)
    noise, view = torch.randn(2, 2, 4, 4, generator=tiny.generator(4)), View(problem, tmp_path)
    latents = view.sample(view.model(), noise, {"class_labels": torch.tensor([2, 0])})
    tiny.assert_near(problem.pixels(latents).clamp(-1, 1) / 2 + 0.5, expected, 1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_samples_are_those_of_stable_diffusion(home, guidance, tmp_path):
    from diffusers import StableDiffusionPipeline

    problem, pipe = with_steps(open_problem(home, "sd"), 6), StableDiffusionPipeline.from_pretrained(home / "sd")
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 2, 4, 4, generator=tiny.generator(4))
    said = {"guidance_scale": guidance, "num_inference_steps": 6, "output_type": "latent"}
    expected = pipe(["a dog", "big cab"], latents=noise, **said).images
    view, cond = View(problem, tmp_path), {"encoder_hidden_states": problem.train.cond["encoder_hidden_states"][[0, 2]]}
    found = view.sample(view.model(), noise, cond, torch.full((2,), guidance))
    tiny.assert_near(found, expected, 1e-4)


def numbers(images):
    return torch.from_numpy(images).movedim(3, 1)


def with_steps(problem, steps):
    return replace(problem, spec=replace(problem.spec, sampler=replace(problem.spec.sampler, steps=steps)))


def test_the_null_class_of_dit_is_the_one_after_the_last(home, tmp_path):
    problem = with_steps(open_problem(home, "dit"), 2)
    view, noise = View(problem, tmp_path), torch.randn(1, 2, 4, 4, generator=tiny.generator())
    label, model, seen = {"class_labels": torch.tensor([1])}, view.model(), []
    view.sample(model, noise, label, torch.tensor([4.0]), on_step=lambda *step: seen.append(step))
    time, x, answer = seen[0]
    with torch.no_grad():
        plain, null = (model(x, torch.tensor(time), {"class_labels": torch.tensor([c])}) for c in (1, 3))
    tiny.assert_near(answer, null + 4 * (plain - null), 1e-5)


@every_kind
@pytest.mark.parametrize("name", ["pixel", "d-trak", "grad-sim"])
def test_methods_find_copies(home, kind, name, tmp_path):
    view = View(open_problem(home, kind), tmp_path)
    cls = method_class(name)
    method = cls(preset_params(cls, "quick"))
    scores = method.attribute(view, method.fit(view), view.problem.queries)
    if not isinstance(scores, torch.Tensor):
        scores = view.by_id((part, block.T) for part, block in scores).T
    assert scores.shape == (N, N) and torch.isfinite(scores).all()
    if name != "d-trak" or kind == "ddpm":
        assert (scores.argmax(1) == torch.arange(N)).sum() >= N - 1


# reading folders


def test_captions_and_classes_reach_the_conditions(home):
    text, classes = open_problem(home, "sd"), open_problem(home, "dit")
    embedding = text.train.cond["encoder_hidden_states"]
    assert embedding.shape == (N, 6, 8) and torch.equal(embedding[0], embedding[3])
    assert len(embedding.unique(dim=0)) == len(set(CAPTIONS))
    assert text.train.null["encoder_hidden_states"].shape == (6, 8)
    assert classes.train.cond["class_labels"].tolist() == [0, 0, 1, 1, 2, 2]  # in the order of their paths
    assert classes.queries.ids[:3] == ("0/00.png", "0/03.png", "1/01.png")


def test_images_are_those_of_the_files(home):
    problem = open_problem(home, "ddpm")
    torch.testing.assert_close(problem.train.images, folders.colours(N), rtol=0, atol=1e-6)
    assert torch.equal(problem.queries.x, problem.train.images)


def test_a_dataset_is_taken_as_it_is(home):
    images, labels = folders.colours(N), {"class_labels": torch.arange(N) % 3}
    data = ImageDataset(tiny.CARD, images, torch.arange(N), labels)
    problem = problem_from_pipeline(home / "dit", data, data.select(torch.tensor([3])))
    assert torch.equal(problem.train.images, images) and problem.queries.ids == ("query-000",)
    assert torch.equal(problem.queries.x[0], problem.train.latents[3]) and problem.queries.x.shape == (1, 2, 4, 4)
    assert torch.equal(problem.queries.pixels[0], images[3])


def test_a_network_alone_takes_its_process_from_beside_or_as_said(home, tmp_path):
    whole = open_problem(home, "ddpm")
    beside = problem_from_pipeline(home / "ddpm" / "unet", home / "plain")
    assert beside.spec == whole.spec
    alone = shutil.copytree(home / "ddpm" / "unet", tmp_path / "alone")
    with pytest.raises(UserError, match=r"has no scheduler_config\.json: save the scheduler too"):
        problem_from_pipeline(alone, home / "plain")
    said = problem_from_pipeline(alone, home / "plain", process={"kind": "flow"})
    assert said.spec.process == {"kind": "flow"} and said.weights[1].keys() == whole.weights[1].keys()


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_the_process_is_read_from_the_schedulers_of_other_samplers(home, scheduler, tmp_path):
    folder = folders.save_stable_diffusion(
        tmp_path / "sd", scheduler, settings={"beta_schedule": "scaled_linear", "steps_offset": 1}
    )
    problem = problem_from_pipeline(folder, home / "captions")
    assert problem.spec.process["beta_schedule"] == "scaled_linear" and not problem.spec.sampler.clip
    found, expected = found_and_plain(problem, folder, COND["sd"], View(problem, tmp_path))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_sizes_may_be_oblong_or_unsaid(tmp_path):
    wide = torch.nn.functional.pad(folders.colours(2), (0, 8))
    pictures = folders.save_images(tmp_path / "wide", wide)
    for i, size in enumerate([(8, 16), None]):
        folder = folders.save_ddpm(tmp_path / f"model{i}", {"sample_size": size})
        assert problem_from_pipeline(folder, pictures).train.images.shape == (2, 3, 8, 16)


def test_grey_images(tmp_path):
    folder = folders.save_ddpm(tmp_path / "grey", {"in_channels": 1, "out_channels": 1})
    pictures = folders.save_images(tmp_path / "pictures", folders.colours(2)[:, :1])
    assert problem_from_pipeline(folder, pictures).train.images.shape == (2, 1, 8, 8)


def test_class_names_are_the_pipelines_or_in_order_when_all_are_there(home, tmp_path):
    named = shutil.copytree(home / "dit", tmp_path / "named")
    edit("model_index.json", id2label={"0": "owl, bird", "1": "cat", "2": "dog"})(named)
    animals = folders.save_images(tmp_path / "animals", folders.colours(2), groups=["dog", "bird"])
    problem = problem_from_pipeline(named, animals)
    assert problem.train.cond["class_labels"].tolist() == [0, 2]
    synsets = folders.save_images(tmp_path / "synsets", folders.colours(3), groups=["n1", "n2", "n3"])
    query = folders.save_images(tmp_path / "query", folders.colours(1), groups=["n3"])
    assert problem_from_pipeline(home / "dit", synsets, query).queries.cond["class_labels"].tolist() == [2]
    with pytest.raises(UserError, match=r"which of the model's 3 classes is 'n3'\? Name subfolders by class number"):
        problem_from_pipeline(home / "dit", query)


def test_latents_are_kept_in_a_store(home, tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    first = problem_from_pipeline(home / "dit", home / "classes", store=store)
    assert len([key for key in store.keys("latents") if key.endswith(".safetensors")]) == 1
    monkeypatch.setattr("tdabench.models.latents.Autoencoder.encode", lambda *a: pytest.fail("encoded again"))
    again = problem_from_pipeline(home / "dit", home / "classes", store=store)
    assert torch.equal(first.train.latents, again.train.latents)


# what cannot be: one line


def refused(home, match, kind="ddpm", images=None, **options):
    with pytest.raises(UserError, match=match) as caught:
        problem_from_pipeline(
            kind if "/" in str(kind) else home / kind, home / IMAGES[kind] if images is None else images, **options
        )
    assert "\n" not in str(caught.value)


def broken(home, tmp_path, kind, change):
    folder = shutil.copytree(home / kind, tmp_path / "broken")
    change(folder)
    return folder


def edit(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def shrink(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.bias"]
    save_file(weights, path)


BROKEN = {
    "no such folder": ("ddpm", lambda f: shutil.rmtree(f), "neither model_index.json nor config.json"),
    "not JSON": ("ddpm", lambda f: (f / "model_index.json").write_text("{"), r"model_index\.json cannot be read"),
    "no JSON object": ("ddpm", lambda f: (f / "model_index.json").write_text("[]"), "is no JSON object"),
    "no network": ("ddpm", lambda f: shutil.rmtree(f / "unet"), "there is no folder .*unet: save the whole pipeline"),
    "no weights": (
        "ddpm",
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
        "unet cannot be read as UNet2DModel: .*diffusion_pytorch_model",
    ),
    "a weight missing": ("ddpm", shrink, r"lacks 1 weights, such as conv_in\.bias"),
    "no scheduler": ("ddpm", lambda f: shutil.rmtree(f / "scheduler"), "has no scheduler_config.json"),
    "no tokenizer": ("sd", lambda f: shutil.rmtree(f / "tokenizer"), "there is no folder .*tokenizer"),
    "no autoencoder": ("sd", lambda f: shutil.rmtree(f / "vae"), "there is no folder .*vae"),
    "unknown parts": (
        "sd",
        edit("model_index.json", text_encoder_2=["transformers", "CLIPTextModel"]),
        "which has text_encoder_2: supported are DDPMPipeline",
    ),
    "unknown network": (
        "ddpm",
        edit("model_index.json", unet=["diffusers", "UNet1DModel"]),
        "holds a 'UNet1DModel', and the networks known are",
    ),
    "no network named": ("ddpm", edit("model_index.json", unet=[None, None]), "which has no network: supported"),
    "more conditions": ("sd", edit("unet/config.json", time_cond_proj_dim=8), "wants more than text|lacks"),
    "flow": (
        "ddpm",
        lambda f: edit("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")(f),
        "which is no DDPM process with betas",
    ),
    "pure noise": ("ddpm", edit("scheduler/scheduler_config.json", rescale_betas_zero_snr=True), "zero_snr"),
    "other prediction": (
        "ddpm",
        edit("scheduler/scheduler_config.json", prediction_type="velocity"),
        "prediction_type must be one of epsilon, sample, v_prediction",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_no_supported_pipeline_is_one_line(home, tmp_path, what):
    kind, change, match = BROKEN[what]
    refused(home, match, broken(home, tmp_path, kind, change), home / IMAGES[kind])


def dataset(**changes):
    return replace(ImageDataset(tiny.CARD, folders.colours(N), torch.zeros(N)), **changes)


def spoiled():
    images = folders.colours(N)
    images[4, 0, 3, 3] = torch.nan
    return images


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("ddpm", {"images": spoiled()}, "number 4 has values up to nan"),
        ("ddpm", {"images": 255 * folders.colours(N)}, r"they must lie in \[-1, 1\]"),
        ("ddpm", {"images": torch.zeros(N, 3, 4, 8)}, "are 8 x 4 pixels of 3 channels, and .* takes 8 x 8 pixels of 3"),
        ("ddpm", {"images": torch.zeros(N, 1, 8, 8)}, "8 x 8 pixels of 1 channel, and"),
        ("ddpm", {"images": torch.zeros(0, 3, 8, 8)}, "there are no training images"),
        ("dit", {}, "have no class_labels, which this model takes"),
        ("dit", {"cond": {"class_labels": torch.arange(N)}}, "have the label 3, and the model's are 0 to 2"),
        ("dit", {"cond": {"class_labels": torch.zeros(2)}}, "the 6 training images have 2 class_labels"),
        ("sd", {"cond": {"encoder_hidden_states": torch.zeros(N, 6, 5)}}, r"must be finite \[N, L, 8\]"),
    ],
)
def test_images_that_do_not_fit_are_one_line(home, kind, changes, match):
    refused(home, match, kind, dataset(**changes))


def test_queries_must_fit_as_well(home):
    refused(home, "the queries are 8 x 4", queries=dataset(images=torch.zeros(N, 3, 4, 8)))


def write(name, data):
    def change(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def picture(name, mode, size):
    from PIL import Image

    return lambda folder: Image.new(mode, size).save(folder / name)


ROW = json.dumps({"file_name": "00.png", "text": "a"}).encode()
PICTURES = {
    "none": ("ddpm", lambda f: [path.unlink() for path in f.glob("*.png")], "holds no image files"),
    "not there": ("ddpm", lambda f: shutil.rmtree(f), "there is no folder"),
    "torn": ("ddpm", lambda f: (f / "01.png").write_bytes((f / "01.png").read_bytes()[:60]), "01.png cannot be read"),
    "no image": ("ddpm", write("02.png", b"hello"), "02.png cannot be read as an image"),
    "another size": ("ddpm", picture("03.png", "RGB", (9, 8)), "03.png is 9 x 8 pixels, and the model takes 8 x 8"),
    "grey": ("ddpm", picture("03.png", "L", (8, 8)), "03.png is an image of mode L, and the model takes RGB"),
    "see-through": ("ddpm", picture("03.png", "RGBA", (8, 8)), "mode RGBA"),
    "no captions": ("sd", lambda f: None, "has not a caption for every image"),
    "no labels": ("dit", lambda f: None, "has no labels, which this model takes"),
    "no line": ("sd", write("metadata.jsonl", ROW), "says nothing of 5 image files, such as 01.png"),
    "two lines": ("sd", write("metadata.jsonl", ROW + b"\n" + ROW), "line 2: '00.png' has a line already"),
    "no file": ("sd", write("metadata.jsonl", ROW.replace(b"00", b"99")), "line 1: there is no '99.png' beside it"),
    "no JSON": ("sd", write("metadata.jsonl", b"{"), "line 1: not JSON"),
    "no name": ("sd", write("metadata.jsonl", b"{}"), "line 1: there is no file_name"),
}


@pytest.mark.parametrize("what", PICTURES)
def test_a_folder_of_pictures_that_does_not_fit_is_one_line(home, tmp_path, what):
    kind, change, match = PICTURES[what]
    pictures = shutil.copytree(home / "plain", tmp_path / "pictures")
    change(pictures)
    refused(home, match, kind, pictures)


# a part of the parameters


@pytest.mark.parametrize("part", [r".*\.to_[qk]\.weight", "lora"])
def test_gradients_of_a_part_of_a_pipeline(home, part, tmp_path):
    if part == "lora":
        pytest.importorskip("peft")
    whole = open_problem(home, "sd")
    problem = open_problem(home, "sd", trainable=LoRA(2) if part == "lora" else part)
    view = View(problem, tmp_path)
    draws, batch = view.draws(2, Law("even")), problem.train.batch(torch.arange(2))
    assert torch.equal(view.losses(view.model(), batch, draws), whole_losses(whole, batch, draws))
    gradients = per_sample_gradients(view.model(), batch, draws, "loss")
    assert gradients.shape == (2, sum(value.numel() for value in problem.weights[1].values()))
    assert problem.base.keys() == whole.weights[1].keys() and gradients.abs().sum() > 0


def whole_losses(problem, batch, draws):
    return problem.model(1).losses(batch, draws)
