"""Encoder similarities on tiny local weights, against preprocessing by Pillow and models called by hand."""

import hashlib
import json
import socket
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips
import torchmetrics.image.lpip
import transformers
from PIL import Image
from scipy.spatial.distance import cosine

from tdabench.benchmark.metrics.removal import encoders
from tdabench.benchmark.metrics.removal.encoders import Unavailable, open_encoder
from tdabench.errors import UserError

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3


class Pool(torch.nn.Module):
    """Something like an encoder: eight vectors of its input, which see where in the image a colour is."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 5, stride=5)

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(self.conv(x).relu(), 2).flatten(1)


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


@pytest.fixture
def vgg(monkeypatch):
    """VGG-16's layers with random weights, in the place of torchvision, whose wheels do not fit every torch."""
    torch.manual_seed(4)
    layers, width = [], 3
    for size in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if size == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(width, size, 3, padding=1), torch.nn.ReLU(inplace=True)]
            width = size
    features = torch.nn.Sequential(*layers)

    def vgg16(weights=None, pretrained=False):  # torchmetrics 1.5 asks in the old way
        assert weights or pretrained
        return types.SimpleNamespace(features=features)

    vision = types.ModuleType("torchvision")
    vision.models = types.SimpleNamespace(vgg16=vgg16, VGG16_Weights=types.SimpleNamespace(DEFAULT="ImageNet"))
    monkeypatch.setitem(sys.modules, "torchvision", vision)
    monkeypatch.setattr(encoders, "LPIPS_SIDE", 64)  # for speed
    for module in (torchmetrics.image.lpip, torchmetrics.functional.image.lpips):
        monkeypatch.setattr(module, "_TORCHVISION_AVAILABLE", True)
    return features


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No name can be resolved, and nothing was downloaded before; returns the names that were asked for."""
    asked = []

    def lost(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lost)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
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


def test_lpips_is_one_minus_the_papers_distance(vgg):
    """Equation 1 of Zhang et al. (2018): squared differences of unit feature vectors, weighted, averaged, summed."""
    one, other = images(0, n=1), images(1, n=1)
    found = open_encoder("lpips")(one, other)
    shift, scale = (torch.tensor(x).view(1, 3, 1, 1) for x in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    a, b = (((2 * prepared(batch, 64, (0,) * 3, (1,) * 3) - 1) - shift) / scale for batch in (one, other))
    models = Path(torchmetrics.functional.image.lpips.__file__).parent / "lpips_models"
    layers = iter(torch.load(models / "vgg.pth", map_location="cpu", weights_only=True).values())
    distance = 0.0
    with torch.no_grad():
        for index, layer in enumerate(vgg):
            a, b = layer(a), layer(b)
            if index in (3, 8, 15, 22, 29):  # relu1_2, 2_2, 3_3, 4_3, 5_3
                units = [x / x.square().sum(1, keepdim=True).sqrt() for x in (a, b)]
                distance += float((next(layers) * (units[0] - units[1]).square()).sum(1).mean())
    assert distance > 1e-3
    np.testing.assert_allclose(found, [1 - distance], atol=1e-5)


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


@pytest.mark.parametrize(
    ("name", "package"), [("clip", "transformers"), ("dino", "transformers"), ("lpips", "torchvision")]
)
def test_a_missing_package_is_named_with_the_extra(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    message = unavailable(name, None if name == "lpips" else str(tmp_path))
    assert package in message and "pip install 'tdabench[encoders]'" in message


def test_a_torchvision_made_for_another_torch_is_told(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    message = unavailable("lpips")
    assert "torchvision::nms does not exist" in message and "made for this torch" in message


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


@pytest.mark.parametrize("name", ["clip", "dino", "sscd"])
def test_without_network_it_is_told_soon(name, offline):
    start = time.monotonic()
    assert "connect to the network once" in unavailable(name)
    assert offline  # it was tried
    assert time.monotonic() - start < 10


def test_without_network_what_was_downloaded_before_serves(offline, clip, tmp_path):
    repository = tmp_path / "hub" / "models--some--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (tmp_path / "clip").rename(repository / "snapshots" / ("0" * 40))
    found = open_encoder("clip", "some/clip")(images(0), images(1))
    expected = cosines(lambda x: clip(pixel_values=x).image_embeds, images(0), images(1), 24, HALF)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_silent_server_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/sscd_silent.pt"
        monkeypatch.setattr(encoders, "SSCD_URL", url)
        monkeypatch.setattr(encoders, "PATIENCE", 0.2)
        start = time.monotonic()
        assert "timed out" in unavailable("sscd")
        assert time.monotonic() - start < 4
    assert socket.getdefaulttimeout() is None


@pytest.fixture
def published(sscd, tmp_path, monkeypatch):
    """An SSCD to be downloaded, and the folder that downloads go to."""
    monkeypatch.setattr(encoders, "SSCD_URL", (tmp_path / "sscd").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "torch" / "checkpoints"


def test_sscd_is_downloaded_once_and_whole(published, sscd, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "SSCD_SHA256", hashlib.sha256((tmp_path / "sscd").read_bytes()).hexdigest())
    open_encoder("sscd")
    assert [path.name for path in published.iterdir()] == ["sscd"]
    (tmp_path / "sscd").unlink()
    found = open_encoder("sscd")(images(0), images(1))
    np.testing.assert_allclose(found, cosines(sscd, images(0), images(1), 320, IMAGENET), atol=1e-5)


def test_a_download_of_something_else_leaves_nothing_behind(published):
    assert "invalid hash value" in unavailable("sscd")
    assert not list(published.iterdir())
