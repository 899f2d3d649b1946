"""Trains an adapter as PyTorch does it, over the batches and with the recipe of the shared LoRA run.

usage: train_adapters.py dora|bottleneck SHARED_DIR OUT_DIR

`dora` needs peft 0.21.2, `bottleneck` the package `adapters` 1.3.0, both torch, transformers and safetensors. OUT_DIR
gets the adapter as it was before (`initial`) and behind (`final`), and `loss.safetensors` with the loss of each step.
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification


def dora(model):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"], use_dora=True,
        base_model_name_or_path="../base",
    )
    model = get_peft_model(model, config)
    return model, lambda folder: model.save_pretrained(folder)


def bottleneck(model):
    import adapters
    from adapters import DoubleSeqBnConfig

    adapters.init(model)
    model.add_adapter("a", config=DoubleSeqBnConfig(reduction_factor=4))
    model.train_adapter("a")

    def save(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        model.save_adapter(folder, "a", use_safetensors=True)
        model.save_head(folder, "default", use_safetensors=True)

    return model, save


def main(kind, shared, out):
    torch.manual_seed(3)
    run = load_file(f"{shared}/conformance/training/bert_lora/run.safetensors")
    recipe = json.load(open(f"{shared}/conformance/training/bert_lora/recipe.json"))
    plain = BertForSequenceClassification.from_pretrained(f"{shared}/conformance/adapters/bert/base", num_labels=3)
    model, save = {"dora": dora, "bottleneck": bottleneck}[kind](plain)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": recipe["weight_decay"]},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe["lr"], betas=recipe["betas"], eps=recipe["eps"])
    # Without dropout.
    model.eval()
    save(f"{out}/initial")
    losses = []
    for step in range(recipe["total_steps"]):
        for group in optimizer.param_groups:
            group["lr"] = run["lr"][step].item()
        batch = {k: run[f"{k}:{step}"] for k in ["input_ids", "attention_mask", "labels"]}
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    save(f"{out}/final")
    save_file({"loss": torch.tensor(losses, dtype=torch.float64)}, f"{out}/loss.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
