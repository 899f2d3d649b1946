"""Writes LoRA adapters of PEFT with options of each kind over the tiny BERT of the conformance data, and what PEFT
computes with them.

usage: make_lora_options.py SHARED_DIR OUT_DIR

Needs torch, transformers, peft and safetensors. The parameters get seeded noise; nothing is trained.
"""
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

CASES = {
    "patterns": dict(
        target_modules=["query", "value", "output.dense"], use_rslora=True, bias="lora_only",
        rank_pattern={"layer.1.attention.self.query": 2, "value": 6}, alpha_pattern={r".*\.0\.output\.dense": 3},
    ),
    "embeddings": dict(target_modules=["word_embeddings", "query"]),
    "embeddings_dora": dict(target_modules=["word_embeddings", "key"], use_dora=True),
    "layers": dict(target_modules=["query", "intermediate.dense"], layers_to_transform=[1], layers_pattern="layer"),
}


def main(shared, out):
    conformance = f"{shared}/conformance/adapters/bert"
    inputs = {k[3:]: v for k, v in load_file(f"{conformance}/io.safetensors").items() if k.startswith("in:")}
    for name, options in CASES.items():
        torch.manual_seed(2)
        model = BertForSequenceClassification.from_pretrained(f"{conformance}/base", num_labels=3)
        config = LoraConfig(
            task_type="SEQ_CLS", r=4, lora_alpha=8, base_model_name_or_path="../base", **options
        )
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for p in (p for p in model.parameters() if p.requires_grad):
                p.add_(torch.randn_like(p) * 0.2)
            logits = model(**inputs).logits
        folder = f"{out}/{name}"
        model.save_pretrained(folder)
        os.remove(f"{folder}/README.md")
        save_file({"out:logits": logits.contiguous()}, f"{folder}/out.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
