"""What a dataset from outside promises: each broken promise is one line that says which."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.datasets.checks import check_dataset
from tdabench.errors import UserError

from .. import tiny

N = 6


def data(**changes):
    cond = {"class_labels": torch.arange(N) % 3, "encoder_hidden_states": torch.zeros(N, 2, 4)}
    null = {"encoder_hidden_states": torch.zeros(2, 4)}
    return replace(tiny.dataset(N), cond=cond, null=null, **changes)


def spoilt(value):
    images = tiny.images(N)
    images[4, 0, 2, 3] = value
    return images


def test_a_sound_dataset_passes():
    check_dataset(data(), "mine")
    check_dataset(data(images=tiny.images(N).sign()), "mine")


BAD = {
    "none": (None, "is a NoneType: its function must return an ImageDataset"),
    "nan": (data(images=spoilt(float("nan"))), "image 4 has values up to nan"),
    "infinite": (data(images=spoilt(-float("inf"))), "image 4 has values up to inf"),
    "bytes": (data(images=spoilt(255.0)), "image 4 has values up to 255"),
    "below": (data(images=spoilt(-1.01)), "image 4 has values up to 1.01"),
    "integers": (data(images=torch.zeros(N, 1, 8, 8, dtype=torch.uint8)), "torch.uint8: they must be"),
    "flat": (data(images=torch.zeros(N, 64)), r"\[6, 64\] torch.float32: they must be"),
    "empty": (tiny.dataset(N).select(torch.arange(0)), "has no images"),
    "classes-none": (data(classes=None), "has classes NoneType"),
    "classes-few": (data(classes=torch.arange(N - 1)), r"has classes \[5\] torch.int64"),
    "classes-float": (data(classes=torch.zeros(N)), "has classes .* torch.float32"),
    "cond-few": (replace(data(), cond={"a": torch.zeros(N - 1)}, null={}), r"6 images and a \[5\]"),
    "cond-list": (replace(data(), cond={"a": [1] * N}, null={}), "6 images and a list"),
    "cond-nan": (replace(data(), cond={"a": torch.full((N,), float("nan"))}, null={}), "a that are NaN"),
    "null-shape": (replace(data(), null={"encoder_hidden_states": torch.zeros(3, 4)}), r"is \[3, 4\], and .* \[2, 4\]"),
    "null-alone": (replace(data(), null={"b": torch.zeros(3)}), "not there"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_one_line(name):
    found, said = BAD[name]
    with pytest.raises(UserError, match=rf"dataset 'mine'.*{said}"):
        check_dataset(found, "mine")


def test_an_image_far_into_a_large_dataset_is_looked_at(monkeypatch):
    monkeypatch.setattr("tdabench.datasets.checks.CHUNK", 4)
    with pytest.raises(UserError, match="image 4 has"):
        check_dataset(data(images=spoilt(2.0)), "mine")
