"""Autoencoders, and latent training sets: encoded once, fingerprinted by pixels and autoencoder, stored whole."""

from __future__ import annotations

import json
import resource
from dataclasses import replace

import pytest
import torch

from tdabench.datasets.queries import concatenate
from tdabench.datasets.truth import write_assets
from tdabench.errors import UserError
from tdabench.methods.pixel import Params, Pixel
from tdabench.methods.view import View
from tdabench.models import problem as problems
from tdabench.models.latents import Autoencoder, with_latents
from tdabench.models.problem import Problem, problem_files, query_list, read_problem
from tdabench.models.recipe import AutoencoderSpec, ModelSpec, Recipe
from tdabench.models.training import build, snapshot, train
from tdabench.store import FolderStore

from .. import tiny
from . import folders

N = 11
CODER = AutoencoderSpec("AutoencoderKL", folders.AUTOENCODER, scale=0.7, shift=0.1)
UNET = {**tiny.UNET, "sample_size": 4, "in_channels": 2, "out_channels": 2}
RECIPE = replace(tiny.RECIPE, model=ModelSpec("UNet2DModel", UNET, tiny.LINEAR, autoencoder=CODER))


@pytest.fixture(scope="module")
def coder():
    return Autoencoder(CODER, folders.autoencoder().state_dict())


@pytest.fixture(scope="module")
def data(coder):
    return with_latents(replace(tiny.dataset(N), images=folders.colours(N)), coder)


def queries_of(data):
    return replace(tiny.queries_of(data.x[:3]), images=data.images[:3])


def test_latents_are_the_mode_moved_and_scaled(coder, data):
    net = folders.autoencoder()
    with torch.no_grad():
        mode = net.encode(data.images).latent_dist.mode()
        tiny.assert_near(data.latents, (mode - 0.1) * 0.7, 1e-5)
        tiny.assert_near(coder.decode(data.latents), net.decode(mode).sample, 1e-5)
    assert data.latents.shape == (N, 2, 4, 4) and data.latents.dtype == torch.float32


def test_latents_do_not_depend_on_what_else_is_encoded(coder, data):
    for ids in ([10], [3, 1], list(range(9, -1, -1))):
        assert torch.equal(coder.encode(data.images[ids]), data.latents[ids])


def test_batches_hold_latents_and_pixels_are_images(data):
    ids = torch.tensor([4, 2])
    assert torch.equal(data.batch(ids).x, data.latents[ids]) and torch.equal(data.pixels(ids), data.images[ids])
    part = data.select(ids)
    assert torch.equal(part.x, data.latents[ids]) and torch.equal(part.pixels(torch.tensor([1])), data.images[[2]])


def test_the_fingerprint_is_of_pixels_null_and_autoencoder(coder, data):
    plain = replace(data, latents=None, encoder="")
    other = Autoencoder(replace(CODER, scale=0.8), coder.state)
    state = {**coder.state, "encoder.conv_in.bias": coder.state["encoder.conv_in.bias"] + 1e-3}
    variants = [data, plain, with_latents(plain, other), with_latents(plain, Autoencoder(CODER, state))]
    variants += [replace(plain, null={"text": torch.zeros(2)}), replace(plain, null={"text": torch.ones(2)})]
    assert len({variant.fingerprint() for variant in variants}) == len(variants)
    assert replace(data, latents=data.latents + 1e-6).fingerprint() == data.fingerprint()


def test_making_an_autoencoder_leaves_the_random_state_alone(coder):
    before = torch.get_rng_state()
    Autoencoder(CODER, coder.state)
    assert torch.equal(before, torch.get_rng_state())


def test_a_specification_survives_json():
    assert Recipe.from_json(json.loads(json.dumps(RECIPE.to_json()))) == RECIPE
    assert "autoencoder" not in tiny.RECIPE.to_json()["model"]


def test_pixel_similarity_is_of_pixels(data, coder, tmp_path):
    problem = Problem("latent", data, queries_of(data), RECIPE.model, {}, autoencoder=coder.state)
    scores = Pixel(Params("distance")).attribute(View(problem, tmp_path), None, problem.queries)
    expected = -torch.cdist(data.images[:3].double().flatten(1), data.images.double().flatten(1))
    torch.testing.assert_close(torch.cat([block for _, block in scores], 1).double(), expected, rtol=1e-5, atol=1e-5)


def test_queries_keep_their_images(data):
    queries = queries_of(data)
    assert torch.equal(queries.pick([2, 0]).pixels, data.images[[2, 0]])
    assert torch.equal(concatenate([queries, queries.pick([1])]).pixels, data.images[[0, 1, 2, 1]])
    assert torch.equal(tiny.queries_of(data.x[:1]).pixels, data.x[:1])
    with pytest.raises(ValueError, match="latents with images"):
        concatenate([queries, tiny.queries_of(data.x[:1])])


