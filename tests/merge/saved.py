"""Models saved in files and folders, and recipes that merge them."""

import json
from pathlib import Path

import torch

from isthmus.core.checkpoint import save
from isthmus.merge import Configuration

# Larger than one chunk of the streaming code, and a length that no chunk divides.
SHAPES = {"model.embed_tokens.weight": (530, 257), "model.layers.0.a.weight": (40, 33), "model.norm.weight": (257,),
          "model.layers.1.a.weight": (40, 33)}  # fmt: skip


def weights(seed: int, dtype: torch.dtype, *, around: dict | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in SHAPES.items():
        noise = torch.randn(shape, generator=generator)
        made[name] = (noise if around is None else around[name].float() + 0.1 * noise).to(dtype)
    return made | {"steps": torch.tensor(seed)}


def saved(folder: Path, dtype: torch.dtype) -> tuple[list[dict], dict]:
    base = weights(0, dtype)
    solutions = [weights(seed, dtype, around=base) for seed in (1, 2)]
    for name, content in zip("bxy", [base, *solutions], strict=True):
        save(content, folder / f"{name}.safetensors")
    return solutions, base


def recipe(folder: Path, method: str, *, each: dict | None = None, base: bool = True, **more) -> Configuration:
    models = [{"model": str(folder / f"{name}.safetensors"), "parameters": each or {}} for name in "xy"]
    content = {"merge_method": method, "models": models, **more}
    if base:
        content["base_model"] = str(folder / "b.safetensors")
    return Configuration.of(content)


def folder_of(path: Path, content: dict, *, tokens: str = "{}", shards: int = 1) -> Path:
    path.mkdir()
    names = list(content)
    if shards == 1:
        save(content, path / "model.safetensors")
    else:
        table = {}
        for place in range(shards):
            file = f"model-{place + 1:05}-of-{shards:05}.safetensors"
            save({name: content[name] for name in names[place::shards]}, path / file)
            table |= dict.fromkeys(names[place::shards], file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    (path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "vocab_size": 530}))
    (path / "generation_config.json").write_text('{"eos_token_id": 2}')
    (path / "tokenizer.json").write_text(tokens)
    (path / "optimizer.log").write_text("stays behind")
    return path
