"""Encoder similarities on tiny local weights, against preprocessing by Pillow and models called by hand."""

import hashlib
import json
import socket
import sys
import time
import warnings
from pathlib import Path

import huggingface_hub.utils
import numpy as np
import pytest
import torch
import torchmetrics
import transformers
from PIL import Image
from scipy.spatial.distance import cosine
from torch.nn.functional import adaptive_avg_pool2d, conv2d, max_pool2d

from tdabench.errors import UserError
from tdabench.models.encoders import published as encoders
from tdabench.models.encoders.published import Unavailable, open_embedding, open_encoder, weight_files
from tdabench.store import file_hash

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3
VGG = ((0, 2), 64), ((5, 7), 128), ((10, 12, 14), 256), ((17, 19, 21), 512), ((24, 26, 28), 512)  # numbers and width


class Pool(torch.nn.Module):
    """Something like an encoder: eight vectors of its input, which see where in the image a colour is."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 5, stride=5)

    def forward(self, x):
        return adaptive_avg_pool2d(self.conv(x).relu(), 2).flatten(1)


def images(seed, channels=3, side=20, n=5):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def prepared(batch, side, mean, std):
    """Return images [n, 3, H, W] resized by Pillow and normalised, all in NumPy."""
    channels = [Image.fromarray(channel) for image in batch.numpy() for channel in image]
    resized = np.array([channel.resize((side, side), Image.Resampling.BICUBIC) for channel in channels])
    unit = (np.clip(resized.reshape(-1, 3, side, side), -1, 1) + 1) / 2
    normal = (unit - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return torch.tensor(normal, dtype=torch.float32)


def cosines(embed, one, other, side, colours):
    with torch.no_grad():
        vectors = [embed(prepared(batch, side, *colours)).numpy().astype(float) for batch in (one, other)]
    return np.array([1 - cosine(a, b) for a, b in zip(*vectors, strict=True)])


def save(model, folder):
    """Save without the bar, and shaken: fresh layers are near the identity and so hide what is left out."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    transformers.utils.logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    return model


@pytest.fixture
def clip(tmp_path):
    torch.manual_seed(1)
    config = transformers.CLIPVisionConfig(**SMALL, image_size=24, patch_size=8, projection_dim=6)
    return save(transformers.CLIPVisionModelWithProjection(config), tmp_path / "clip")


@pytest.fixture
def dino(tmp_path):
    torch.manual_seed(2)
    small = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = transformers.Dinov2Config(**small, image_size=28, patch_size=14)
    return save(transformers.Dinov2Model(config), tmp_path / "dino")


