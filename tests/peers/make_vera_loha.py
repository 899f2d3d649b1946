"""Writes adapters with PEFT's VERA and LOHA over the tiny models of the conformance data, and what PEFT computes with them.

usage: make_vera_loha.py SHARED_DIR OUT_DIR

Needs torch, transformers, peft and safetensors. The trained parameters get seeded noise; nothing is trained. Each folder
of OUT_DIR is named after its model: MODEL_vera, MODEL_loha and so on.
"""
import os
import sys
import warnings

import torch
from peft import LoHaConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

warnings.filterwarnings("ignore")
MODELS = {
    "bert": ("SEQ_CLS", AutoModelForSequenceClassification),
    "llama": ("CAUSAL_LM", AutoModelForCausalLM),
    "t5": ("SEQ_2_SEQ_LM", AutoModelForSeq2SeqLM),
}
WIDE = ["query", "value", "output.dense"]
CASES = {
    # Modules of several widths share the projections.
    "bert_vera": VeraConfig(r=6, target_modules=WIDE, bias="vera_only", projection_prng_key=3),
    "bert_vera_drawn": VeraConfig(
        r=6, target_modules=["query", "intermediate.dense"], save_projection=False, projection_prng_key=2**35 + 7,
    ),
    "bert_vera_layers": VeraConfig(
        r=3, target_modules=["key", "intermediate.dense"], layers_to_transform=[1], layers_pattern="layer", bias="all",
    ),
    "bert_loha": LoHaConfig(
        r=3, alpha=5, target_modules=WIDE, rank_pattern={"layer.1.attention.self.query": 2, "value": 4},
        alpha_pattern={r".*\.0\.output\.dense": 3},
    ),
    "llama_vera": VeraConfig(r=6, target_modules="all-linear", d_initial=0.3),
    "llama_loha": LoHaConfig(r=2, alpha=4, target_modules=["q_proj", "v_proj", "down_proj"]),
    "t5_vera": VeraConfig(r=6, target_modules=["q", "v", "wo"]),
    "t5_loha": LoHaConfig(r=2, target_modules=["q", "k", "wi", "wi_0"]),
}


def main(shared, out):
    for name, config in CASES.items():
        torch.manual_seed(2)
        kind = name.split("_")[0]
        task, model_class = MODELS[kind]
        folder = f"{shared}/conformance/adapters/{kind}"
        inputs = {k[3:]: v for k, v in load_file(f"{folder}/io.safetensors").items() if k.startswith("in:")}
        model = model_class.from_pretrained(f"{folder}/base")
        config.task_type, config.base_model_name_or_path = task, "../base"
        model = get_peft_model(model, config).eval()
        with torch.no_grad():
            for p in (p for p in model.parameters() if p.requires_grad):
                p.add_(torch.randn_like(p) * 0.2)
            logits = model(**inputs).logits
        model.peft_config["default"].base_model_name_or_path = "../base"
        model.save_pretrained(f"{out}/{name}")
        os.remove(f"{out}/{name}/README.md")
        save_file({"out:logits": logits.contiguous()}, f"{out}/{name}/out.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
