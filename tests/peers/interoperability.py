"""Every method trained by Graft, loaded by Hugging Face PEFT: what both compute with it.

usage: interoperability.py CHECKPOINT_DIR BASE_DIR TRAIN.csv GRAFT_BINARY [docs/interoperability.md]

Needs torch, transformers, peft and safetensors. The base is what `graft model import` made of the checkpoint, the table has
the columns text and label; its first 320 rows are trained on once. With a page, its table is written anew. Exits 1 where a
difference is above 1e-4.
"""
import csv
import os
import subprocess
import sys
import tempfile
import warnings

from load_in_peft import compare
from page import write_table

warnings.filterwarnings("ignore")
ROWS = 320
METHODS = [
    "lora",
    "lora method.target_modules=all-linear method.use_rslora=true",
    "lora method.use_dora=true",
    "lora method.bias=all",
    "lora method.bias=lora_only",
    "vera",
    "vera method.target_modules=all-linear method.r=64 method.bias=vera_only",
    "vera method.save_projection=false method.projection_prng_key=7",
    "loha",
    "loha method.target_modules=all-linear method.rank_dropout=0.1",
    "ia3",
    "norm-tuning",
    "prompt-tuning",
    "prompt-tuning method.encoder=64",
    "prefix-tuning",
    "prefix-tuning method.projection=64",
]

checkpoint, base, data, graft, *page = sys.argv[1:]
rows = [["method and settings", "head", "compared", "largest difference"], ["---"] * 4]
failed = False
with tempfile.TemporaryDirectory() as folder:
    few = os.path.join(folder, "train.csv")
    with open(data, encoding="utf8") as given, open(few, "w", encoding="utf8", newline="") as kept:
        csv.writer(kept).writerows(row for row, _ in zip(csv.reader(given), range(ROWS + 1)))
    for method in METHODS:
        for pooling in ("pooled", "mean"):
            out = os.path.join(folder, f"{len(rows)}")
            name, *settings = method.split()
            line = [graft, "train", "--base", base, "--objective", "classification", "--method", name, "--data", few]
            line += ["--text", "text", "--label", "label", "--epochs", "1", "--out", out]
            for setting in [*settings, f"objective.pooling={pooling}"]:
                line += ["--set", setting]
            subprocess.run(line, check=True, capture_output=True)
            what, worst = compare(checkpoint, base, out, graft)
            failed |= worst > 1e-4
            shown = " ".join([name, *(s.removeprefix("method.") for s in settings)])
            rows.append([f"`{shown}`", f"`{pooling}`", what, f"{worst:.1e}"])
            print(*rows[-1], sep="  ", flush=True)
if page:
    write_table(page[0], "trained here", rows)
sys.exit(failed)
