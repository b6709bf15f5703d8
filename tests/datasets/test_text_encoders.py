"""A dataset with captions is stored with the hashes of the text encoder that read them, so that another one shows."""

from __future__ import annotations

import pytest

from tdabench.models.encoders.published import HUB
from tdabench.store import file_hash

from .. import run_helpers
from ..models import folders
from . import test_hub, test_published

home, copy, call = test_hub.home, test_hub.copy, run_helpers.tdabench


@pytest.fixture
def pipeline(tmp_path):
    return folders.save_stable_diffusion(tmp_path / "pipeline")


@pytest.fixture
def artworks(copy, monkeypatch):
    test_published.small_artworks(monkeypatch)
    return test_published.artworks(copy)


def test_the_encoders_hash_is_on_the_card_of_what_is_stored(home, artworks, pipeline, call):
    assert call("data", "fetch", "artbench2", "--data", artworks, "--text", pipeline).code == 0
    weights = file_hash(pipeline / "text_encoder" / "model.safetensors")
    assert f"text encoder: model.safetensors, SHA-256 {weights}" in call("data", "info", "artbench2").out


def test_a_store_of_before_has_none_and_says_nothing_of_it(home, artworks, call):
    encode = test_published.hub.Encode(test_published.embed, {})
    test_published.artbench2.fetch(artworks, test_published.hub.ignore, encode)
    answer = call("data", "info", "artbench2")
    assert answer.code == 0 and "text encoder" not in answer.out


@pytest.mark.parametrize("name", ["artbench2", "artbench5", "coco"])
def test_a_card_names_the_encoder_of_the_authors(name):
    repository = "lambdalabs/miniSD-diffusers" if name != "coco" else " at ".join(HUB["clip"][:2])
    assert repository in test_published.card_of(test_published.dataset_listings()[name])["files"]
