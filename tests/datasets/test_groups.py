"""What items are grouped by, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.datasets.groups import group_items
from tdabench.errors import UserError

from .. import tiny


def data(**columns):
    return replace(tiny.dataset(6, cond={"class_labels": torch.tensor([7, 3, 3, 9, 7, 3])}), **columns)


@pytest.mark.parametrize("by", ["class_labels", "painter"])
def test_groups_are_the_columns_values_in_ascending_order(by):
    groups = group_items(data(groups={"painter": torch.tensor([7, 3, 3, 9, 7, 3])}), by)
    assert groups.names == ("3", "7", "9") and len(groups) == 3
    assert [groups.members(g).tolist() for g in range(3)] == [[1, 2, 5], [0, 4], [3]]


def test_classes_and_names_of_ones_own():
    groups = group_items(data(), "classes", ["even", "odd"])
    assert groups.names == ("even", "odd") and groups.assignment.tolist() == [0, 1, 0, 1, 0, 1]


def test_columns_are_selected_with_their_items_and_change_no_fingerprint():
    plain, with_column = data(), data(groups={"painter": torch.arange(6)})
    chosen = torch.tensor([4, 0])
    assert with_column.select(chosen).groups["painter"].tolist() == [4, 0]
    assert with_column.select(chosen).fingerprint() == plain.select(chosen).fingerprint()


@pytest.mark.parametrize(
    ("by", "names", "message"),
    [
        ("paintre", (), "did you mean 'painter'"),
        ("scores", (), "no integer per item"),
        ("texts", (), "no integer per item"),
        ("alike", (), "makes 1 group"),
        ("classes", ("a",), "makes 2 groups"),
        ("classes", ("a", "a"), "makes 2 groups"),
        ("classes", ("a", "b", "b"), "makes 2 groups"),
    ],
)
def test_what_makes_no_groups_is_a_users_mistake(by, names, message):
    columns = {
        "painter": torch.arange(6),
        "scores": torch.rand(6),
        "texts": torch.zeros(6, 2, dtype=torch.long),
        "alike": torch.ones(6, dtype=torch.long),
    }
    with pytest.raises(UserError, match=message):
        group_items(data(groups=columns), by, names)
