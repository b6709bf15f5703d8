"""A problem of a request is read as it was stored, or made again."""

from __future__ import annotations

import numpy as np
import pytest

from tdabench.benchmark.attribution.problem import store, stored
from tdabench.datasets.truth import FIELDS, write_assets

MANIFEST = {name: {} for name in FIELDS} | {"task": "key", "version": 1, "queries": []}


@pytest.mark.parametrize("name", ["problem.safetensors", "manifest.json"])
def test_a_damaged_problem_is_named_and_made_again(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    made = []

    def write(path):
        made.append(path)
        return write_assets(path, [("problem.safetensors", {"x": np.arange(9.0)})], MANIFEST)

    first = stored("key", write)
    assert stored("key", write).manifest == first.manifest and len(made) == 1
    path = store().path(f"key/{name}")
    data = path.read_bytes()
    path.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    assert stored("key", write).manifest == first.manifest and len(made) == 2
    assert path.read_bytes() == data
    assert "is damaged: set aside as" in capsys.readouterr().err
