"""Exports tiny random models of many architectures to ONNX, with PyTorch's outputs and gradients beside them.

usage: export_models.py ZOO [NAME...]

Needs torch, transformers, onnx, onnxscript, onnxruntime and safetensors. Writes for each architecture (all, or those
named) ZOO/NAME.ts (the TorchScript exporter) and ZOO/NAME.dynamo (torch.export), and for some the file after ONNX
Runtime's optimiser (.ort), after static (.qdq) and after dynamic quantisation (.dynquant). A folder holds `model.onnx`,
`about.json` and `io.safetensors`: `in:INPUT`, `out:OUTPUT`, `ct:OUTPUT` (a random cotangent) and `grad:INITIALIZER`, the
gradient of the sum of out*ct. The inputs are of other sizes than those of the export. An initializer is a parameter's
by its bytes, also when it is transposed. What can't be exported has only `about.json`, with the error.
"""
import json
import os
import shutil
import signal
import sys
import traceback
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import torch
import transformers as t
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

warnings.filterwarnings("ignore")
VOCAB = 99
TEXT = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8)


def ids(generator, batch, seq):
    return torch.randint(3, VOCAB - 3, (batch, seq), generator=generator)


def text(generator, batch, seq):
    mask = torch.ones(batch, seq, dtype=torch.long)
    mask[-1, -2:] = 0
    return {"input_ids": ids(generator, batch, seq), "attention_mask": mask}


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


BATCH = {0: "batch"}
DIMS = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "sequence"},
    "decoder_input_ids": {0: "batch", 1: "decoder_sequence"},
    "decoder_attention_mask": {0: "batch", 1: "decoder_sequence"},
    "pixel_values": BATCH,
    "input_values": {0: "batch", 1: "samples"},
    "input_features": BATCH,
}
HIDDEN, POOLED = "last_hidden_state", "pooler_output"
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
    "wav2vec2": (t.Wav2Vec2Model, lambda: t.Wav2Vec2Config(**TEXT, conv_dim=[16, 16], conv_stride=[5, 4], conv_kernel=[10, 8], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2), sound, [HIDDEN]),
}


class Recurrent(torch.nn.Module):
    """Two recurrent layers of both directions over an embedding: all states, and the last ones through a head."""

    def __init__(self, config):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCAB, 16)
        self.layers = config.layers(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(12, 5)

    def forward(self, input_ids):
        states, last = self.layers(self.embedding(input_ids))
        last = last[0] + last[1].tanh() if isinstance(last, tuple) else last
        return SimpleNamespace(last_hidden_state=states, pooler_output=self.head(last))


def only_ids(generator, batch, seq):
    return {"input_ids": ids(generator, batch, seq)}


def recurrent_parameters(model):
    """Parameters of recurrent layers as ONNX has them, with their gradients: directions stacked, gates in its order."""
    for name, m in model.named_modules():
        if not isinstance(m, (torch.nn.LSTM, torch.nn.GRU)):
            continue
        order = [0, 3, 1, 2] if isinstance(m, torch.nn.LSTM) else [1, 0, 2]
        as_onnx = lambda v: torch.cat([v.detach().chunk(len(order))[k] for k in order])
        for layer in range(m.num_layers):
            of = lambda kind: [getattr(m, f"{kind}_l{layer}{way}") for way in ("", "_reverse")[: 1 + m.bidirectional]]
            pairs = list(zip(of("bias_ih"), of("bias_hh")))
            for kind in ("weight_ih", "weight_hh"):
                yield [f"{name}.{kind}_l{layer}"], *(torch.stack([as_onnx(f(p)) for p in of(kind)]).numpy() for f in (lambda p: p, lambda p: p.grad))
            yield [f"{name}.bias_ih_l{layer}", f"{name}.bias_hh_l{layer}"], *(torch.stack([torch.cat([as_onnx(f(p)) for p in pair]) for pair in pairs]).numpy() for f in (lambda p: p, lambda p: p.grad))


MODELS |= {
    "lstm": (Recurrent, lambda: SimpleNamespace(layers=torch.nn.LSTM), only_ids, [HIDDEN, POOLED]),
    "gru": (Recurrent, lambda: SimpleNamespace(layers=torch.nn.GRU), only_ids, [HIDDEN, POOLED]),
}
# Those that are also given after ONNX Runtime's optimiser and its quantisers.
PROCESSED = ["bert", "gpt2", "llama", "vit"]
# Those that are exported with their batch normalisation.
KEPT = ["resnet", "mobilenet-v2"]


class Wrapped(torch.nn.Module):
    """A model with its inputs in order and its outputs as a tuple."""

    def __init__(self, model, inputs, fixed, outputs):
        super().__init__()
        self.m, self.inputs, self.fixed, self.outputs = model, inputs, fixed, outputs

    def forward(self, *args):
        out = self.m(**dict(zip(self.inputs, args)), **self.fixed)
        return tuple(getattr(out, name) for name in self.outputs)


def build(name, attention):
    """A model of fixed random weights in which no parameter is uniform or equal to another."""
    cls, config, draw, outputs = MODELS[name]
    torch.manual_seed(0)
    config = config()
    if attention:
        config._attn_implementation = attention
    model = cls(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) * 0.02)
        for key, b in model.named_buffers():
            if key.endswith("running_mean"):
                b.copy_(torch.randn(b.shape) * 0.1)
            elif key.endswith("running_var"):
                b.copy_(torch.rand(b.shape) + 0.5)
    example, given = (draw(torch.Generator().manual_seed(s), *size) for s, size in ((1, (2, 8)), (2, (3, 7))))
    fixed = {k: v for k, v in example.items() if not isinstance(v, torch.Tensor)}
    tensors = lambda values: {k: v for k, v in values.items() if k not in fixed}
    wrapped = Wrapped(model, [k for k in example if k not in fixed], fixed, outputs).eval()
    return wrapped, tensors(example), tensors(given)


