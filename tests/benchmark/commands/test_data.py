"""The commands about datasets."""

from __future__ import annotations

import pytest

from tdabench.datasets import cifar10
from tdabench.store import FolderStore

from ... import run_helpers
from ...datasets import test_hub

tdabench, home, empty = run_helpers.tdabench, test_hub.home, test_hub.copy


@pytest.fixture
def copy(empty):
    return test_hub.parquet(empty, [(test_hub.png(i), i % 3) for i in range(6)])


def test_a_fetched_dataset_is_described(tdabench, copy):
    answer = tdabench("data", "info", "cifar10")
    assert answer.code == 0 and "tdabench data fetch cifar10" in answer.out and cifar10.CARD.revision in answer.out
    answer = tdabench("data", "fetch", "cifar10", "--data", copy)
    assert answer.code == 0 and "6 images here" in answer.out, answer
    answer = tdabench("data", "info", "cifar10")
    assert "6 of 3 x 32 x 32, 3 classes; conditions: class_labels" in answer.out
    assert cifar10.load().fingerprint() in answer.out.replace("\n", "")


def test_a_dataset_that_comes_with_a_package_is_described(tdabench):
    answer = tdabench("data", "info", "digits")
    assert answer.code == 0 and "1,797 of 1 x 8 x 8, 10 classes; conditions: none" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "cifr10"), "did you mean 'cifar10'?"),
        (("fetch", "cifr10"), "did you mean 'cifar10'?"),
        (("fetch", "digits"), "needs no fetching"),
        (("fetch", "cifar10", "--data", "nowhere"), "holds no parquet files"),
    ],
)
def test_mistakes_are_one_line(tdabench, words, said, home):
    answer = tdabench("data", *words)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1 and not answer.out, answer
    assert not list(home.glob("datasets/*"))


def test_two_at_once_do_not_mix(tdabench, copy, home):
    with FolderStore(home).claim("fetch-cifar10") as held:
        assert held
        answer = tdabench("data", "fetch", "cifar10", "--data", copy)
    assert answer.code == 2 and "another process is fetching cifar10" in answer.err
