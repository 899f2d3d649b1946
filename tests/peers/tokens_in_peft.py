"""Judges a token-classification adapter that Graft trained with PEFT on PyTorch and seqeval, to be compared with `graft eval`.
usage: tokens_in_peft.py CHECKPOINT ADAPTER DATA.conll    (prints f1, precision, recall, accuracy)

Labels come from graft.json; batches are of one row, so that nothing is padded."""

import json
import pathlib
import sys

import torch
from peft import PeftModel
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import AutoModelForTokenClassification, AutoTokenizer

checkpoint, adapter, data = sys.argv[1:4]
labels = json.loads((pathlib.Path(adapter) / "graft.json").read_text())["objective"]["labels"]
rows = [[line.split("\t") for line in part.splitlines()] for part in open(data, encoding="utf8").read().split("\n\n") if part.strip()]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
base = AutoModelForTokenClassification.from_pretrained(checkpoint, num_labels=len(labels))
model = PeftModel.from_pretrained(base, adapter).eval()
truth, answers = [], []
with torch.inference_mode():
    for row in rows:
        made = tokenizer([r[0] for r in row], is_split_into_words=True, truncation=True, max_length=128, return_tensors="pt")
        best = model(**made).logits[0].argmax(-1).tolist()
        words = made.word_ids()
        first = [i for i, w in enumerate(words) if w is not None and w not in words[:i]]
        truth.append([row[words[i]][1].strip() for i in first])
        answers.append([labels[best[i]] for i in first])
right = sum(t == a for ts, as_ in zip(truth, answers) for t, a in zip(ts, as_))
scores = [("f1", f1_score), ("precision", precision_score), ("recall", recall_score)]
print(json.dumps({**{n: float(f(truth, answers)) for n, f in scores}, "accuracy": right / sum(map(len, truth))}))
