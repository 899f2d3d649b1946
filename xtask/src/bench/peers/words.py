"""Token classification with Hugging Face PEFT on PyTorch, in Graft's settings.
usage: words.py MODEL_DIR TRAIN.conll DEV.conll TEST.conll EPOCHS SEED [THREADS]

LoRA r=8, alpha=16 on query and value; AdamW at 1e-3 with linear decay after 6 % of warm-up; batches of 32 of similar length; first
pieces labelled; the epoch with the best F1 on DEV is reported on TEST. Scores are seqeval's."""

import copy
import json
import random
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

model, train, dev, test, epochs, seed = sys.argv[1:7]
epochs, seed = int(epochs), int(seed)
torch.set_num_threads(int(sys.argv[7]) if len(sys.argv) > 7 else 2)
torch.manual_seed(seed)
random.seed(seed)


def read(path):
    rows, row = [], []
    for line in open(path, encoding="utf8"):
        if line.strip():
            row.append(line.rstrip("\n").split("\t"))
        elif row:
            rows.append(row)
            row = []
    return rows + ([row] if row else [])


data = {name: read(path) for name, path in [("train", train), ("dev", dev), ("test", test)]}
labels = sorted({tag for rows in data.values() for row in rows for _, tag in row})
tokenizer = AutoTokenizer.from_pretrained(model)


def encode(row):
    made = tokenizer([w for w, _ in row], is_split_into_words=True, truncation=True, max_length=128)
    ids, last = [], None
    for word in made.word_ids():
        ids.append(-100 if word is None or word == last else labels.index(row[word][1]))
        last = word
    return made["input_ids"], ids


encoded = {name: [encode(row) for row in rows] for name, rows in data.items()}
base = AutoModelForTokenClassification.from_pretrained(model, num_labels=len(labels))
lora = LoraConfig(task_type="TOKEN_CLS", r=8, lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.0)
net = get_peft_model(base, lora)
for module in net.modules():  # Graft has no dropout unless asked for it.
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
groups = [
    {"params": [p for n, p in named if p.dim() > 1], "weight_decay": 0.01},
    {"params": [p for n, p in named if p.dim() <= 1], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(groups, lr=1e-3)
steps = (len(data["train"]) + 31) // 32 * epochs
schedule = get_linear_schedule_with_warmup(optimizer, -(-6 * steps // 100), steps)


def batch(rows):
    longest = max(len(ids) for ids, _ in rows)
    fill = lambda lists, value: torch.tensor([x + [value] * (longest - len(x)) for x in lists])
    ids = fill([ids for ids, _ in rows], tokenizer.pad_token_id)
    mask = fill([[1] * len(ids) for ids, _ in rows], 0)
    return {"input_ids": ids, "attention_mask": mask, "labels": fill([l for _, l in rows], -100)}


def judge(name):
    net.eval()
    truth, answers = [], []
    with torch.inference_mode():
        for start in range(0, len(encoded[name]), 32):
            made = batch(encoded[name][start : start + 32])
            best = net(**made).logits.argmax(-1)
            for gold, said in zip(made["labels"].tolist(), best.tolist()):
                kept = [(labels[g], labels[s]) for g, s in zip(gold, said) if g != -100]
                truth.append([g for g, _ in kept])
                answers.append([s for _, s in kept])
    right = sum(g == s for gs, ss in zip(truth, answers) for g, s in zip(gs, ss))
    return {
        "f1": float(f1_score(truth, answers)),
        "precision": float(precision_score(truth, answers)),
        "recall": float(recall_score(truth, answers)),
        "accuracy": right / sum(map(len, truth)),
    }


seconds, best, kept = 0.0, -1.0, None
for epoch in range(epochs):
    net.train()
    began = time.perf_counter()
    order = sorted(range(len(encoded["train"])), key=lambda i: (len(encoded["train"][i][0]), random.random()))
    batches = [order[i : i + 32] for i in range(0, len(order), 32)]
    random.shuffle(batches)
    for rows in batches:
        net(**batch([encoded["train"][i] for i in rows])).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds += time.perf_counter() - began
    on_dev = judge("dev")
    print(f"epoch {epoch + 1} {on_dev} {seconds:.1f} s", flush=True)
    if on_dev["f1"] > best:
        best, kept = on_dev["f1"], copy.deepcopy({n: p.detach() for n, p in named})
with torch.no_grad():
    for name, p in named:
        p.copy_(kept[name])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({**judge("test"), "dev_f1": best, "train_seconds": seconds, "peak_rss_mb": peak}))
