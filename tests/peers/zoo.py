"""The table of architectures that export_models.py exports: tiny random configurations, their inputs and outputs."""
from types import SimpleNamespace

import torch
import transformers as t

from recurrent import Recurrent

VOCAB = 99
TEXT = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8)


def ids(generator, batch, seq):
    return torch.randint(3, VOCAB - 3, (batch, seq), generator=generator)


def text(generator, batch, seq):
    mask = torch.ones(batch, seq, dtype=torch.long)
    mask[-1, -2:] = 0
    return {"input_ids": ids(generator, batch, seq), "attention_mask": mask}


def only_ids(generator, batch, seq):
    return {"input_ids": ids(generator, batch, seq)}


def causal(generator, batch, seq):
    return {**text(generator, batch, seq), "use_cache": False}


def pair(generator, batch, seq):
    return {**text(generator, batch, seq), "decoder_input_ids": ids(generator, batch, seq - 2), "use_cache": False}


def image(generator, batch, seq):
    return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=generator)}


def image_text(generator, batch, seq):
    tokens = text(generator, batch, seq)
    tokens["input_ids"][:, -1] = VOCAB - 1
    return {**tokens, **image(generator, batch, seq)}


def siglip(generator, batch, seq):
    # SigLIP pools the last token: every text has the full length.
    return {"input_ids": ids(generator, batch, 16), **image(generator, batch, seq)}


def sound(generator, batch, seq):
    return {"input_values": torch.randn(batch, 400 + 40 * seq, generator=generator)}


def mel(generator, batch, seq):
    features = torch.randn(batch, 16, 60, generator=generator)
    return {"input_features": features, "decoder_input_ids": ids(generator, batch, seq), "decoder_attention_mask": torch.ones(batch, seq, dtype=torch.long), "use_cache": False}


def spectrum(generator, batch, seq):
    return {"input_values": torch.randn(batch, 40, 16, generator=generator)}


def layout(generator, batch, seq):
    corner = torch.randint(0, 40, (batch, seq, 2), generator=generator)
    extent = torch.randint(1, 40, (batch, seq, 2), generator=generator)
    return {**text(generator, batch, seq), "bbox": torch.cat([corner, corner + extent], -1)}


def esm(generator, batch, seq):
    return {"input_ids": torch.randint(4, 24, (batch, seq), generator=generator), "attention_mask": text(generator, batch, seq)["attention_mask"]}


def square(size):
    """Images of another size."""
    return lambda generator, batch, seq: {"pixel_values": torch.randn(batch, 3, size, size, generator=generator)}


def any_size(generator, batch, seq):
    """Images whose height and width are not those of the export."""
    return {"pixel_values": torch.randn(batch, 3, 32 + 16 * (batch - 2), 8 * seq - 8 * (batch - 2) - 16, generator=generator)}


def masked(generator, batch, seq):
    return {**image(generator, batch, seq), "noise": torch.rand(batch, 16, generator=generator)}


def steady(generator, batch, seq):
    """Text whose length is a multiple of four."""
    return text(generator, batch, seq + seq % 2 * 5)


def clap(generator, batch, seq):
    return {**text(generator, batch, seq), "input_features": torch.randn(batch, 1, 64, 16, generator=generator)}


