"""Runs `graft grad` on what export_models.py and export_tf_models.py wrote and compares it with PyTorch and TensorFlow:
Markdown for docs/models.md.

usage: check_models.py GRAFT_BINARY ZOO [NAME...]

Needs numpy and safetensors. Prints the table to standard output, and what is off to standard error. A value is right
within 1e-4 relative to its norm, 1e-3 where it sums thousands of elements; a gradient that is zero by symmetry is
compared on the scale of the others. Of a quantised model the outputs are compared with ONNX Runtime's, and the gradients
of parameters that are still floats and of activations with the float model's by their direction. For activations the
float file's own gradients by `graft grad` are what is compared with.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file

# What is made of an exported file, and the heading of its column.
PROCESSED = {
    "ort": "after the optimiser",
    "half": "in float16",
    "qdq": "static quantisation (QDQ)",
    "dynquant": "dynamic quantisation",
    "nbits": "4-bit weights (MatMulNBits)",
}
EXPORTED = {"ts": "TorchScript exporter", "dynamo": "torch.export"}
KINDS = [*EXPORTED, "tf", *(f"{e}.{p}" for p in PROCESSED for e in EXPORTED)]
# Least cosine between the gradients of a quantised model and those of the float one.
ALONG = 0.9
# Largest relative errors: of a value, of one that sums thousands of elements, and in float16.
CLOSE, SUMMED, HALF = 1e-4, 1e-3, 5e-3

HEADER = """# Models

Architectures of Hugging Face Transformers and of Keras whose gradients by `graft grad` were compared with PyTorch's and
TensorFlow's: tiny random configurations, run with sizes of batch and sequence other than those they were exported with.
A cell holds the largest relative error of an output or a gradient and, in brackets, how many parameters were compared;
where a file does not work, the error. *Fixed sizes*: the exporter can't make that model's sizes dynamic. *Not exported*:
there is no right file, for the exporter fails, or ONNX Runtime computes other outputs from its file than PyTorch.

A quantised file computes another function than the float one. Its outputs are compared with ONNX Runtime's from the same
file. Its gradients, straight-through where activations are rounded, are compared with the float model's by direction:
those of the parameters that are still floats, and those of ten activations spread over the model, as *parameters +
activations*; the cell gives the smallest cosine. That each rule is right in itself is tested where the rules are. With
`(0)` no gradient was compared, for no parameter is left in the file as it was: the cell is about outputs alone.

A file in float16 is compared with the float32 model whose parameters and inputs were rounded to float16.

The page is made by scripts, which need Python with PyTorch and, for the second, TensorFlow:

```sh
python tests/peers/export_models.py ZOO
python tests/peers/export_tf_models.py ZOO
python tests/peers/check_models.py target/release/graft ZOO > docs/models.md
```
"""


def grad(graft, model, folder, names, out):
    command = [graft, "grad", f"{model}/model.onnx", "--tensors", f"{folder}/io.safetensors", "--out", out]
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
        # Exporters colour what they say on a terminal.
        return "not exported: " + re.sub(r"\x1b\[[0-9;]*m", "", about["error"]), None
    io = load_file(f"{folder}/io.safetensors")
    names = [k[5:] for k in io if k.startswith("grad:")]
    inner = about.get("activations", [])
    with tempfile.TemporaryDirectory() as to:
        try:
            if inner:
                plain = os.path.join(os.path.dirname(folder), about["float"])
                theirs = grad(graft, plain, folder, inner, f"{to}/float.safetensors")
                io |= {f"grad:{k}": theirs[f"grad:{k}"] for k in inner}
            ours = grad(graft, folder, folder, names + inner, f"{to}/out.safetensors")
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            # What the user could do instead is the same advice in every cell.
            text = str(e).split(", and it lies between")[0].split("; gradients need it")[0]
            text = re.sub("\x1b\\[[0-9;]*m", "", text)
            return "**" + text.removeprefix("error: ").replace("|", "/").replace(folder, "…")[:300] + "**", False
    count = f"{len(names)}" + (f" + {len(inner)}" if inner else "")
    return compare(about, io, ours, os.path.basename(folder), count)


def tolerance(about, key, size):
    if about.get("half"):
        return HALF
    return max(SUMMED if size > 4096 else CLOSE, 2 * about.get("rounding", {}).get(key[4:], 0.0))


def compare(about, io, ours, name, count):
    wanted = [k for k in io if k.startswith(("out:", "grad:"))]
    norms = {k: float(np.linalg.norm(io[k].astype(np.float64))) for k in wanted}
    typical = float(np.median(list(norms.values())))
    worst, least, bad = 0.0, 1.0, []
    for k in wanted:
        want, got = io[k].astype(np.float64), ours[k].astype(np.float64)
        if want.shape != got.shape:
            return f"**{k} has the shape {got.shape}, not {want.shape}**", False
        error = float(np.linalg.norm(want - got)) / max(norms[k], 1e-2 * typical, 1e-30)
        if about.get("quantised") and k.startswith("grad:"):
            if norms[k] > 1e-2 * typical:
                along = cosine(want, got)
                least = min(least, along)
                bad += [f"{k} cosine {along:.3f}"] * (not along >= ALONG)
            continue
        worst = max(worst, error if np.isfinite(error) else np.inf)
        if not error <= tolerance(about, k, want.size):
            bad.append(f"{k} {error:.1e}")
    for b in bad[:8]:
        print(f"{name}: {b}", file=sys.stderr)
    cell = f"{worst:.0e} ({count})"
    if about.get("quantised"):
        cell += f", cosine {least:.3f}"
    if about.get("note"):
        cell += f"; {about['note']}"
    return (f"**{cell}: {bad[0].split()[0]} is off**" if bad else cell), not bad


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
    rows = [[name, *(cell(name, e) for e in EXPORTED)] for name in names]
    table(["architecture", *EXPORTED.values()], [r for r in rows if any(r[1:])])
    print()
    table(["Keras model", "tf2onnx"], [[name, cell(name, "tf")] for name in names if cell(name, "tf")])
    rows = [[f"{name}, {e}", *(cell(name, f"{e}.{p}") for p in PROCESSED)] for name in names for e in EXPORTED]
    print()
    table(["file", *PROCESSED.values()], [r for r in rows if any(r[1:])])


def table(head, rows):
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
