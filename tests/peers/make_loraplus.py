"""Trains a LoRA with PEFT's LoRA+ optimiser, over the batches and with the recipe of the shared LoRA run.

usage: make_loraplus.py SHARED_DIR OUT_DIR

Needs peft 0.21.2, torch, transformers and safetensors. OUT_DIR gets the adapter as it was before (`initial`) and behind
(`final`), and `loss.safetensors` with the loss of each step.
"""
import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

RATIO = 4.0
EMBEDDING = 0.0125


def main(shared, out):
    torch.manual_seed(4)
    torch.set_num_threads(1)
    run = load_file(f"{shared}/conformance/training/bert_lora/run.safetensors")
    recipe = json.load(open(f"{shared}/conformance/training/bert_lora/recipe.json"))
    plain = BertForSequenceClassification.from_pretrained(f"{shared}/conformance/adapters/bert/base", num_labels=3)
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value", "word_embeddings"], bias="lora_only",
        base_model_name_or_path="../base",
    )
    model = get_peft_model(plain, config)
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=recipe["lr"], loraplus_lr_ratio=RATIO, loraplus_lr_embedding=EMBEDDING,
        loraplus_weight_decay=recipe["weight_decay"], betas=recipe["betas"], eps=recipe["eps"],
    )
    print([(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups])
    peaks = [g["lr"] for g in optimizer.param_groups]
    # Without dropout.
    model.eval()
    model.save_pretrained(f"{out}/initial")
    losses = []
    for step in range(recipe["total_steps"]):
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * run["lr"][step].item() / recipe["lr"]
        batch = {k: run[f"{k}:{step}"] for k in ["input_ids", "attention_mask", "labels"]}
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(losses[0], losses[-1])
    model.save_pretrained(f"{out}/final")
    save_file({"loss": torch.tensor(losses, dtype=torch.float64)}, f"{out}/loss.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
