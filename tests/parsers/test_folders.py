"""Folders that people bring: pictures with a metadata.jsonl, a pipeline's index, adapters, whatever is in them."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from tdabench.datasets.folders import list_pictures
from tdabench.models.pipelines import saved
from tdabench.models.pipelines.adapters import DIFFUSERS, PEFT, read_adapters

from .fuzz import changed, documents, many, parsed, texts, written

FILES = ["a.png", "b.png"]
LINES = [{"file_name": name, "text": f"a picture, {name}", "label": i} for i, name in enumerate(FILES)]
INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.35.1",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "vae": [None, None],
    "id2label": {"0": "cat, kitten", "1": "dog"},
}
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": False, "rank_pattern": {}}
LAYER = "base_model.model.mid.to_q"


@pytest.fixture
def pictures(tmp_path):
    for name in FILES:
        Image.new("L", (2, 2)).save(tmp_path / name)
    return tmp_path


def lines(separator: str = "\n") -> st.SearchStrategy[bytes]:
    each = [documents(line) | st.just(written(line, ascii_only=False)) for line in LINES]
    return st.tuples(*each).map(lambda found: separator.encode().join(found))


@given(lines() | lines("\r\n") | documents(LINES))
@many
def test_captions_and_labels_are_one_each_or_refused(pictures, data):
    (pictures / "metadata.jsonl").write_bytes(data)
    listed = parsed(list_pictures, pictures)
    if listed is not None:
        assert list(listed.paths) == FILES
        for column in (listed.captions, listed.groups):
            assert column is None or [type(text) for text in column] == [str, str]


@given(texts.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
@many
def test_a_caption_is_read_as_it_was_written(pictures, caption):
    found = [json.dumps({"file_name": name, "text": caption}, ensure_ascii=False) for name in FILES]
    (pictures / "metadata.jsonl").write_bytes("\n".join(found).encode())
    assert list_pictures(pictures).captions == (caption, caption)


@given(documents(INDEX))
@many
def test_an_index_names_classes_or_is_refused(tmp_path, data):
    (tmp_path / "model_index.json").write_bytes(data)
    index = parsed(saved._index, tmp_path)
    if index is not None:
        assert {"unet", "transformer"} & set(index)
        assert all(isinstance(index[name][1], str) for name in saved.READ & set(index))
        labels = parsed(saved._labels, tmp_path, index)
        assert labels is None or all(type(number) is int for number in labels.values())


@pytest.fixture
def adapters(tmp_path):
    tensors = {f"{LAYER}.lora_A.weight": torch.ones(2, 4), f"{LAYER}.lora_B.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / PEFT)
    return tmp_path


@given(documents(SETTINGS))
@many
def test_settings_of_adapters_are_a_scale_or_refused(adapters, data):
    (adapters / "adapter_config.json").write_bytes(data)
    found = parsed(read_adapters, adapters)
    assert found is None or (found.lora.rank == 2 and (found.lora.alpha is None or found.lora.alpha >= 0))


NAMES = (
    st.sampled_from([f"unet.{LAYER}.lora.down.weight", "unet.a.alpha", "x", ".weight", "unet..lora_A.weight"]) | texts
)


@given(st.dictionaries(NAMES.filter(str.isprintable), st.sampled_from([(2, 4), (4, 2), (), (1,)])), changed(SETTINGS))
@many
def test_tensors_of_adapters_are_of_one_rank_or_refused(tmp_path, shapes, beside):
    text = (
        written({f"unet.{name}": value for name, value in beside.items()}).decode()
        if isinstance(beside, dict)
        else "[]"
    )
    save_file(
        {n: torch.ones(shape) for n, shape in shapes.items()}, tmp_path / DIFFUSERS, {"lora_adapter_metadata": text}
    )
    found = parsed(read_adapters, tmp_path)
    assert found is None or {len(value) for n, value in found.weights.items() if ".lora_A." in n} == {found.lora.rank}
