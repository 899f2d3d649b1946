"""Writes plugins/token-classification/tests/seqeval.json: label sequences drawn at random in BIO, IOB1, IOBES and without
any rule, and what seqeval 1.2.2 in its default mode makes of them. Run with a Python that has it: `python make_spans.py OUT`."""

import json
import random
import sys
import warnings

from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

warnings.filterwarnings("ignore")
random.seed(7)


def draw(prefixes, length):
    labels = ["O"] + [f"{p}-{t}" for p in prefixes for t in ("per", "creative-work", "loc")]
    return random.choices(labels, weights=[4] + [1] * (len(labels) - 1), k=length)


cases = []
for prefixes in ["BI", "I", "BIES", "ES", "BIE"] * 6:
    lengths = [random.randint(1, 9) for _ in range(4)]
    true = [draw(prefixes, n) for n in lengths]
    pred = [[p if random.random() < 0.7 else draw(prefixes, 1)[0] for p in row] for row in true]
    scores = {n: float(f(true, pred)) for n, f in [("precision", precision_score), ("recall", recall_score), ("f1", f1_score)]}
    cases.append({"true": true, "pred": pred, "entities": [get_entities(row) for row in true], **scores})
with open(sys.argv[1], "w") as f:
    json.dump({"source": "seqeval 1.2.2, by tests/peers/make_spans.py", "cases": cases}, f, separators=(",", ":"))
    f.write("\n")