def export(name, exporter, attention, dynamic, path):
    wrapped, example, given = build(name, attention)
    args, names = tuple(example.values()), list(example)
    dims = {k: DIMS[k] if name != "siglip" else BATCH for k in names}
    common = dict(input_names=names, output_names=wrapped.outputs, verbose=False)
    with torch.no_grad():
        if exporter == "ts":
            # Without this, normalisations are folded into the convolutions in front of them.
            kept = {"training": torch.onnx.TrainingMode.PRESERVE} if name in KEPT else {}
            torch.onnx.export(wrapped, args, path, dynamo=False, opset_version=18, **kept, dynamic_axes=dims if dynamic else None, **common)
        else:
            shapes = (tuple(dims[k] for k in names),) if dynamic else None
            torch.onnx.export(wrapped, args, path, dynamo=True, external_data=False, optimize=name not in KEPT, dynamic_shapes=shapes, **common)
    return wrapped, example, given if dynamic else example


def gradients_of(wrapped, inputs, model, cotangents=None):
    """Outputs, cotangents and the gradients of those initializers of `model` that are parameters."""
    wrapped.zero_grad()
    outputs = dict(zip(wrapped.outputs, wrapped(*inputs.values())))
    generator = torch.Generator().manual_seed(3)
    cts = {k: torch.randn(o.shape, generator=generator) for k, o in outputs.items()}
    sum((outputs[k] * cts[k]).sum() for k in outputs).backward()
    io = {f"in:{k}": v.numpy() for k, v in inputs.items()}
    io |= {f"out:{k}": o.detach().numpy() for k, o in outputs.items()}
    io |= {f"ct:{k}": c.numpy() for k, c in cts.items()}
    by_bytes, lost = {}, set()
    for key, p in wrapped.named_parameters():
        if p.grad is None or float(p.grad.abs().max()) == 0.0 and p.grad.numel() > 1:
            continue
        lost.add(key)
        values, grad = p.detach().numpy(), p.grad.numpy()
        if values.ndim == 2:
            by_bytes[values.T.tobytes(), values.T.shape] = (key, grad.T)
        if values.ndim == 1:
            # Gemma's norms scale by one more than their weight, which exporters add up.
            by_bytes[(values + np.float32(1)).tobytes(), values.shape] = (key, grad)
        by_bytes[values.tobytes(), values.shape] = (key, grad)
        # An exporter may drop or add dimensions of one element.
        by_bytes.setdefault((values.tobytes(), None), (key, grad))
    recurrent = {}
    for keys, values, grad in recurrent_parameters(wrapped):
        by_bytes[values.tobytes(), values.shape] = (keys[0], grad)
        recurrent |= {keys[0]: keys + [f"{key}_reverse" for key in keys]}
    for i in model.graph.initializer:
        if i.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(i)
        key, grad = by_bytes.get((values.tobytes(), values.shape)) or by_bytes.get((values.tobytes(), None)) or (None, None)
        if key is not None:
            io[f"grad:{i.name}"] = np.ascontiguousarray(grad.reshape(values.shape))
            lost.difference_update(recurrent.get(key, [key]))
    return {k: np.ascontiguousarray(v) for k, v in io.items()}, sorted(lost)


