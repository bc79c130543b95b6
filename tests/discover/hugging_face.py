"""Small configurations of Hugging Face architectures, for the slow suite and the table in the documentation."""

from __future__ import annotations

from typing import Any

import torch
from tests.discover.architectures import Architecture, define_missing_operators


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