BATCH = {0: "batch"}
DIMS = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "sequence"},
    "decoder_input_ids": {0: "batch", 1: "decoder_sequence"},
    "decoder_attention_mask": {0: "batch", 1: "decoder_sequence"},
    "pixel_values": BATCH,
    "input_values": {0: "batch", 1: "samples"},
    "input_features": BATCH,
    "bbox": {0: "batch", 1: "sequence"},
    "noise": BATCH,
}
# Inputs that are longer only in the batch, for these architectures.
BATCH_ONLY = ["siglip", "ast", "clap"]
HIDDEN, POOLED = "last_hidden_state", "pooler_output"
SEQ2SEQ = dict(vocab_size=VOCAB, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=40)
SOUND = dict(**TEXT, conv_dim=[16, 16], conv_stride=[5, 4], conv_kernel=[10, 8], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
CLIP_TEXT = {**TEXT, "max_position_embeddings": 32, "projection_dim": 16}
# name -> (class of the model, its configuration, inputs, outputs)
MODELS = {
    "roberta": (t.RobertaModel, lambda: t.RobertaConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "distilbert": (t.DistilBertModel, lambda: t.DistilBertConfig(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=4, hidden_dim=37, max_position_embeddings=40), text, [HIDDEN]),
    "albert": (t.AlbertModel, lambda: t.AlbertConfig(**TEXT, embedding_size=16, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "gpt2": (t.GPT2LMHeadModel, lambda: t.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40), causal, ["logits"]),
    "llama": (t.LlamaForCausalLM, lambda: t.LlamaConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40), causal, ["logits"]),
    "t5": (t.T5ForConditionalGeneration, lambda: t.T5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8, decoder_start_token_id=0), pair, ["logits", "encoder_last_hidden_state"]),
    "vit": (t.ViTModel, lambda: t.ViTConfig(**VISION), image, [HIDDEN, POOLED]),
    "resnet": (t.ResNetModel, lambda: t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"), image, [HIDDEN, POOLED]),
    "clip": (t.CLIPModel, lambda: t.CLIPConfig(text_config={**CLIP_TEXT, "eos_token_id": VOCAB - 1, "bos_token_id": 0, "pad_token_id": 1}, vision_config={**VISION, "projection_dim": 16}, projection_dim=16), image_text, ["logits_per_image", "text_embeds", "image_embeds"]),
    "whisper": (t.WhisperForConditionalGeneration, lambda: t.WhisperConfig(vocab_size=VOCAB, num_mel_bins=16, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_source_positions=30, max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1), mel, ["logits"]),
    "bert": (t.BertModel, lambda: t.BertConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "electra": (t.ElectraModel, lambda: t.ElectraConfig(**TEXT, embedding_size=16, max_position_embeddings=40), text, [HIDDEN]),
    "mpnet": (t.MPNetModel, lambda: t.MPNetConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "deberta-v2": (t.DebertaV2Model, lambda: t.DebertaV2Config(**TEXT, max_position_embeddings=40, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False, type_vocab_size=0), text, [HIDDEN]),
    "modernbert": (t.ModernBertModel, lambda: t.ModernBertConfig(**TEXT, max_position_embeddings=40, local_attention=4, global_attn_every_n_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2), text, [HIDDEN]),
    "qwen2": (t.Qwen2ForCausalLM, lambda: t.Qwen2Config(**TEXT, num_key_value_heads=2, max_position_embeddings=40, tie_word_embeddings=True), causal, ["logits"]),
    "qwen3": (t.Qwen3ForCausalLM, lambda: t.Qwen3Config(**TEXT, num_key_value_heads=2, head_dim=8, max_position_embeddings=40), causal, ["logits"]),
    "gemma": (t.GemmaForCausalLM, lambda: t.GemmaConfig(**TEXT, num_key_value_heads=1, head_dim=8, max_position_embeddings=40), causal, ["logits"]),
    "bart": (t.BartForConditionalGeneration, lambda: t.BartConfig(vocab_size=VOCAB, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=40), pair, ["logits", "encoder_last_hidden_state"]),
    "deit": (t.DeiTModel, lambda: t.DeiTConfig(**VISION), image, [HIDDEN, POOLED]),
    "beit": (t.BeitModel, lambda: t.BeitConfig(**VISION, use_relative_position_bias=True), image, [HIDDEN, POOLED]),
    "dinov2": (t.Dinov2Model, lambda: t.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=48, patch_size=8), image, [HIDDEN, POOLED]),
    "swin": (t.SwinModel, lambda: t.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2), image, [HIDDEN, POOLED]),
    "convnext": (t.ConvNextModel, lambda: t.ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2), image, [HIDDEN, POOLED]),
    "mobilenet-v2": (t.MobileNetV2Model, lambda: t.MobileNetV2Config(depth_multiplier=0.25, image_size=32), image, [HIDDEN, POOLED]),
    "segformer": (t.SegformerForSemanticSegmentation, lambda: t.SegformerConfig(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[2, 4], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=5), image, ["logits"]),
    "siglip": (t.SiglipModel, lambda: t.SiglipConfig(text_config={**TEXT, "max_position_embeddings": 16}, vision_config=VISION), siglip, ["logits_per_image", "text_embeds", "image_embeds"]),
    "wav2vec2": (t.Wav2Vec2Model, lambda: t.Wav2Vec2Config(**SOUND), sound, [HIDDEN]),
    # Decoders.
    "opt": (t.OPTForCausalLM, lambda: t.OPTConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=37, max_position_embeddings=40, word_embed_proj_dim=32), causal, ["logits"]),
    "bloom": (t.BloomForCausalLM, lambda: t.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4), causal, ["logits"]),
    "gpt-neo": (t.GPTNeoForCausalLM, lambda: t.GPTNeoConfig(vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], intermediate_size=37, window_size=4, max_position_embeddings=40), causal, ["logits"]),
    "gpt-neox": (t.GPTNeoXForCausalLM, lambda: t.GPTNeoXConfig(**TEXT, max_position_embeddings=40), causal, ["logits"]),
    "gptj": (t.GPTJForCausalLM, lambda: t.GPTJConfig(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40, rotary_dim=4), causal, ["logits"]),
    "codegen": (t.CodeGenForCausalLM, lambda: t.CodeGenConfig(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40, rotary_dim=4), causal, ["logits"]),
    "phi": (t.PhiForCausalLM, lambda: t.PhiConfig(**TEXT, max_position_embeddings=40), causal, ["logits"]),
    "phi3": (t.Phi3ForCausalLM, lambda: t.Phi3Config(**TEXT, num_key_value_heads=2, max_position_embeddings=40, original_max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2), causal, ["logits"]),
    "mistral": (t.MistralForCausalLM, lambda: t.MistralConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40, sliding_window=4), causal, ["logits"]),
    "gemma2": (t.Gemma2ForCausalLM, lambda: t.Gemma2Config(**TEXT, num_key_value_heads=2, head_dim=8, max_position_embeddings=40, sliding_window=4), causal, ["logits"]),
    "gemma3": (t.Gemma3ForCausalLM, lambda: t.Gemma3TextConfig(**TEXT, num_key_value_heads=2, head_dim=8, max_position_embeddings=40, sliding_window=4), causal, ["logits"]),
    "falcon": (t.FalconForCausalLM, lambda: t.FalconConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40), causal, ["logits"]),
    "stablelm": (t.StableLmForCausalLM, lambda: t.StableLmConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0), causal, ["logits"]),
    "starcoder2": (t.Starcoder2ForCausalLM, lambda: t.Starcoder2Config(**TEXT, num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2), causal, ["logits"]),
    "cohere": (t.CohereForCausalLM, lambda: t.CohereConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2), causal, ["logits"]),
    "granite": (t.GraniteForCausalLM, lambda: t.GraniteConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40), causal, ["logits"]),
    "olmo": (t.OlmoForCausalLM, lambda: t.OlmoConfig(**TEXT, max_position_embeddings=40, pad_token_id=0, eos_token_id=2), causal, ["logits"]),
    "olmo2": (t.Olmo2ForCausalLM, lambda: t.Olmo2Config(**TEXT, max_position_embeddings=40, pad_token_id=0, eos_token_id=2), causal, ["logits"]),
    "smollm3": (t.SmolLM3ForCausalLM, lambda: t.SmolLM3Config(**TEXT, num_key_value_heads=2, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2), causal, ["logits"]),
    "mixtral": (t.MixtralForCausalLM, lambda: t.MixtralConfig(**{**TEXT, "intermediate_size": 40}, num_key_value_heads=2, max_position_embeddings=40, num_local_experts=4), causal, ["logits"]),
    "qwen2-moe": (t.Qwen2MoeForCausalLM, lambda: t.Qwen2MoeConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=40, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=24), causal, ["logits"]),
    "mamba": (t.MambaForCausalLM, lambda: t.MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=4, num_hidden_layers=2, pad_token_id=0, bos_token_id=1, eos_token_id=2), lambda g, b, s: {"input_ids": ids(g, b, s), "use_cache": False}, ["logits"]),
    # Encoders.
    "xlm-roberta": (t.XLMRobertaModel, lambda: t.XLMRobertaConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "mobilebert": (t.MobileBertModel, lambda: t.MobileBertConfig(**TEXT, embedding_size=16, intra_bottleneck_size=16, max_position_embeddings=40, num_feedforward_networks=2), text, [HIDDEN, POOLED]),
    "squeezebert": (t.SqueezeBertModel, lambda: t.SqueezeBertConfig(vocab_size=VOCAB, embedding_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "funnel": (t.FunnelModel, lambda: t.FunnelConfig(vocab_size=VOCAB, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=37, num_decoder_layers=1), text, [HIDDEN]),
    "layoutlm": (t.LayoutLMModel, lambda: t.LayoutLMConfig(**TEXT, max_position_embeddings=40, max_2d_position_embeddings=90), layout, [HIDDEN, POOLED]),
    "longformer": (t.LongformerModel, lambda: t.LongformerConfig(**TEXT, max_position_embeddings=40, attention_window=4), steady, [HIDDEN, POOLED]),
    "bigbird": (t.BigBirdModel, lambda: t.BigBirdConfig(**TEXT, max_position_embeddings=40, attention_type="original_full"), text, [HIDDEN, POOLED]),
    "deberta": (t.DebertaModel, lambda: t.DebertaConfig(**TEXT, max_position_embeddings=40, relative_attention=True, pos_att_type="p2c|c2p"), text, [HIDDEN]),
    "roformer": (t.RoFormerModel, lambda: t.RoFormerConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN]),
    "fnet": (t.FNetModel, lambda: t.FNetConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, intermediate_size=37, max_position_embeddings=40), lambda g, b, s: {"input_ids": ids(g, b, s)}, [HIDDEN, POOLED]),
    "convbert": (t.ConvBertModel, lambda: t.ConvBertConfig(**TEXT, embedding_size=32, max_position_embeddings=40), text, [HIDDEN]),
    "rembert": (t.RemBertModel, lambda: t.RemBertConfig(**TEXT, input_embedding_size=16, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    "xlnet": (t.XLNetModel, lambda: t.XLNetConfig(vocab_size=VOCAB, d_model=32, n_layer=2, n_head=4, d_inner=37), lambda g, b, s: {**text(g, b, s), "use_mems": False}, [HIDDEN]),
    "esm": (t.EsmModel, lambda: t.EsmConfig(**{**TEXT, "vocab_size": 33}, max_position_embeddings=40, position_embedding_type="rotary", pad_token_id=1, mask_token_id=32, token_dropout=True), esm, [HIDDEN, POOLED]),
    "data2vec-text": (t.Data2VecTextModel, lambda: t.Data2VecTextConfig(**TEXT, max_position_embeddings=40), text, [HIDDEN, POOLED]),
    # Encoders with decoders.
    "pegasus": (t.PegasusForConditionalGeneration, lambda: t.PegasusConfig(**SEQ2SEQ), pair, ["logits", "encoder_last_hidden_state"]),
    "mbart": (t.MBartForConditionalGeneration, lambda: t.MBartConfig(**SEQ2SEQ), pair, ["logits", "encoder_last_hidden_state"]),
    "marian": (t.MarianMTModel, lambda: t.MarianConfig(**SEQ2SEQ, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0), pair, ["logits", "encoder_last_hidden_state"]),
    "m2m-100": (t.M2M100ForConditionalGeneration, lambda: t.M2M100Config(**SEQ2SEQ), pair, ["logits", "encoder_last_hidden_state"]),
    "mt5": (t.MT5ForConditionalGeneration, lambda: t.MT5Config(vocab_size=VOCAB, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8, decoder_start_token_id=0), pair, ["logits", "encoder_last_hidden_state"]),
    # Images.
    "convnextv2": (t.ConvNextV2Model, lambda: t.ConvNextV2Config(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2), image, [HIDDEN, POOLED]),
    "efficientnet": (t.EfficientNetModel, lambda: t.EfficientNetConfig(image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320, depth_divisor=4), image, [HIDDEN, POOLED]),
    "regnet": (t.RegNetModel, lambda: t.RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], groups_width=4), image, [HIDDEN, POOLED]),
    "mobilevit": (t.MobileViTModel, lambda: t.MobileViTConfig(hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 48], image_size=64, num_attention_heads=4), square(64), [HIDDEN, POOLED]),
    "mobilenet-v1": (t.MobileNetV1Model, lambda: t.MobileNetV1Config(depth_multiplier=0.25, min_depth=4, image_size=32), image, [HIDDEN, POOLED]),
    "poolformer": (t.PoolFormerModel, lambda: t.PoolFormerConfig(hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, patch_sizes=[7, 3], strides=[4, 2], padding=[2, 1], mlp_ratio=2.0), image, [HIDDEN]),
    "pvt": (t.PvtModel, lambda: t.PvtConfig(image_size=32, num_encoder_blocks=2, depths=[1, 1], sequence_reduction_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[4, 2], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]), image, [HIDDEN]),
    "swinv2": (t.Swinv2Model, lambda: t.Swinv2Config(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2.0), image, [HIDDEN, POOLED]),
    "focalnet": (t.FocalNetModel, lambda: t.FocalNetConfig(image_size=32, patch_size=2, embed_dim=16, hidden_sizes=[16, 32], depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3], mlp_ratio=2.0), image, [HIDDEN, POOLED]),
    "levit": (t.LevitModel, lambda: t.LevitConfig(image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[1, 2, 3], depths=[1, 1, 1], key_dim=[8, 8, 8], down_ops=[["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 4, 4, 2, 2]]), square(64), [HIDDEN, POOLED]),
    "bit": (t.BitModel, lambda: t.BitConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4, layer_type="preactivation"), image, [HIDDEN, POOLED]),
    "dinov2-reg": (t.Dinov2WithRegistersModel, lambda: t.Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=48, patch_size=8), image, [HIDDEN, POOLED]),
    "dinov3": (t.DINOv3ViTModel, lambda: t.DINOv3ViTConfig(**VISION, num_register_tokens=2), image, [HIDDEN, POOLED]),
    "vit-mae": (t.ViTMAEForPreTraining, lambda: t.ViTMAEConfig(**VISION, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=4, decoder_intermediate_size=37), masked, ["logits"]),
    "detr": (t.DetrForObjectDetection, lambda: t.DetrConfig(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, num_queries=5, num_labels=3), image, ["logits", "pred_boxes"]),
    "yolos": (t.YolosForObjectDetection, lambda: t.YolosConfig(**{**VISION, "image_size": [32, 32]}, num_detection_tokens=5, num_labels=3), image, ["logits", "pred_boxes"]),
    "dpt": (t.DPTForDepthEstimation, lambda: t.DPTConfig(**{**VISION, "num_hidden_layers": 4}, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, is_hybrid=False), image, ["predicted_depth"]),
    "depth-anything": (t.DepthAnythingForDepthEstimation, lambda: t.DepthAnythingConfig(backbone_config=t.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=32, patch_size=8, out_features=["stage1", "stage2"], reshape_hidden_states=False), patch_size=8, reassemble_hidden_size=32, reassemble_factors=[2, 1], neck_hidden_sizes=[8, 16], fusion_hidden_size=16, head_hidden_size=8), image, ["predicted_depth"]),
    "upernet": (t.UperNetForSemanticSegmentation, lambda: t.UperNetConfig(backbone_config=t.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]), hidden_size=16, pool_scales=[1, 2], auxiliary_in_channels=16, auxiliary_channels=8, num_labels=3, use_auxiliary_head=False), square(64), ["logits"]),
    # Images with text, and sound.
    "blip": (t.BlipModel, lambda: t.BlipConfig(text_config={**TEXT, "encoder_hidden_size": 32, "max_position_embeddings": 40, "projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0}, vision_config=VISION, projection_dim=16), image_text, ["logits_per_image", "text_embeds", "image_embeds"]),
    "owlvit": (t.OwlViTModel, lambda: t.OwlViTConfig(text_config={**TEXT, "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}, vision_config=VISION, projection_dim=16), image_text, ["text_embeds", "image_embeds"]),
    "clap": (t.ClapModel, lambda: t.ClapConfig(text_config={**TEXT, "max_position_embeddings": 40}, audio_config={"num_mel_bins": 16, "spec_size": 32, "patch_size": 2, "patch_stride": [2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "window_size": 4, "num_hidden_layers": 2, "enable_fusion": False}, projection_dim=16), clap, ["text_embeds", "audio_embeds"]),
    "hubert": (t.HubertModel, lambda: t.HubertConfig(**SOUND), sound, [HIDDEN]),
    "wavlm": (t.WavLMModel, lambda: t.WavLMConfig(**SOUND, num_buckets=16, max_bucket_distance=40), sound, [HIDDEN]),
    "data2vec-audio": (t.Data2VecAudioModel, lambda: t.Data2VecAudioConfig(**{**SOUND, "num_conv_pos_embeddings": 3}, conv_pos_kernel_size=3), sound, [HIDDEN]),
    "sew": (t.SEWModel, lambda: t.SEWConfig(**SOUND, squeeze_factor=2), sound, [HIDDEN]),
    "ast": (t.ASTModel, lambda: t.ASTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, patch_size=8, frequency_stride=4, time_stride=4, max_length=40, num_mel_bins=16), spectrum, [HIDDEN, POOLED]),
    # With heads for tasks.
    "bert-sequence": (t.BertForSequenceClassification, lambda: t.BertConfig(**TEXT, max_position_embeddings=40, num_labels=3), text, ["logits"]),
    "roberta-tokens": (t.RobertaForTokenClassification, lambda: t.RobertaConfig(**TEXT, max_position_embeddings=40, num_labels=3), text, ["logits"]),
    "bert-mlm": (t.BertForMaskedLM, lambda: t.BertConfig(**TEXT, max_position_embeddings=40), text, ["logits"]),
    "distilbert-qa": (t.DistilBertForQuestionAnswering, lambda: t.DistilBertConfig(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=4, hidden_dim=37, max_position_embeddings=40), text, ["start_logits", "end_logits"]),
    "gpt2-sequence": (t.GPT2ForSequenceClassification, lambda: t.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=40, pad_token_id=0, num_labels=3), causal, ["logits"]),
    "vit-classes": (t.ViTForImageClassification, lambda: t.ViTConfig(**VISION, num_labels=3), image, ["logits"]),
    "resnet-classes": (t.ResNetForImageClassification, lambda: t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="bottleneck", num_labels=3), image, ["logits"]),
    "wav2vec2-ctc": (t.Wav2Vec2ForCTC, lambda: t.Wav2Vec2Config(**SOUND, feat_extract_norm="layer", do_stable_layer_norm=True), sound, ["logits"]),
    "lstm": (Recurrent, lambda: SimpleNamespace(layers=torch.nn.LSTM), only_ids, [HIDDEN, POOLED]),
    "gru": (Recurrent, lambda: SimpleNamespace(layers=torch.nn.GRU), only_ids, [HIDDEN, POOLED]),
}
MODELS |= {f"{name}, any size": (*MODELS[name][:2], any_size, MODELS[name][3]) for name in ("resnet", "convnext", "segformer")}
# Those whose images may have any height and width.
ANY_SIZE = {f"{name}, any size": {0: "batch", 2: "height", 3: "width"} for name in ("resnet", "convnext", "segformer")}
# Those that are also given after ONNX Runtime's optimiser and its quantisers.
PROCESSED = ["bert", "gpt2", "llama", "resnet", "vit"]
# Those that are exported with their batch normalisation.
KEPT = ["resnet", "resnet, any size", "mobilenet-v1", "mobilenet-v2", "regnet", "efficientnet"]
