"""A linear probe by hand: mean-pooled hidden states of PyTorch's, scikit-learn's logistic regression on them.

usage: probe.py MODEL_DIR TRAIN.csv TEST.csv THREADS      the CSV columns are text and label
"""

import csv
import sys

import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

model_dir, train, test = sys.argv[1:4]
torch.set_num_threads(int(sys.argv[4]))
tokenizer = AutoTokenizer.from_pretrained(model_dir)
model = AutoModel.from_pretrained(model_dir).eval()


def features(path):
    with open(path, encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["text"]))
    pooled = torch.empty(len(rows), model.config.hidden_size)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            batch = tokenizer([rows[i]["text"] for i in some], padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(-1)
            pooled[some] = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    return pooled.numpy(), [row["label"] for row in rows]


fitted = LogisticRegression(max_iter=2000).fit(*features(train))
print(f"RESULT method=probe acc={fitted.score(*features(test)):.4f}")
