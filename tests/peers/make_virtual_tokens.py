"""Writes adapters of PEFT's with virtual tokens over small models of the conformance data, and what PEFT computes.

usage: make_virtual_tokens.py SHARED_DIR OUT_DIR

Needs torch, transformers, peft and safetensors. Virtual tokens are random; nothing is trained.
"""
import os
import sys

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

shared, out = sys.argv[1:3]
ADAPTERS = {
    "t5_prompt": ("t5", AutoModelForSeq2SeqLM, PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)),
    "t5_prefix": ("t5", AutoModelForSeq2SeqLM, PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)),
    "bert_p_tuning": (
        "bert", AutoModelForSequenceClassification,
        PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=16),
    ),
}
for name, (base, kind, config) in ADAPTERS.items():
    torch.manual_seed(5)
    folder = os.path.join(shared, "conformance", "adapters", base)
    inputs = {n[3:]: t for n, t in load_file(os.path.join(folder, "io.safetensors")).items() if n.startswith("in:")}
    model = get_peft_model(kind.from_pretrained(os.path.join(folder, "base")), config).eval()
    with torch.inference_mode():
        logits = model(**inputs).logits
    model.peft_config["default"].base_model_name_or_path = "base"
    target = os.path.join(out, name)
    model.save_pretrained(target)
    save_file({"out:logits": logits.contiguous()}, os.path.join(target, "out.safetensors"))
    readme = os.path.join(target, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