def test_a_latent_problem_trains_and_is_read_back(data, coder, tmp_path, monkeypatch):
    model, _ = train(RECIPE, data, torch.arange(N), seed=0)
    weights, queries = {RECIPE.steps: snapshot(model)}, queries_of(data)
    assert not torch.equal(weights[12]["conv_in.bias"], snapshot(build(RECIPE.model, 0))["conv_in.bias"])
    plain = replace(data, latents=None, encoder="")
    problem = Problem("latent", data, queries, RECIPE.model, weights, RECIPE, autoencoder=coder.state)
    meta = {"task": "latent", "version": 1, "n_train": N, "recipe": RECIPE.to_json(), "base_seed": 0}
    meta |= {"checkpoints": [12], "queries": query_list(queries, plain)}
    meta |= {"dataset": {"name": "blobs", "fingerprint": data.fingerprint()}}
    assets = write_assets(tmp_path / "assets", problem_files(problem, torch.arange(N)), meta)
    monkeypatch.setattr(problems, "load_dataset", lambda *_: plain)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    found = read_problem(assets.folder)
    assert torch.equal(found.train.x, data.latents) and torch.equal(found.queries.pixels, queries.images)
    assert torch.equal(found.pixels(found.train.x), coder.decode(data.latents))
    assert [path.suffix for path in (tmp_path / "latents").iterdir() if path.is_dir()] == []


def test_images_of_another_track_are_not_encoded(data, coder, tmp_path, monkeypatch):
    plain = replace(data, latents=None, encoder="")
    problem = Problem("latent", data, queries_of(data), RECIPE.model, {}, RECIPE, autoencoder=coder.state)
    meta = {"task": "latent", "version": 1, "n_train": N, "recipe": RECIPE.to_json(), "base_seed": 0}
    meta |= {"checkpoints": [], "queries": query_list(problem.queries, plain)}
    meta |= {"dataset": {"name": "blobs", "fingerprint": data.fingerprint()}}
    assets = write_assets(tmp_path / "assets", problem_files(problem, torch.arange(N)), meta)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    assert problems.built_on(assets, plain)
    monkeypatch.setattr(problems, "load_dataset", lambda *_: replace(plain, images=plain.images.flip(0)))
    with pytest.raises(UserError, match="are not those that"):
        read_problem(assets.folder)
    assert not (tmp_path / "home").exists()


SPOILS = {
    "flipped": lambda raw: raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
    "header": lambda raw: raw[:9] + bytes([raw[9] ^ 1]) + raw[10:],
    "truncated": lambda raw: raw[:-8],
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("how", SPOILS)
def test_kept_latents_that_were_damaged_are_named_and_made_again(how, coder, data, tmp_path, capsys):
    store, plain = FolderStore(tmp_path), replace(tiny.dataset(N), images=folders.colours(N))
    first = with_latents(plain, coder, store)
    expected = first.latents.clone()
    del first  # its memory is the file's
    path = next((tmp_path / "latents").glob("*.safetensors"))
    path.write_bytes(SPOILS[how](path.read_bytes()))
    again = with_latents(plain, coder, store)
    assert torch.equal(again.latents, expected)
    assert "is damaged: set aside as" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.f32*"))


def test_a_damaged_part_of_a_killed_encoding_is_made_again(coder, data, tmp_path, monkeypatch):
    store, plain = FolderStore(tmp_path), replace(tiny.dataset(N), images=folders.colours(N))
    expected = with_latents(plain, coder).latents
    with monkeypatch.context() as patch:
        patch.setattr("tdabench.models.latents._join", lambda *words: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            with_latents(plain, coder, store)
    part = next(tmp_path.rglob("*.f32"))
    part.write_bytes(SPOILS["flipped"](part.read_bytes()))
    assert torch.equal(with_latents(plain, coder, store).latents, expected)


def test_a_full_disk_is_one_line_and_the_encoding_goes_on_later(coder, data, tmp_path):
    store, plain = FolderStore(tmp_path), replace(tiny.dataset(N), images=folders.colours(N))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (data.latents.nbytes + 10, limits[1]))  # the part fits, with a header not
    try:
        with pytest.raises(UserError, match=r"cannot write .*safetensors: File too large; free space"):
            with_latents(plain, coder, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".f32", ".sha256"]
    assert torch.equal(with_latents(plain, coder, store).latents, data.latents)