def session(path, **options):
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    for k, v in options.items():
        setattr(settings, k, v)
    return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def same(path, io):
    """Raises where ONNX Runtime gives other outputs than PyTorch: tracing has kept something of the example."""
    made = session(path)
    names = [o.name for o in made.get_outputs()]
    for name, values in zip(names, made.run(names, {i.name: io[f"in:{i.name}"] for i in made.get_inputs()})):
        want = io[f"out:{name}"]
        if values.shape != want.shape or np.linalg.norm(values - want) > 1e-3 * np.linalg.norm(want):
            raise ValueError("ONNX Runtime computes other outputs from the exported file than PyTorch")


def write(folder, about, io=None):
    if io is not None:
        save_file(io, f"{folder}/io.safetensors")
    json.dump(about, open(f"{folder}/about.json", "w", encoding="utf8"), indent=1)
    print(os.path.basename(folder), about.get("error", "ok"), about.get("note", ""), len(about.get("without", [])), flush=True)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return f"{folder}/model.onnx"


def make(zoo, name, exporter):
    """Exports with as much freedom as the exporter allows: dynamic sizes before fixed ones, the model's own attention
    before the plain one."""
    folder = f"{zoo}/{name}.{exporter}"
    error = None
    for dynamic in (True, False):
        for attention in (None, "eager"):
            path = fresh(folder)
            signal.alarm(400)
            try:
                wrapped, example, given = export(name, exporter, attention, dynamic, path)
                model = onnx.load(path)
                io, lost = gradients_of(wrapped, given, model)
                same(path, io)
                note = ", ".join(["fixed sizes"] * (not dynamic) + ["eager attention"] * (attention == "eager"))
                write(folder, {"note": note, "without": lost}, io)
                return folder, wrapped, given
            except Exception as e:
                first = str(e).strip().splitlines()[0] if str(e).strip() else ""
                error = error or f"{type(e).__name__}: {first}"[:200]
                print(f"  {name}.{exporter} {attention} dynamic={dynamic}: {type(e).__name__}: {first[:160]}", flush=True)
                if os.environ.get("TRACE"):
                    traceback.print_exc()
            finally:
                signal.alarm(0)
    fresh(folder)
    write(folder, {"error": error})


def process(zoo, folder, wrapped, given):
    """The file after ONNX Runtime's optimiser, and after its quantisers."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    feeds = {k: v.numpy() for k, v in given.items()}
    path = f"{folder}/model.onnx"

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [feeds]

        def get_next(self):
            return self.left.pop() if self.left else None

    def optimised(to):
        level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        session(path, graph_optimization_level=level, optimized_model_filepath=to)

    makers = {
        "ort": optimised,
        "qdq": lambda to: quantize_static(path, to, Reader(), quant_format=QuantFormat.QDQ),
        "dynquant": lambda to: quantize_dynamic(path, to),
    }
    for kind, maker in makers.items():
        folder_of = f"{folder}.{kind}"
        to = fresh(folder_of)
        try:
            maker(to)
            io, lost = gradients_of(wrapped, given, onnx.load(to))
            about = {"note": "", "without": lost}
            if kind != "ort":
                # Outputs are those of ONNX Runtime; gradients are compared with the float model's by direction.
                made = session(to).run(wrapped.outputs, feeds)
                io |= {f"out:{k}": v for k, v in zip(wrapped.outputs, made)}
                about["quantised"] = True
            write(folder_of, about, io)
        except Exception as e:
            write(folder_of, {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0]}"[:200]})


def expire(*_):
    raise TimeoutError("the exporter did not end in time")


if __name__ == "__main__":
    zoo, names = sys.argv[1], sys.argv[2:] or list(MODELS)
    signal.signal(signal.SIGALRM, expire)
    os.makedirs(zoo, exist_ok=True)
    for name in names:
        for exporter in ("ts", "dynamo"):
            made = make(zoo, name, exporter)
            if made and name in PROCESSED:
                process(zoo, *made)
