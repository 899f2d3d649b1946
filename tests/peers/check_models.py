"""Runs `graft grad` on what export_models.py wrote and compares it with PyTorch: Markdown for docs/models.md.

usage: check_models.py GRAFT_BINARY ZOO [NAME...]

Needs numpy and safetensors. Prints the table to standard output, and what is off to standard error. A value is right
within 1e-4 relative to its norm, 1e-3 where it sums thousands of elements; a gradient that is zero by symmetry is
compared on the scale of the others. Of a quantised model the outputs are compared with ONNX Runtime's, and the gradients
with the float model's by their direction.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

KINDS = ["ts", "dynamo", "ts.ort", "dynamo.ort", "ts.qdq", "dynamo.qdq", "ts.dynquant", "dynamo.dynquant"]
# Least cosine between the gradients of a quantised model and those of the float one.
ALONG = 0.9


HEADER = """# Models

Architectures of Hugging Face Transformers whose gradients by `graft grad` were compared with PyTorch's: tiny random
configurations, run with sizes of batch and sequence other than those they were exported with. A cell holds the largest
relative error of an output or a gradient and, in brackets, how many parameters were compared; where a file does not
work, the error. After dynamic or static quantisation there is the smallest cosine between a gradient and that of the
float model. *Fixed sizes*: the exporter can't make that model's sizes dynamic.

The page is made by two scripts, which need Python with PyTorch:

```sh
python tests/peers/export_models.py ZOO
python tests/peers/check_models.py target/release/graft ZOO > docs/models.md
```
"""


def grad(graft, folder, io, out):
    names = [k[5:] for k in io if k.startswith("grad:")]
    command = [graft, "grad", f"{folder}/model.onnx", "--tensors", f"{folder}/io.safetensors", "--out", out]
    for name in names:
        command += ["--wrt", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        lines = [l for l in done.stderr.strip().splitlines() if l.strip()]
        raise RuntimeError(" ".join(l.strip() for l in lines[-3:]) if lines else f"exit status {done.returncode}")
    return load_file(out)


def cosine(a, b):
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))


def check(graft, folder):
    """The cell of the table, and whether it is as it should be."""
    about = json.load(open(f"{folder}/about.json", encoding="utf8"))
    if "error" in about:
        return "not exported: " + about["error"], None
    io = load_file(f"{folder}/io.safetensors")
    with tempfile.TemporaryDirectory() as to:
        try:
            ours = grad(graft, folder, io, f"{to}/out.safetensors")
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            # What the user could do instead is the same advice in every cell.
            text = str(e).split(", and it lies between")[0].split("; gradients need it")[0]
            return "**" + text.removeprefix("error: ").replace("|", "/").replace(folder, "…")[:300] + "**", False
    wanted = [k for k in io if k.startswith(("out:", "grad:"))]
    norms = {k: float(np.linalg.norm(io[k].astype(np.float64))) for k in wanted}
    typical = float(np.median(list(norms.values())))
    worst, where, least, bad = 0.0, "", 1.0, []
    for k in wanted:
        want, got = io[k].astype(np.float64), ours[k].astype(np.float64)
        if want.shape != got.shape:
            return f"**{k} has the shape {got.shape}, not {want.shape}**", False
        error = float(np.linalg.norm(want - got)) / max(norms[k], 1e-2 * typical, 1e-30)
        if about.get("quantised") and k.startswith("grad:"):
            if norms[k] > 1e-2 * typical:
                least = min(least, cosine(want, got))
            continue
        worst, where = max((worst, where), (error if np.isfinite(error) else np.inf, k))
        if not error <= (1e-3 if want.size > 4096 else 1e-4):
            bad.append(f"{k} {error:.1e}")
    for b in bad[:8]:
        print(f"{os.path.basename(folder)}: {b}", file=sys.stderr)
    count = sum(k.startswith("grad:") for k in wanted)
    cell = f"{worst:.0e} ({count})"
    if about.get("quantised"):
        cell += f", cosine {least:.3f}"
    if about.get("note"):
        cell += f"; {about['note']}"
    good = not bad and least >= ALONG
    return cell if good else f"**{cell}: {where} is off**", good


def main(graft, zoo, only):
    folders = {f for f in os.listdir(zoo) if os.path.isfile(f"{zoo}/{f}/about.json")}
    names = sorted({re.split(r"[.]", f)[0] for f in folders})
    names = [n for n in names if not only or n in only]
    cells, right, wrong = {}, 0, 0
    for name in names:
        for kind in KINDS:
            if f"{name}.{kind}" in folders:
                cells[name, kind], good = check(graft, f"{zoo}/{name}.{kind}")
                right, wrong = right + (good is True), wrong + (good is False)
                print(f"{name}.{kind}: {cells[name, kind]}", file=sys.stderr, flush=True)
    cell = lambda name, kind: cells.get((name, kind), "")
    print(f"{HEADER}\nOf {right + wrong} files {right} are right.\n")
    print("| architecture | TorchScript exporter | torch.export |\n|---|---|---|")
    for name in names:
        print(f"| {name} | {cell(name, 'ts')} | {cell(name, 'dynamo')} |")
    print("\n| file | after the optimiser | static quantisation (QDQ) | dynamic quantisation |\n|---|---|---|---|")
    for name in names:
        for exporter in ("ts", "dynamo"):
            row = [cell(name, f"{exporter}.{k}") for k in ("ort", "qdq", "dynquant")]
            if any(row):
                print(f"| {name}, {exporter} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
