"""Encoders for methods: which weights are meant, and that another one is another cell."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from tdabench.errors import UserError
from tdabench.methods.view import View
from tdabench.models.encoders.published import Unavailable
from tdabench.models.encoders.weights import find_weights, open_encode, random_convolution

from ... import run_helpers, tiny

home, tiny_home, tdabench = run_helpers.home, run_helpers.tiny_home, run_helpers.tdabench
ENCODES = """
ids = torch.arange(len(view.train))
encode = view.encoder('{name}')
scores = -torch.cdist(encode(queries.pixels), encode(view.train.pixels(ids)))
"""


def script(path, scale):
    class Shrink(torch.nn.Module):
        def forward(self, x):
            return x[:, :, ::64, ::64].flatten(1) * self.scale

    Shrink.__annotations__ = {"scale": float}
    model = Shrink()
    model.scale = scale
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        torch.jit.trace(model, torch.zeros(1, 3, 320, 320)).save(str(path))
    return path


def test_the_random_convolution_is_the_same_for_the_same_key_and_tells_images_apart():
    encode, images = open_encode("random-conv"), tiny.images(6)
    found = encode(images)
    assert found.shape == (6, 256) and found.dtype == torch.float32
    assert torch.equal(found, random_convolution("random-conv")(images))
    assert not torch.equal(found, random_convolution("another")(images))
    assert torch.cdist(found, found).fill_diagonal_(9).min() > 0.1
    assert encode(images.expand(-1, 3, -1, -1)).shape == (6, 256)


def test_the_random_convolution_is_a_convolution():
    filters = torch.randn(16, 1, 3, 3, generator=__import__("tdabench.seeds").seeds.torch_generator("encoder", "k", 1))
    image = tiny.images(1)
    padded, expected = torch.nn.functional.pad(image, (1, 1, 1, 1)), torch.zeros(16, 8, 8)
    for row in range(8):
        for column in range(8):
            window = padded[0, 0, row : row + 3, column : column + 3]
            expected[:, row, column] = (filters[:, 0] * window).sum((1, 2)).clamp(min=0)
    fields = expected.view(16, 4, 2, 4, 2).mean((2, 4)).flatten()
    torch.testing.assert_close(random_convolution("k")(image)[0], fields, rtol=1e-4, atol=1e-5)


def test_other_weights_are_other_encoders(tmp_path):
    one = find_weights("sscd", str(script(tmp_path / "a", 1.0)))
    same = find_weights("sscd", str(tmp_path / "a"))
    other = find_weights("sscd", str(script(tmp_path / "a", 2.0)))
    assert one == same and one.identity == same.identity and one.identity != other.identity
    assert one.source == str(tmp_path / "a") and find_weights("random-conv").source is None


@pytest.mark.parametrize(("name", "weights"), [("sscd", "/no/such/file.pt"), ("clip", "/no/such/folder")])
def test_weights_that_are_not_there_say_so(name, weights):
    with pytest.raises(Unavailable, match=f"{name}: no (file|folder) {weights}"):
        find_weights(name, weights)
    with pytest.raises(UserError, match="unknown encoder 'clipp'"):
        find_weights("clipp")


def test_a_view_has_no_encoder_that_was_not_declared(view: View):
    with pytest.raises(ValueError, match=r"declare needs = \('encoder',\) and encoders = \('clip',\)"):
        view.encoder("clip")


def encoding(folder, name, encoder):
    body = f"encoders = ({encoder!r},)"
    return run_helpers.plugin(folder, name, ENCODES.format(name=encoder), needs=("encoder",), body=body)


def row_of(folder, method):
    rows = [json.loads(path.read_text()) for path in (folder / "rows").rglob("*.json")]
    return next(row for row in rows if row["key"]["method"] == method)


def test_cells_are_given_their_encoders(home, tdabench, tmp_path, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)
    own = encoding(tmp_path, "embeds", "random-conv")
    published = encoding(tmp_path, "embeds-more", "sscd")
    results, plugins = tmp_path / "results", ("--plugin", own, "--plugin", published)
    words = ["run", "digits-tiny", "--methods", "embeds,embeds-more", "--results", results, *plugins]
    assert tdabench(*words).code == 0
    skipped = row_of(results, "embeds-more")
    assert row_of(results, "embeds")["status"] == "ok" and skipped["status"] == "skipped"
    assert "image encoder sscd, which is not given here: run it with --encoders sscd=" in skipped["reason"]
    assert tdabench(*words, "--encoders", "sscd=/no/such/file.pt").code == 0
    assert "no file /no/such/file.pt" in row_of(results, "embeds-more")["reason"]
    found = []
    for scale in (1.0, 2.0, None):
        path = tmp_path / f"{scale or 2.0}.pt"
        script(path, scale) if scale else None
        assert tdabench(*words, "--encoders", f"sscd={path}").code == 0
        row = row_of(results, "embeds-more")
        assert row["status"] == "ok", row
        found.append((row["diagnostics"]["identity"], row["source"]["scores_sha256"]))
    assert found[1] == found[2] and found[0][0] != found[1][0] and found[0][1] != found[1][1]


POWERS = """
    Params = make_dataclass('Params', [('power', float, 1.0)], frozen=True)
    presets = {'quick': Params()}
    search = {'power': (1.0, 2.0)}
    ablations = {'squared': {'power': 2.0}}"""


@pytest.mark.parametrize("command", ["tune", "ablate", "plan"])
def test_commands_that_plan_cells_give_them_encoders_too(command, home, tdabench, tmp_path, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)
    body = f"encoders = ('sscd',)\n{POWERS}"
    own = run_helpers.plugin(tmp_path, "powers", ENCODES.format(name="sscd"), needs=("encoder",), body=body)
    words = ["digits-tiny", "--plugin", own, *([] if command == "plan" else ["--results", tmp_path / "results"])]
    words = [command, *(["--methods"] if command == "plan" else []), "powers", *words]
    refused = tdabench(*words, "--encoders", "clipp")
    assert refused.code == 2 and "unknown encoder 'clipp'" in refused.err and not (tmp_path / "results").exists()
    answer = tdabench(*words, "--encoders", f"sscd={script(tmp_path / 'weights.pt', 1.0)}")
    assert answer.code == 0, answer.err
    if command != "plan":
        rows = [json.loads(path.read_text()) for path in (tmp_path / "results" / "rows").rglob("*.json")]
        assert [row["status"] for row in rows] == ["ok", "ok"], rows
