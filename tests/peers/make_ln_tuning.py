"""Writes an adapter with PEFT's LN_TUNING over the tiny BERT of the conformance data, and what PEFT computes with it.

usage: make_ln_tuning.py SHARED_DIR OUT_DIR

Needs torch, transformers, peft and safetensors. The norms get seeded noise; nothing is trained.
"""
import os
import sys

import torch
from peft import LNTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

shared, out = sys.argv[1:3]
folder = os.path.join(shared, "conformance", "adapters", "bert")
model = AutoModelForSequenceClassification.from_pretrained(os.path.join(folder, "base"))
model = get_peft_model(model, LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"])).eval()
noise = torch.Generator().manual_seed(3)
inputs = {n[3:]: t for n, t in load_file(os.path.join(folder, "io.safetensors")).items() if n.startswith("in:")}
with torch.no_grad():
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    logits = model(**inputs).logits
model.peft_config["default"].base_model_name_or_path = "base"
model.save_pretrained(out)
save_file({"out:logits": logits.contiguous()}, os.path.join(out, "out.safetensors"))
readme = os.path.join(out, "README.md")
if os.path.exists(readme):
    os.remove(readme)
