"""The linear autoencoder of patches against scikit-learn's PCA, and where it stands in for one of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tdabench.errors import UserError
from tdabench.models.latents import Autoencoder
from tdabench.models.networks import make_network
from tdabench.models.patch_pca import fit_patch_pca
from tdabench.models.recipe import AutoencoderSpec


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(3 * 8 * 8, 3 * 8 * 8, generator=generator) / 14
    return (torch.randn(40, 3 * 8 * 8, generator=generator) @ mixing).view(40, 3, 8, 8)


def coder(images, channels):
    spec = AutoencoderSpec("PatchPCA", {"in_channels": 3, "patch": 4, "latent_channels": channels})
    return Autoencoder(spec, fit_patch_pca(images, 4, channels))


def patches_of(images):
    rows = [image[:, y : y + 4, x : x + 4].reshape(-1) for image in images for y in (0, 4) for x in (0, 4)]
    return torch.stack(rows).double().numpy()


def test_latents_are_whitened_principal_components(images):
    found = coder(images, 5).encode(images)
    assert found.shape == (40, 5, 2, 2)
    expected = PCA(5, whiten=True).fit_transform(patches_of(images))
    flat = found.movedim(1, -1).reshape(-1, 5).numpy()
    signs = np.sign((flat * expected).sum(0))
    np.testing.assert_allclose(flat, expected * signs, atol=1e-4)


def test_decoding_is_the_projection_on_the_components(images):
    pca, patches = PCA(5).fit(patches_of(images)), patches_of(images)
    expected = pca.inverse_transform(pca.transform(patches))
    decoded = coder(images, 5).decode(coder(images, 5).encode(images))
    np.testing.assert_allclose(patches_of(decoded), expected, atol=1e-5)


def test_all_components_lose_nothing_and_equal_images_give_equal_weights(images):
    whole = coder(images, 48)
    torch.testing.assert_close(whole.decode(whole.encode(images)), images, atol=1e-4, rtol=0)
    again, mirrored = fit_patch_pca(images.clone(), 4, 5), fit_patch_pca(-images, 4, 5)
    assert all(torch.equal(value, again[name]) for name, value in fit_patch_pca(images, 4, 5).items())
    torch.testing.assert_close(mirrored["components"], again["components"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_is_a_power_of_each_deviation_and_leaves_the_mean_square_at_one(images, whitening):
    weights = fit_patch_pca(images, 4, 5, whitening)
    deviations = torch.from_numpy(np.sqrt(PCA(5).fit(patches_of(images)).explained_variance_)).float()
    ratios = weights["scales"] / deviations**whitening
    torch.testing.assert_close(ratios, ratios[:1].expand(5), rtol=1e-4, atol=0)
    torch.testing.assert_close((deviations / weights["scales"]).square().mean(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_more_components_than_a_patch_has_are_refused():
    with pytest.raises(UserError, match="patches of 48 values have 1 to 48 components, and not 49"):
        make_network("PatchPCA", {"in_channels": 3, "patch": 4, "latent_channels": 49})
