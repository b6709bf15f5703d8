"""What docs/attribute.md says how to measure with 50,000 images runs, with fewer of them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import torch

from ... import run_helpers

call = run_helpers.tdabench
TEXT = (Path(__file__).parents[3] / "docs" / "attribute.md").read_text(encoding="utf-8")
(MAKING,) = re.findall(r"```python\n((?:(?!```).)*many.*?)```", TEXT, re.DOTALL)
(COMMAND,) = re.findall(r"^    tdabench (attribute .* --images many .*)$", TEXT, re.MULTILINE)
N = 40


def test_the_measured_request_is_one_that_runs(call, monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    exec(MAKING.replace("N = 50_000", f"N = {N}"), {})
    answer = call(*shlex.split(COMMAND))
    assert answer.code == 0, answer
    assert "UNet2DModel of 263,603" in answer.out and f"images: {N}" in answer.out
    report = json.loads((tmp_path / "measured" / "report.json").read_text())
    assert (
        report["costs"]["d-trak:quick"]["peak_rss_bytes"] > 0 and report["params"]["d-trak:quick"]["proj_dim"] == 4096
    )
