"""Real architectures at small size, for the slow suite and the table in the documentation.

Each entry makes a module with random weights and gives an example input; nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A named network and an example input."""

    name: str
    make: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)


_HELD: list[Any] = []


def define_missing_operators() -> None:
    """torchvision from the registry has no compiled operators here: two must exist before it can be imported."""
    with contextlib.suppress(RuntimeError):
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _HELD.append(library)


def torchvision_classifiers() -> list[Architecture]:
    """Every classifier of torchvision."""
    define_missing_operators()
    import torchvision

    def made(name: str) -> Callable[[], nn.Module]:
        options: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):
            options["image_size"] = side(name)
        if name == "maxvit_t":
            options["input_size"] = (side(name), side(name))
        return lambda: torchvision.models.get_model(name, weights=None, **options)

    def side(name: str) -> int:
        if name.startswith(("alexnet", "vgg")):
            return 224  # smaller ones are pooled *up* before the first dense layer, which adds symmetries
        return {"inception_v3": 96, "vit_h_14": 56, "maxvit_t": 224}.get(name, 64)

    return [
        Architecture(f"torchvision:{name}", made(name), (torch.zeros(1, 3, side(name), side(name)),))
        for name in torchvision.models.list_models(module=torchvision.models)
    ]


def timm_families() -> list[Architecture]:
    """One small model of each family of timm."""
    define_missing_operators()
    import timm

    def made(name: str, side: int | None) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            if side is not None:
                with contextlib.suppress(TypeError):  # networks of convolutions take any size and no such argument
                    return timm.create_model(name, pretrained=False, img_size=side)
            return timm.create_model(name, pretrained=False)

        return make

    small = (
        "test_",
        "atto",
        "femto",
        "pico",
        "nano",
        "_xxs",
        "xxtiny",
        "xtiny",
        "tiny",
        "_xs",
        "mini",
        "small",
        "_s0",
        "_b0",
        "18",
        "26",
    )
    result = []
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names:
            continue
        name = min(names, key=lambda n: (next((k for k, mark in enumerate(small) if mark in n), len(small)), len(n), n))
        said = timm.get_pretrained_cfg(name)
        shape = said.input_size if said is not None else (3, 224, 224)
        if said is not None and not said.fixed_input_size:
            # what is divided into blocks or patches needs a multiple of their size
            least = next((size for mark, size in (("halonet", 256), ("deepseek", 112)) if mark in name), 96)
            shape = (3, *(min(side, least) for side in (said.min_input_size or shape)[1:]))
        side = shape[1] if said is not None and shape != said.input_size else None
        result.append(Architecture(f"timm:{name}", made(name, side), (torch.zeros(1, *shape),)))
    return result


