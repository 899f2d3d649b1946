"""Loads an adapter that Graft trained into Hugging Face PEFT and compares what both compute.

usage: load_in_peft.py CHECKPOINT_DIR BASE_DIR ADAPTER_DIR GRAFT_BINARY

Needs torch, transformers, peft and safetensors. The checkpoint is the one that `graft model import` made the base of.
An adapter with a head that stock PEFT can rebuild is compared by logits, any other by its hidden states.
Prints the largest difference; exits 1 above 1e-4.
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

TEXTS = [
    "How far is it from Denver to Aspen ?",
    "Who was Galileo ?",
    "What is an atom made of , and who found out about it first of all the people who ever looked ?",
]


def compare(checkpoint, base, adapter, graft):
    """What was compared, and the largest difference."""
    graft_file = json.load(open(os.path.join(adapter, "graft.json"), encoding="utf8"))
    labels = graft_file["objective"]["labels"]
    stock = graft_file["head"]["module"] is not None
    tokens = AutoTokenizer.from_pretrained(checkpoint)(TEXTS, padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with tempfile.TemporaryDirectory() as folder:
        given, made = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
        save_file({f"in:{n}": tokens[n].contiguous() for n in names}, given)
        line = [graft, "run", base, "--adapter", adapter, "--tensors", given, "--out", made]
        subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
        ours = load_file(made)
    if stock:
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(labels))
    else:
        model = AutoModel.from_pretrained(checkpoint)
    model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.inference_mode():
        out = model(**tokens)
    mine, theirs = (ours["out:logits"], out.logits) if stock else (ours["out:last_hidden_state"], out.last_hidden_state)
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    difference = (mine - theirs).abs()
    if not stock:
        # A soft prompt stays in front of the hidden states. What stands where a text is padding is nobody's business.
        virtual = theirs.shape[1] - tokens["attention_mask"].shape[1]
        seen = torch.cat([torch.ones(len(TEXTS), virtual, dtype=torch.long), tokens["attention_mask"]], dim=1)
        difference = difference * seen.unsqueeze(-1)
    return "logits" if stock else "hidden states", difference.max().item()


if __name__ == "__main__":
    what, worst = compare(*sys.argv[1:5])
    print(f"{what} of {sys.argv[3]}: largest difference {worst:.2e}")
    sys.exit(worst > 1e-4)
