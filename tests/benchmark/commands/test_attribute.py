"""The command attribute (docs/attribute.md, README.md) on a model that memorised images, and what people get wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import tdabench
from tdabench.benchmark.attribution.outputs import folder
from tdabench.benchmark.attribution.request import Request
from tdabench.benchmark.commands import attribute as command
from tdabench.benchmark.run.results import Results
from tdabench.errors import UserError

from ... import run_helpers

call = run_helpers.tdabench
N, PLANTED = 24, 2


DOCS = Path(__file__).parents[3] / "docs"
DOCS_TEXT = (DOCS / "attribute.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS_TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with what the example of the docs makes: a model that memorised two of its images."""
    folder = tmp_path_factory.mktemp("attribution")
    with chdir(folder):
        exec(EXAMPLES[0], {})
    return folder


@pytest.fixture
def tdabench_at(made, monkeypatch, call):
    """Call ``tdabench attribute`` on the model."""
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(made / "home"))
    monkeypatch.chdir(made)

    def attribute(*words, model="model", images="images"):
        return call("attribute", "--model", model, "--images", images, *words)

    return attribute


def top(out):
    """Return the files on top by picture and method."""
    with (out / "top.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["picture"], row["method"]): row["file"] for row in rows if row["rank"] == "1"}


COMMAND = re.search(r"^    tdabench (attribute --model model --images images .*) -o out$", DOCS_TEXT, re.MULTILINE)[1]
ASKED = shlex.split(COMMAND)[5:]
TOP, ENTRIES = 5, {"pixel:distance", "d-trak:quick"}


def test_planted_images_come_first_and_all_files_are_there(tdabench_at, made):
    answer = tdabench_at(*ASKED, "-o", "out")
    assert answer.code == 0, answer.err
    names = {f"{i:02d}.png": f"{N - PLANTED + i:02d}.png" for i in range(PLANTED)}
    found = top(made / "out")
    assert found == {(query, entry): item for query, item in names.items() for entry in ENTRIES}
    assert "00.png is itself among the training images, as 22.png" in answer.out
    assert "UNet2DModel of" in answer.out and "images: 24" in answer.out
    scores, report = load_file(made / "out" / "scores.safetensors"), json.loads((made / "out/report.json").read_text())
    assert set(scores) == ENTRIES and all(values.shape == (PLANTED, N) for values in scores.values())
    assert report["items"] == [f"{i:02d}.png" for i in range(N)]
    assert report["items"][int(scores["d-trak:quick"][0].argmax())] == names["00.png"]
    assert (made / "out" / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_again_runs_nothing_and_another_is_refused(tdabench_at, made, monkeypatch):
    tdabench_at(*ASKED, "-o", "out")
    before = (made / "out" / "scores.safetensors").read_bytes()
    monkeypatch.setattr("tdabench.benchmark.run.runner.Runner._start", lambda *a: pytest.fail("ran again"))
    assert tdabench_at(*ASKED, "-o", "out").code == 0
    assert (made / "out" / "scores.safetensors").read_bytes() == before
    again = tdabench_at(*ASKED, "--seed", "1", "-o", "out")
    assert again.code == 2 and "holds the answer to another request" in again.err


def test_what_failed_is_run_again(tdabench_at, made):
    words = ("--queries", "asked", "--methods", "pixel,d-trak", "--top", "2", "-o", "mended")
    assert tdabench_at(*words).code == 0
    results = Results(made / "home" / "attribution" / "results")
    for row in results.all_rows():
        if row.key.method == "pixel":
            results.write(row.model_copy(update={"status": "error", "reason": "a disk that failed", "cost": None}))
    answer = tdabench_at(*words)
    assert answer.code == 0 and "ok pixel:distance" in answer.out and "nothing to run" not in answer.out, answer
    assert {row.status for row in results.all_rows()} == {"ok"}


def test_other_pictures_take_the_features_of_the_first(tdabench_at, made):
    tdabench_at(*ASKED, "-o", "out")
    shutil.copytree(made / "images", made / "others", dirs_exist_ok=True)
    words = ["--queries", "others", "--top", "1", "--methods", "d-trak", "-o", "self"]
    assert tdabench_at(*words).code == 0
    rows = [
        json.loads(path.read_text()) for path in (made / "home" / "attribution" / "results").rglob("rows/**/*.json")
    ]
    kept = [row for row in rows if row["cost"]["n_queries"] == N and row["key"]["method"] == "d-trak"]
    assert len(kept) == 1 and [note["reused"] for note in kept[0]["diagnostics"]["kept"]] == [1]
    found = top(made / "self")
    assert np.mean([query == item for (query, _), item in found.items()]) > 0.9


class Page(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_can_be_used(tdabench_at, made):
    tdabench_at(*ASKED, "-o", "out")
    text = (made / "out" / "index.html").read_text()
    tags = Page(text).tags
    assert not re.search(r"""(src|href)=["']?(https?:)?//|<script|@import""", text) and len(text) < 5_000_000
    pictures = [attrs for tag, attrs in tags if attrs.get("role") == "img"]
    assert len(pictures) == PLANTED * (1 + len(ENTRIES) * TOP) and all(attrs["aria-label"] for attrs in pictures)
    shown = {name for attrs in pictures for name in attrs["class"].split() if re.fullmatch(r"[qt]\d+", name)}
    assert all(f".{name} {{ background-image: url(data:image/png;base64," in text for name in shown)
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert all(attrs["href"].removeprefix("#") in ids for tag, attrs in tags if tag == "a")
    assert "prefers-color-scheme: dark" in text and ("html", {"lang": "en"}) in tags
    assert any(attrs.get("name") == "viewport" for tag, attrs in tags if tag == "meta")


def test_names_are_text_on_the_page(tdabench_at, made):
    shutil.copytree(made / "asked", made / "odd", dirs_exist_ok=True)
    (made / "odd" / "00.png").rename(made / "odd" / "<b>&.png")
    words = ("--queries", "odd", "--top", "1", "--methods", "pixel", "-o", "odd-out")
    assert tdabench_at(*words).code == 0
    text = (made / "odd-out" / "index.html").read_text()
    assert "&lt;b&gt;&amp;.png" in text and "<b>&.png" not in text


def test_what_several_devices_share_is_said(tdabench_at, made):
    answer = tdabench_at(*ASKED, "--device", "cpu,cpu", "--seeds", "7", "--dry-run", "-o", "shared")
    assert answer.code == 0 and "2 devices share features of training images" in answer.out
    assert "on cpu alone, since they keep no features: pixel:distance" in answer.out and "cpu,cpu" in answer.out


def test_scores_of_several_seeds_have_a_spread(made, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(made / "home"))
    torch.set_num_threads(1)
    words = {"queries": made / "asked", "methods": ["d-trak", "pixel"], "top": 3, "jobs": 1}
    both = tdabench.attribute(made / "model", made / "images", seeds=(0, 1), **words)
    parts = [tdabench.attribute(made / "model", made / "images", seeds=(s,), **words).scores for s in (0, 1)]
    for entry in both.scores:
        stack = np.stack([part[entry] for part in parts])
        np.testing.assert_allclose(both.scores[entry], stack.mean(0), rtol=1e-6)
        np.testing.assert_allclose(both.spread[entry], stack.std(0, ddof=1), atol=1e-6)
    assert both.spread["d-trak:quick"].any() and not both.spread["pixel:distance"].any()


def test_generated_pictures_and_a_pipeline_object(made, monkeypatch):
    from diffusers import DDPMPipeline

    monkeypatch.setenv("TDABENCH_HOME", str(made / "home"))
    torch.set_num_threads(1)
    words = {"generate": 2, "seed": 3, "methods": ["pixel"], "top": 2}
    one = tdabench.attribute(str(made / "model"), made / "images", **words)
    other = tdabench.attribute(DDPMPipeline.from_pretrained(made / "model"), made / "images", **words)
    assert one.queries == ("generated-3-000", "generated-3-001")
    assert torch.equal(one.pictures, other.pictures) and not torch.equal(one.pictures[0], one.pictures[1])
    assert np.array_equal(one.scores["pixel:distance"], other.scores["pixel:distance"])


def test_the_example_of_the_docs_asks_about_what_the_model_makes(tdabench_at, capsys):
    exec(EXAMPLES[1], {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(ENTRIES) and all(line.count(".png") == TOP for line in lines)


def test_the_notebook_runs(tdabench_at, capsys):
    notebook = json.loads((DOCS / "attribute.ipynb").read_text(encoding="utf-8"))
    making, *cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert making.strip() == EXAMPLES[0].strip()  # which has run
    names = {"torch": torch, "Image": Image}
    for cell in cells:
        exec(cell, names)
    assert "d-trak:quick 00.png [('22.png'" in capsys.readouterr().out
    assert list(names["sheet"].shape) == [3, 4 * 8, 6 * 8]


# what people may get wrong: one line, and nothing written


MISTAKES = {
    "no pictures": ((), "which pictures are to be explained"),
    "both": (("--queries", "asked", "--generate", "1"), "and not both"),
    "no such method": (("--generate", "1", "--methods", "pxel"), "unknown method 'pxel': did you mean 'pixel'"),
    "no such preset": (("--generate", "1", "--methods", "pixel:x"), "unknown preset of 'pixel'"),
    "more than there are": (("--generate", "1", "--top", "99"), "--top 99 is more than the 24 training images"),
    "prompts": (("--generate", "1", "--prompt", "a dog"), "takes no prompts: leave --prompt out"),
    "no such queries": (("--queries", "nowhere"), "there is no folder nowhere"),
    "a size": (("--generate", "1", "--memory", "much"), "--memory 'much': write a size"),
    "a shortlist": (("--generate", "1", "--shortlist", "7"), "--shortlist 7 is fewer than the 20 images of --top"),
    "devices": (("--generate", "1", "--device", "cpu,cuda:99"), "--device cuda:99: (no CUDA device|there are)"),
    "a device": (("--generate", "1", "--device", "tpu"), "--device 'tpu' is no"),
    "no method can": (("--queries", "asked", "--methods", "ensemble"), "no method can run: ensemble:quick member"),
    "no adapters": (("--generate", "1", "--lora", "asked"), "holds neither adapter_model.safetensors nor"),
    "nonsense": (("--generate", "-2"), "--generate and --top must be 1 or more"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(tdabench_at, made, what):
    words, match = MISTAKES[what]
    answer = tdabench_at(*words, "-o", "never")
    assert answer.code == 2 and re.search(match, answer.err) and answer.err.count("\n") == 1
    assert not list(made.glob("*never*"))


@pytest.mark.parametrize(
    ("model", "images", "match"),
    [
        ("nowhere", "images", "there is no folder nowhere: name what save_pretrained wrote, or an id on the hub"),
        ("images", "images", "has neither model_index.json nor config.json"),
        ("model", "model/scheduler", "holds no image files"),
    ],
)
def test_no_model_or_images(tdabench_at, made, model, images, match):
    answer = tdabench_at("--generate", "1", "-o", "never", model=model, images=images)
    assert answer.code == 2 and match in answer.err and not list(made.glob("*never*"))


def test_an_id_that_the_hub_does_not_give_is_one_line(tdabench_at, monkeypatch):
    import diffusers

    def download(*args, **options):
        raise OSError("no network\nat all")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    answer = tdabench_at("--generate", "1", "-o", "never", model="somebody/something")
    assert answer.code == 2 and "cannot be had from the hub (OSError: no network at all)" in answer.err


def test_a_folder_with_other_things_is_left_alone(tdabench_at, made):
    (made / "mine").mkdir(exist_ok=True)
    (made / "mine" / "thesis.txt").write_text("years")
    answer = tdabench_at("--generate", "1", "-o", "mine")
    assert answer.code == 2 and "holds other things" in answer.err
    assert [path.name for path in (made / "mine").iterdir()] == ["thesis.txt"]


def test_an_answer_whose_replacing_was_killed_is_not_taken_for_none(tdabench_at, made):
    (made / ".lost.former").mkdir(exist_ok=True)
    (made / ".lost.former" / "report.json").write_text("{}")
    answer = tdabench_at("--generate", "1", "-o", "lost")
    assert answer.code == 2 and "lost holds the answer to another request" in answer.err


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", '{"request_hash": ', "\udcff"])
def test_a_report_that_is_none_is_of_another_request(text, tdabench_at, made):
    (made / "odd").mkdir(exist_ok=True)
    (made / "odd" / "report.json").write_bytes(text.encode(errors="surrogateescape"))
    answer = tdabench_at("--generate", "1", "-o", "odd")
    assert answer.code == 2 and "holds the answer to another request" in answer.err and answer.err.count("\n") == 1


def test_a_second_command_into_the_same_folder_gets_one_line(tdabench_at, made, monkeypatch):
    seen, write = [], command.write

    def meanwhile(answer, out):
        seen.append(tdabench_at(*ASKED, "--seed", "1", "-o", "same/../twice"))
        write(answer, out)

    (made / "same").mkdir(exist_ok=True)
    monkeypatch.setattr(command, "write", meanwhile)
    assert tdabench_at(*ASKED, "-o", "twice").code == 0
    (second,) = seen
    assert second.code == 2 and second.err.count("\n") == 1, second
    assert f"is answering into same/../twice (process {os.getpid()} on" in second.err
    monkeypatch.setattr(command, "write", write)
    assert tdabench_at(*ASKED, "-o", "twice").code == 0


def test_two_that_write_into_the_same_folder_both_end_whole(tdabench_at, made, monkeypatch):
    """As under two homes, which do not know of each other."""
    write, picture = folder.write, folder.write_png

    def meanwhile(*words):
        monkeypatch.setattr(folder, "write_png", picture)
        write(answers[0], made / "both")
        picture(*words)

    answers: list[Any] = []
    monkeypatch.setattr(command, "write", lambda answer, out: (answers.append(answer), write(answer, out)))
    monkeypatch.setattr(folder, "write_png", meanwhile)
    assert tdabench_at(*ASKED, "-o", "both").code == 0
    files = {path.name for path in (made / "both").iterdir()}
    assert files == {"index.html", "grid.png", "scores.safetensors", "top.csv", "report.json"}
    assert top(made / "both") and not list(made.glob(".both*"))


def test_an_answer_goes_where_a_link_leads_to(tdabench_at, made):
    (made / "place").mkdir()
    (made / "linked").symlink_to("place")
    answer = tdabench_at("--queries", "asked", "--methods", "pixel", "--top", "1", "-o", "linked")
    assert answer.code == 0 and (made / "place" / "index.html").is_file() and (made / "linked").is_symlink()


def test_the_folder_that_a_command_runs_in_is_not_replaced(tdabench_at, made, monkeypatch):
    (made / "here").mkdir()
    monkeypatch.chdir(made / "here")
    words = ("--queries", made / "asked", "--methods", "pixel", "--top", "1", "-o", ".")
    answer = tdabench_at(*words, model=made / "model", images=made / "images")
    assert answer.code == 2 and "is the folder that this command runs in" in answer.err, answer
    assert not list(made.glob("here/*"))


def test_prompts_and_labels_exclude_each_other():
    with pytest.raises(UserError, match="not both"):
        Request("m", "i", generate=1, prompts=("a",), labels=("b",)).check()
