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

checkpoint, base, adapter, graft = sys.argv[1:5]
graft_file = json.load(open(os.path.join(adapter, "graft.json"), encoding="utf8"))
labels = graft_file["objective"]["labels"]
stock = graft_file["head"]["module"] is not None
texts = [
    "How far is it from Denver to Aspen ?",
    "Who was Galileo ?",
    "What is an atom made of , and who found out about it first of all the people who ever looked ?",
]
tokens = AutoTokenizer.from_pretrained(checkpoint)(texts, padding=True, return_tensors="pt")
names = ["input_ids", "attention_mask", "token_type_ids"]
with tempfile.TemporaryDirectory() as folder:
    given, made = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
    save_file({f"in:{n}": tokens[n].contiguous() for n in names}, given)
    subprocess.run([graft, "run", base, "--adapter", adapter, "--tensors", given, "--out", made], check=True)
    ours = load_file(made)
if stock:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(labels))
else:
    model = AutoModel.from_pretrained(checkpoint)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.inference_mode():
    out = model(**tokens)
mine, theirs = (ours["out:logits"], out.logits) if stock else (ours["out:last_hidden_state"], out.last_hidden_state)
if not stock:
    # A soft prompt stays in front of the hidden states.
    virtual = theirs.shape[1] - tokens["attention_mask"].shape[1]
    seen = torch.cat([torch.ones(len(texts), virtual, dtype=torch.long), tokens["attention_mask"]], dim=1)
assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
keep = torch.ones_like(mine, dtype=torch.bool) if stock else seen.bool().unsqueeze(-1).expand_as(mine)
worst = (mine - theirs)[keep].abs().max().item()
print(f"{'logits' if stock else 'hidden states'} of {adapter}: largest difference {worst:.2e} (PEFT's scale {theirs.abs().max():.2f})")
sys.exit(worst > 1e-4)
