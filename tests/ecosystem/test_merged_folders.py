"""Folders of other libraries in, and a folder out that the same library loads: the merged function, nothing missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.discover.architectures import define_missing_operators

import isthmus
from isthmus.cli.main import invoke
from isthmus.merge import Configuration, merge_files

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

_TINY = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40,
}  # fmt: skip
_VIT = {
    "image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 12, "num_labels": 5,
}  # fmt: skip
MODELS = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_TINY, "num_key_value_heads": 1}),
    "tied": ("LlamaForCausalLM", "LlamaConfig", {**_TINY, "tie_word_embeddings": True}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}),
    "bert": ("BertForSequenceClassification", "BertConfig", {**_TINY, "max_position_embeddings": 32}),
    "vit": ("ViTForImageClassification", "ViTConfig", _VIT),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**_TINY, "num_local_experts": 4, "num_key_value_heads": 1}),
}
BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


@pytest.fixture(scope="module")
def transformers():
    define_missing_operators()
    return pytest.importorskip("transformers")


def folders(place: Path, name: str, transformers) -> list:
    """Two models of one architecture, one of them in shards, each with its tokenizer."""
    kind, config, settings = MODELS[name]
    kind, config = getattr(transformers, kind), getattr(transformers, config)(**settings)
    models = [kind(config), kind(config)]
    for model, where, size in zip(models, "ab", ("10KB", "1GB"), strict=True):
        model.save_pretrained(place / where, max_shard_size=size)
        for file in BESIDE:
            (place / where / file).write_text(json.dumps({"eos_token_id": 7}))
    return models


def answers(model, name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.rand(2, 1, 8, 8, generator=generator)
    if name != "vit":
        inputs = torch.randint(0, 40, (2, 7), generator=generator)
    with torch.no_grad():
        return model.eval()(inputs).logits


def middle(models: list):
    """The model half-way between two, by torch alone."""
    one, other = (model.state_dict() for model in models)
    merged = {
        key: ((value.double() + other[key].double()) / 2).to(value.dtype) if value.is_floating_point() else value
        for key, value in one.items()
    }
    model = type(models[0])(models[0].config)
    model.load_state_dict(merged)
    return model


def check(place: Path, models: list, name: str) -> None:
    assert (place / "config.json").is_file()  # without it transformers would build its default, of billions
    loaded, told = type(models[0]).from_pretrained(place, output_loading_info=True, local_files_only=True)
    assert not any(told.values())
    torch.testing.assert_close(answers(loaded, name), answers(middle(models), name), rtol=1e-5, atol=1e-6)
    for file in BESIDE:
        assert (place / file).read_bytes() == (place.parent / "a" / file).read_bytes()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["linear", "uniform_soup"])  # from disk to disk, and in memory
def test_a_merged_folder_is_loaded_and_computes_what_the_merge_should(tmp_path, transformers, name, method):
    models = folders(tmp_path, name, transformers)
    a, b, out = (str(tmp_path / where) for where in ("a", "b", "out"))
    assert invoke(["merge", a, b, "-m", method, "-o", out]) == 0
    check(tmp_path / "out", models, name)


def test_shards_that_are_written_have_an_index_that_is_read(tmp_path, transformers):
    models = folders(tmp_path, "mixtral", transformers)
    content = {
        "merge_method": "linear", "parameters": {"weight": 1},
        "models": [{"model": str(tmp_path / where)} for where in "ab"],
    }  # fmt: skip
    merge_files(Configuration.of(content), tmp_path / "out", shard_size=10_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("out/*.safetensors"))
    assert len(files) > 3
    assert sorted(set(index["weight_map"].values())) == [file.name for file in files]
    held = {file.name: isthmus.load(file) for file in files}
    assert index["weight_map"] == {name: file for file, tensors in held.items() for name in tensors}
    assert index["metadata"]["total_size"] == sum(t.nbytes for tensors in held.values() for t in tensors.values())
    check(tmp_path / "out", models, "mixtral")


def test_folders_of_torch_files_become_a_folder_of_safetensors(tmp_path, transformers):
    """Shards of pickles, as older models still lie on the hub; the precision stands in the configuration."""
    models = folders(tmp_path, "llama", transformers)
    for where in "ab":
        weights = isthmus.load(tmp_path / where)
        for file in (*(tmp_path / where).glob("*.safetensors"), *(tmp_path / where).glob("*.index.json")):
            file.unlink()
        files = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(weights)}
        for file in set(files.values()):
            torch.save({name: weights[name] for name in files if files[name] == file}, tmp_path / where / file)
        index = {"metadata": {}, "weight_map": files}
        (tmp_path / where / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    a, b = (str(tmp_path / where) for where in "ab")
    assert invoke(["merge", a, b, "-o", str(tmp_path / "out")]) == 0
    check(tmp_path / "out", models, "llama")
    assert invoke(["merge", a, b, "--dtype", "bfloat16", "-o", str(tmp_path / "half")]) == 0
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in isthmus.load(tmp_path / "half").values()} == {torch.bfloat16}


def test_a_folder_of_timm_is_merged_into_one(tmp_path):
    define_missing_operators()
    timm = pytest.importorskip("timm")
    models = [timm.create_model("test_vit", num_classes=5) for _ in "ab"]
    for where, model in zip("ab", models, strict=True):
        isthmus.save(model.state_dict(), tmp_path / where / "model.safetensors")
        torch.save(model.state_dict(), tmp_path / where / "pytorch_model.bin")
        content = {"architecture": "test_vit", "num_classes": 5, "pretrained_cfg": {"input_size": [3, 160, 160]}}
        (tmp_path / where / "config.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert invoke(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(out)]) == 0
    shutil.rmtree(tmp_path / "a")
    merged = isthmus.resolve(str(out))
    merged.load_state_dict(isthmus.load(out))
    expected = timm.create_model("test_vit", num_classes=5)
    one, other = (model.state_dict() for model in models)
    expected.load_state_dict({name: (tensor + other[name]) / 2 for name, tensor in one.items()})
    images = torch.rand(2, 3, 160, 160)
    torch.testing.assert_close(merged.eval()(images), expected.eval()(images))