def save_script(model, path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        torch.jit.script(model.eval()).save(str(path))
    return model


@pytest.fixture
def sscd(tmp_path):
    torch.manual_seed(3)
    return save_script(Pool(), tmp_path / "sscd")


@pytest.fixture(scope="module")
def vgg_home(tmp_path_factory):
    """A home of torch.hub with random weights of VGG-16 under torchvision's names, and in the format of 2017."""
    torch.manual_seed(4)
    tensors, width = {"classifier.0.weight": torch.ones(2, 2)}, 3
    for numbers, size in VGG:
        for number in numbers:
            layer, width = torch.nn.Conv2d(width, size, 3), size
            torch.nn.init.kaiming_normal_(layer.weight)  # with less, all images are alike to the upper layers
            tensors |= {f"features.{number}.{name}": value.detach() for name, value in layer.named_parameters()}
    home = tmp_path_factory.mktemp("torch")
    (home / "checkpoints").mkdir()
    torch.save(tensors, home / "checkpoints" / "vgg16-397923af.pth", _use_new_zipfile_serialization=False)
    return home, tensors


@pytest.fixture
def vgg(vgg_home, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(vgg_home[0]))
    monkeypatch.setattr(encoders, "VGG_SHA256", file_hash(vgg_home[0] / "checkpoints" / "vgg16-397923af.pth"))
    monkeypatch.setattr(encoders, "LPIPS_SIDE", 32)  # for speed
    return vgg_home[1]


def set_offline_mode(monkeypatch, value):
    """As HF_HUB_OFFLINE does when huggingface_hub is imported; before 1.0 its open sessions keep the mode."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", value)
    getattr(huggingface_hub.utils, "reset_sessions", bool)()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No name can be resolved, and nothing was downloaded before; returns the names that were asked for."""
    asked = []

    def lost(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lost)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    set_offline_mode(monkeypatch, False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return asked


def test_clip_is_the_cosine_of_projected_embeddings(clip, tmp_path):
    one, other = images(0), images(1)
    found = open_encoder("clip", str(tmp_path / "clip"))(one, other)
    expected = cosines(lambda x: clip(pixel_values=x).image_embeds, one, other, 24, HALF)
    assert found.shape == (5,) and found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3  # images are told apart


def test_dino_is_the_cosine_of_class_tokens(dino, tmp_path):
    one, other = images(0, side=40), images(1, side=40)
    found = open_encoder("dino", str(tmp_path / "dino"))(one, other)
    expected = cosines(lambda x: dino(pixel_values=x).pooler_output, one, other, 28, IMAGENET)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


def test_sscd_is_the_cosine_of_the_scripted_models_output_at_320_pixels(sscd, tmp_path):
    one, other = images(0), images(1)
    found = open_encoder("sscd", str(tmp_path / "sscd"))(one, other)
    expected = cosines(sscd, one, other, 320, IMAGENET)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


def unit_features(vgg, batch):
    """Yield relu1_2, 2_2, 3_3, 4_3, 5_3 of images in [0, 1] as unit vectors of channels."""
    shift, scale = (torch.tensor(x).view(1, 3, 1, 1) for x in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x = ((2 * batch - 1) - shift) / scale
    for numbers, _ in VGG:
        for number in numbers:
            x = conv2d(x, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1).relu()
        yield (x / x.square().sum(1, keepdim=True).sqrt()).numpy().astype(float)
        x = max_pool2d(x, 2)


def test_lpips_is_one_minus_the_papers_distance(vgg):
    """Equation 1 of Zhang et al. (2018): squared differences of unit feature vectors, weighted, averaged, summed."""
    one, other = images(0, n=2), images(1, n=2)
    found = open_encoder("lpips")(one, other)
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    layers = torch.load(path, map_location="cpu", weights_only=True).values()
    features = (unit_features(vgg, prepared(batch, 32, (0,) * 3, (1,) * 3)) for batch in (one, other))
    parts = [(w.numpy() * (a - b) ** 2).sum(1).mean((1, 2)) for w, a, b in zip(layers, *features, strict=True)]
    assert np.min(parts) > 1e-3  # each layer counts
    np.testing.assert_allclose(found, 1 - np.sum(parts, 0), atol=1e-5)


def test_lpips_does_without_torchvision(vgg, monkeypatch, tmp_path):
    """PyPI's, beside a CPU build of torch."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    blank = torch.zeros(1, 1, 20, 20)
    assert float(open_encoder("lpips")(blank, blank)) == 1
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize("name", ["clip", "dino", "sscd"])
def test_what_every_similarity_promises(name, request, tmp_path, monkeypatch):
    request.getfixturevalue(name)
    compare = open_encoder(name, str(tmp_path / name))
    one, other = images(0), images(1)
    torch.testing.assert_close(compare(one, one), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(compare(one, other), compare(other, one))
    grey = images(2, channels=1)
    torch.testing.assert_close(compare(grey, other), compare(grey.expand(-1, 3, -1, -1), other))
    whole = compare(one, other)
    monkeypatch.setattr(encoders, "BATCH", 2)
    torch.testing.assert_close(compare(one, other), whole, atol=1e-6, rtol=0)
    assert not whole.requires_grad


def test_lpips_promises_the_same(vgg, monkeypatch):
    compare = open_encoder("lpips")
    one, other = images(0, channels=1, n=2), images(1, n=2)
    whole = compare(one, other)
    monkeypatch.setattr(encoders, "BATCH", 1)
    torch.testing.assert_close(compare(other, one.expand(-1, 3, -1, -1)), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(compare(other, other), torch.ones(2, dtype=torch.float64))


def test_a_whole_clip_serves_as_its_vision_half(tmp_path, capfd):
    """It is what the hub holds."""
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**SMALL, "image_size": 16, "patch_size": 8, "projection_dim": 6}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    model = save(transformers.CLIPModel(config), tmp_path / "whole")
    capfd.readouterr()
    found = open_encoder("clip", str(tmp_path / "whole"))(images(0), images(1))
    assert capfd.readouterr() == ("", "")  # no list of the text half's weights, no bar

    def embed(x):
        return model.visual_projection(model.vision_model(pixel_values=x).pooler_output)

    np.testing.assert_allclose(found, cosines(embed, images(0), images(1), 16, HALF), atol=1e-5)


@pytest.mark.parametrize("crop", [14, {"height": 14, "width": 14}])
def test_the_models_own_preprocessing_comes_first(dino, tmp_path, crop):
    said = {"crop_size": crop, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.7, 0.8, 0.9]}
    (tmp_path / "dino" / "preprocessor_config.json").write_text(json.dumps(said))
    found = open_encoder("dino", str(tmp_path / "dino"))(images(0), images(1))
    colours = said["image_mean"], said["image_std"]
    expected = cosines(lambda x: dino(pixel_values=x).pooler_output, images(0), images(1), 14, colours)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_weights_are_used_in_single(clip, tmp_path):
    clip.half().save_pretrained(tmp_path / "half")
    found = open_encoder("clip", str(tmp_path / "half"))(images(0), images(1))
    expected = cosines(lambda x: clip.float()(pixel_values=x).image_embeds, images(0), images(1), 24, HALF)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_unknown_name():
    with pytest.raises(UserError, match="unknown encoder 'dinov2': did you mean 'dino'"):
        open_encoder("dinov2")


def test_lpips_takes_no_weights():
    with pytest.raises(UserError, match=r"lpips takes no weights: put vgg16-397923af\.pth into"):
        open_encoder("lpips", "vgg.safetensors")


def unavailable(name, weights=None):
    with pytest.raises(Unavailable) as caught:
        open_encoder(name, weights)
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_a_missing_package_is_named_with_the_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = unavailable(name, str(tmp_path))
    assert "transformers" in message and "-e '.[encoders]'" in message


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_a_folder_that_is_not_there(name, tmp_path):
    message = unavailable(name, str(tmp_path / "nowhere"))
    assert "no folder" in message and "nowhere" in message and "config.json and model.safetensors" in message


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_a_folder_without_weights(name, request, tmp_path):
    request.getfixturevalue(name)
    (tmp_path / name / "model.safetensors").unlink()
    assert "model.safetensors" in unavailable(name, str(tmp_path / name))


def test_weights_of_another_model_are_not_filled_with_random_numbers(clip, dino, tmp_path):
    assert "holds no CLIPVisionModelWithProjection" in unavailable("clip", str(tmp_path / "dino"))
    unavailable("sscd", str(tmp_path / "clip" / "model.safetensors"))


def test_a_script_that_takes_no_images_is_refused_before_it_is_needed(tmp_path):
    save_script(torch.nn.Linear(2, 2), tmp_path / "linear")
    unavailable("sscd", str(tmp_path / "linear"))


def test_a_file_that_is_not_there():
    message = unavailable("sscd", "/no/such/file.pt")
    assert "/no/such/file.pt" in message and encoders.SSCD_URL in message


@pytest.mark.parametrize("name", ["clip", "dino", "sscd", "lpips"])
def test_without_network_it_is_told_soon(name, offline):
    start = time.monotonic()
    assert "connect to the network once" in unavailable(name)
    assert offline  # it was tried
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_in_offline_mode_the_variable_is_named(name, offline, monkeypatch):
    set_offline_mode(monkeypatch, True)
    assert "unset the `HF_HUB_OFFLINE` environment variable; connect to the network once" in unavailable(name)
    assert not offline


@pytest.mark.parametrize("mode", [False, True])
def test_without_network_what_was_downloaded_before_serves(mode, offline, clip, tmp_path, monkeypatch):
    set_offline_mode(monkeypatch, mode)
    repository = tmp_path / "hub" / "models--some--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (tmp_path / "clip").rename(repository / "snapshots" / ("0" * 40))
    found = open_encoder("clip", "some/clip")(images(0), images(1))
    expected = cosines(lambda x: clip(pixel_values=x).image_embeds, images(0), images(1), 24, HALF)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("name", "variable"), [("sscd", "SSCD_URL"), ("lpips", "VGG_URL")])
def test_a_silent_server_is_not_waited_for(name, variable, monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/silent.pt"
        monkeypatch.setattr(encoders, variable, url)
        monkeypatch.setattr(encoders, "PATIENCE", 0.2)
        start = time.monotonic()
        assert "timed out" in unavailable(name)
        assert time.monotonic() - start < 4
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def published(sscd, tmp_path, monkeypatch):
    """An SSCD to be downloaded, also in VGG-16's place, and the folder that downloads go to."""
    for variable in ("SSCD_URL", "VGG_URL"):
        monkeypatch.setattr(encoders, variable, (tmp_path / "sscd").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "torch" / "checkpoints"


def test_sscd_is_downloaded_once_and_whole(published, sscd, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "SSCD_SHA256", hashlib.sha256((tmp_path / "sscd").read_bytes()).hexdigest())
    open_encoder("sscd")
    assert [path.name for path in published.iterdir()] == ["sscd"]
    (tmp_path / "sscd").unlink()
    found = open_encoder("sscd")(images(0), images(1))
    np.testing.assert_allclose(found, cosines(sscd, images(0), images(1), 320, IMAGENET), atol=1e-5)


@pytest.mark.parametrize("name", ["sscd", "lpips"])
def test_a_download_of_something_else_leaves_nothing_behind(name, published):
    assert "invalid hash value" in unavailable(name)
    assert not list(published.iterdir())


@pytest.mark.parametrize(("name", "url"), [("sscd", encoders.SSCD_URL), ("lpips", encoders.VGG_URL)])
def test_a_file_in_its_place_that_is_not_the_published_one_is_refused(name, url, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / Path(url).name
    path.parent.mkdir()
    path.write_text("fifteen letters")
    said = f"{name}: {path} is not what was published (its hash differs): move it elsewhere"
    with pytest.raises(Unavailable) as caught:
        weight_files(name)
    assert str(caught.value).startswith(said) and unavailable(name).startswith(said)


def test_the_squared_distance_of_lpips_embeddings_is_lpips(vgg):
    one, other = images(0, n=2), images(1, n=2)
    embed = open_embedding("lpips")
    found = (embed(one) - embed(other)).double().square().sum(1)
    np.testing.assert_allclose(1 - found, open_encoder("lpips")(one, other), atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "dino", "sscd"])
def test_the_cosine_of_embeddings_is_the_similarity(name, request, tmp_path):
    request.getfixturevalue(name)
    one, other, weights = images(0), images(1), str(tmp_path / name)
    embed = open_embedding(name, weights)
    assert embed(one).dtype == torch.float32 and embed(one).ndim == 2
    found = torch.nn.functional.cosine_similarity(embed(one), embed(other), dim=1)
    np.testing.assert_allclose(found, open_encoder(name, weights)(one, other), atol=1e-5)