def hugging_face_configurations() -> list[Architecture]:
    """Small configurations of Hugging Face architectures."""
    define_missing_operators()
    import transformers as t

    ids = torch.arange(1, 9)[None].repeat(2, 1)
    sm: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
        "max_position_embeddings": 32,
    }
    plain: dict[str, Any] = {"use_cache": False}
    return [
        Architecture("bert", lambda: t.BertModel(t.BertConfig(**sm)), (ids,), {}),
        Architecture(
            "gpt2",
            lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32)),
            (ids,),
            plain,
        ),
        Architecture("llama", lambda: t.LlamaForCausalLM(t.LlamaConfig(**sm, num_key_value_heads=2)), (ids,), plain),
        Architecture("qwen2", lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**sm, num_key_value_heads=2)), (ids,), plain),
        Architecture(
            "qwen3", lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**sm, num_key_value_heads=2, head_dim=8)), (ids,), plain
        ),
        Architecture(
            "gemma", lambda: t.GemmaForCausalLM(t.GemmaConfig(**sm, num_key_value_heads=2, head_dim=8)), (ids,), plain
        ),
        Architecture(
            "gemma2",
            lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**sm, num_key_value_heads=2, head_dim=8)),
            (ids,),
            plain,
        ),
        Architecture(
            "mistral", lambda: t.MistralForCausalLM(t.MistralConfig(**sm, num_key_value_heads=2)), (ids,), plain
        ),
        Architecture(
            "mixtral",
            lambda: t.MixtralForCausalLM(t.MixtralConfig(**sm, num_key_value_heads=2, num_local_experts=4)),
            (ids,),
            plain,
        ),
        Architecture(
            "qwen3_moe",
            lambda: t.Qwen3MoeForCausalLM(
                t.Qwen3MoeConfig(
                    **sm,
                    num_key_value_heads=2,
                    num_experts=4,
                    num_experts_per_tok=2,
                    moe_intermediate_size=24,
                )
            ),
            (ids,),
            plain,
        ),
        Architecture(
            "gemma3",
            lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**sm, num_key_value_heads=2, head_dim=8)),
            (ids,),
            plain,
        ),
        Architecture("phi", lambda: t.PhiForCausalLM(t.PhiConfig(**sm)), (ids,), plain),
        Architecture(
            "t5",
            lambda: t.T5ForConditionalGeneration(
                t.T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=64)
            ),
            (),
            dict(input_ids=ids, decoder_input_ids=ids[:, :5], use_cache=False),
        ),
        Architecture(
            "bart",
            lambda: t.BartForConditionalGeneration(
                t.BartConfig(
                    d_model=32,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=4,
                    decoder_attention_heads=4,
                    encoder_ffn_dim=48,
                    decoder_ffn_dim=48,
                    vocab_size=64,
                    max_position_embeddings=32,
                )
            ),
            (),
            dict(input_ids=ids, decoder_input_ids=ids[:, :5], use_cache=False),
        ),
        Architecture(
            "whisper",
            lambda: t.WhisperForConditionalGeneration(
                t.WhisperConfig(
                    d_model=32,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=4,
                    decoder_attention_heads=4,
                    encoder_ffn_dim=48,
                    decoder_ffn_dim=48,
                    vocab_size=64,
                    num_mel_bins=8,
                    max_source_positions=16,
                    max_target_positions=16,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    decoder_start_token_id=1,
                    suppress_tokens=None,
                    begin_suppress_tokens=None,
                )
            ),
            (),
            dict(input_features=torch.randn(2, 8, 32), decoder_input_ids=ids[:, :5], use_cache=False),
        ),
        Architecture(
            "vit",
            lambda: t.ViTForImageClassification(
                t.ViTConfig(
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    image_size=16,
                    patch_size=4,
                )
            ),
            (torch.randn(2, 3, 16, 16),),
            {},
        ),
        Architecture(
            "swin",
            lambda: t.SwinForImageClassification(
                t.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
            ),
            (torch.randn(2, 3, 32, 32),),
            {},
        ),
        Architecture(
            "clip",
            lambda: t.CLIPModel(
                t.CLIPConfig(
                    text_config=dict(
                        hidden_size=32,
                        intermediate_size=48,
                        num_hidden_layers=1,
                        num_attention_heads=4,
                        vocab_size=64,
                        max_position_embeddings=32,
                        eos_token_id=2,
                    ),
                    vision_config=dict(
                        hidden_size=24,
                        intermediate_size=48,
                        num_hidden_layers=1,
                        num_attention_heads=4,
                        image_size=16,
                        patch_size=4,
                    ),
                    projection_dim=16,
                )
            ),
            (),
            dict(input_ids=ids, pixel_values=torch.randn(2, 3, 16, 16)),
        ),
        Architecture(
            "convnext",
            lambda: t.ConvNextForImageClassification(
                t.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
            ),
            (torch.randn(2, 3, 64, 64),),
            {},
        ),
        Architecture(
            "mamba",
            lambda: t.MambaForCausalLM(t.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=64, state_size=4)),
            (ids,),
            plain,
        ),
        Architecture(
            "distilbert",
            lambda: t.DistilBertModel(
                t.DistilBertConfig(
                    dim=32, hidden_dim=48, n_layers=2, n_heads=4, vocab_size=64, max_position_embeddings=32
                )
            ),
            (ids,),
            {},
        ),
        Architecture("albert", lambda: t.AlbertModel(t.AlbertConfig(**sm, embedding_size=16)), (ids,), {}),
        Architecture("electra", lambda: t.ElectraModel(t.ElectraConfig(**sm, embedding_size=16)), (ids,), {}),
        Architecture(
            "deberta",
            lambda: t.DebertaV2Model(t.DebertaV2Config(**sm, relative_attention=True, pos_att_type=["p2c", "c2p"])),
            (ids,),
            {},
        ),
        Architecture(
            "bloom",
            lambda: t.BloomForCausalLM(t.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=64)),
            (ids,),
            plain,
        ),
        Architecture("neox", lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**sm)), (ids,), plain),
        Architecture(
            "falcon",
            lambda: t.FalconForCausalLM(
                t.FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
            ),
            (ids,),
            plain,
        ),
        Architecture(
            "opt",
            lambda: t.OPTForCausalLM(
                t.OPTConfig(
                    hidden_size=32,
                    ffn_dim=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    vocab_size=64,
                    max_position_embeddings=32,
                    word_embed_proj_dim=32,
                )
            ),
            (ids,),
            plain,
        ),
        Architecture("olmo2", lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**sm)), (ids,), plain),
        Architecture("cohere", lambda: t.CohereForCausalLM(t.CohereConfig(**sm)), (ids,), plain),
        Architecture(
            "resnet",
            lambda: t.ResNetForImageClassification(
                t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
            ),
            (torch.randn(2, 3, 32, 32),),
            {},
        ),
        Architecture(
            "wav2vec2",
            lambda: t.Wav2Vec2Model(
                t.Wav2Vec2Config(
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=1,
                    num_attention_heads=4,
                    conv_dim=[16, 16],
                    conv_kernel=[10, 3],
                    conv_stride=[5, 2],
                    num_feat_extract_layers=2,
                    num_conv_pos_embeddings=4,
                    num_conv_pos_embedding_groups=2,
                )
            ),
            (torch.randn(2, 400),),
            {},
        ),
    ]
