"""Writes a tiny Gemma, whose norms multiply by 1 + weight, by both exporters, PEFT's LN_TUNING over it, and what PEFT computes.

usage: make_gemma_norms.py OUT_DIR

Needs torch, transformers, peft, safetensors, onnx and onnxscript. Weights are random; the trained norms get seeded noise.
"""
import os
import sys
import warnings

import onnx
import torch
from peft import LNTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import GemmaConfig, GemmaForCausalLM

warnings.filterwarnings("ignore")
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
torch.manual_seed(0)
config = GemmaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=4, max_position_embeddings=32, attn_implementation="eager", use_cache=False,
)
model = GemmaForCausalLM(config).eval()
for name, parameter in model.named_parameters():
    if "norm" in name:
        parameter.data.normal_(0, 0.2)
inputs = {"input_ids": torch.randint(0, 40, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.int64)}


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.m = model

    def forward(self, input_ids, attention_mask):
        return self.m(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


names = {"input_names": list(inputs), "output_names": ["logits"], "opset_version": 18}
axes = {0: "batch", 1: "sequence"}
torch.onnx.export(
    Logits(), tuple(inputs.values()), f"{out}/ts.onnx", dynamo=False,
    dynamic_axes={name: axes for name in [*inputs, "logits"]}, **names,
)
dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
torch.onnx.export(
    Logits(), tuple(inputs.values()), f"{out}/dynamo.onnx", dynamo=True, external_data=False, verbose=False,
    dynamic_shapes={name: dims for name in inputs}, **names,
)
# The new exporter writes down where the script lay.
exported = onnx.load(f"{out}/dynamo.onnx")
for node in exported.graph.node:
    kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
    del node.metadata_props[:]
    node.metadata_props.extend(kept)
onnx.save(exported, f"{out}/dynamo.onnx")

tuned = LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm", "post_attention_layernorm"])
model = get_peft_model(model, tuned).eval()
noise = torch.Generator().manual_seed(3)
with torch.no_grad():
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    logits = model(**inputs).logits
model.save_pretrained(f"{out}/adapter")
os.remove(f"{out}/adapter/README.md")
save_file({f"in:{name}": tensor for name, tensor in inputs.items()}, f"{out}/in.safetensors")
save_file({"out:logits": logits.contiguous()}, f"{out}/out.safetensors")
