"""What a method makes of its record, or damage does: no run ends by it, and no number of others comes from it."""

from __future__ import annotations

import json
import shutil

from ... import run_helpers
from ...run_helpers import plugin, record_of, run_cells

tiny_home, home = run_helpers.tiny_home, run_helpers.home
READS = "[read] = view.stored_scores.values()\nscores = read(queries.ids)"


def test_an_ensemble_takes_from_no_member_which_query_is_which(home, tmp_path):
    files = [plugin(tmp_path, "part"), plugin(tmp_path, "reads", READS, needs=("stored-scores",), members=("part",))]
    rows = run_cells(tmp_path / "results", ["part", "reads"], files)
    store = record_of(tmp_path / "results", rows["part"]).store
    spec = store.get_json("spec.json")
    spec["query_ids"].reverse()
    store.keep("spec.json", json.dumps(spec).encode())
    for folder in (tmp_path / "results").glob("*/*/reads@1"):
        shutil.rmtree(folder)
    again = run_cells(tmp_path / "results", ["part", "reads"], files)["reads"]
    assert again.metrics == rows["reads"].metrics
