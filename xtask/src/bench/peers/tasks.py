"""Tasks of other kinds with PyTorch and Hugging Face PEFT, in Graft's settings.
usage: tasks.py TASK MODEL TRAIN DEV TEST EPOCHS LR SEED [THREADS]

TASK: pairs (a checkpoint directory; CSV with text, text_pair, score from 0 to 5), molecules (the shared ALBERT as ONNX; CSV with
smiles, target) or images (the shared ResNet-20 as ONNX; folders by class). LoRA r=8, alpha=16; AdamW with decay 0.01 for
tensors of rank 2 or more, linear decay after 6 % of warm-up; batches of 32 of similar length; no dropout; the epoch that is best on DEV is
reported on TEST."""

import copy
import csv
import json
import pathlib
import random
import re
import resource
import sys
import time

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AlbertConfig, AlbertModel, AutoModel, AutoTokenizer, get_linear_schedule_with_warmup


def rows(path):
    with open(path, encoding="utf8") as file:
        return list(csv.DictReader(file))


def weights(model):
    """The initializers of an ONNX file; those of products under their modules' paths, turned as torch has them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    found = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in found:
            path = node.name.strip("/").rsplit("/MatMul", 1)[0].replace("/", ".")
            found[path + ".weight"] = found[node.input[1]].T
    return found


def lora(model, targets):
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets, lora_dropout=0.0))


def pad(lists, value=0):
    longest = max(map(len, lists))
    return torch.tensor([x + [value] * (longest - len(x)) for x in lists])


def mean(net, ids):
    mask = pad([[1] * len(x) for x in ids])
    hidden = net(input_ids=pad(ids), attention_mask=mask).last_hidden_state
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def ranks(x):
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def spearman(a, b):
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


class Pairs:
    better = max

    def __init__(self, model, train):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.net = lora(AutoModel.from_pretrained(model), ["query", "value"])

    def read(self, path):
        encode = lambda text: self.tokenizer(text, truncation=True, max_length=128)["input_ids"]
        return [(encode(r["text"]), encode(r["text_pair"]), float(r["score"]) / 5) for r in rows(path)]

    def length(self, row):
        return max(len(row[0]), len(row[1]))

    def answers(self, batch):
        # As Graft does it, the pairs are rows of the same batch.
        vectors = torch.nn.functional.normalize(mean(self.net, [r[0] for r in batch] + [r[1] for r in batch]), dim=1)
        first, second = vectors.chunk(2)
        return (first * second).sum(1)

    def loss(self, batch):
        return ((self.answers(batch) - torch.tensor([r[2] for r in batch])) ** 2).mean()

    def judge(self, answers, data):
        return spearman(answers, np.array([r[2] for r in data]))


class Molecules:
    better = min

    def __init__(self, model, train):
        folder = pathlib.Path(model).parent
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        base = AlbertModel(AlbertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
        known = {self.path(k): v for k, v in weights(model).items()}
        base.load_state_dict({k: known[k] for k in base.state_dict() if "position_ids" not in k and "token_type_ids" not in k}, strict=False)
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.base = lora(base, ["query", "key", "value", "dense", "ffn", "ffn_output", "embedding_hidden_mapping_in"])
                self.head = torch.nn.Linear(base.config.hidden_size, 1)

        self.net = Net()
        target = np.array([float(r["target"]) for r in rows(train)])
        self.middle, self.spread = target.mean(), target.std()

    def path(self, name):
        return re.sub(r"^albert\.|^(?=encoder\.)", "", name)

    def read(self, path):
        return [(self.tokenizer.encode(r["smiles"]).ids, float(r["target"])) for r in rows(path)]

    def length(self, row):
        return len(row[0])

    def answers(self, batch):
        return self.net.head(mean(self.net.base, [r[0] for r in batch]))[:, 0] * self.spread + self.middle

    def loss(self, batch):
        return (((self.answers(batch) - torch.tensor([r[1] for r in batch])) / self.spread) ** 2).mean()

    def judge(self, answers, data):
        return float(np.sqrt(np.mean((answers - np.array([r[1] for r in data])) ** 2)))


class Block(torch.nn.Module):
    """Two convolutions; where the size changes, the shortcut takes every second pixel and pads channels (option A)."""

    def __init__(self, before, width):
        super().__init__()
        self.stride = width // before
        self.more = (width - before) // 2
        self.conv1 = torch.nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return torch.relu(y + x)


class ResNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        layer = lambda before, width: torch.nn.Sequential(*[Block(before if i == 0 else width, width) for i in range(3)])
        self.layer1, self.layer2, self.layer3 = layer(16, 16), layer(16, 32), layer(32, 64)
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Images:
    better = max

    def __init__(self, model, train):
        net = ResNet()
        net.load_state_dict({k: v for k, v in weights(model).items() if k in net.state_dict()}, strict=False)
        self.net = lora(net, r".*conv[12]")
        self.labels = sorted(p.name for p in pathlib.Path(train).iterdir())

    def read(self, path):
        from PIL import Image

        middle, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        one = lambda p: ((np.asarray(Image.open(p).convert("RGB")) / 255 - middle) / spread).transpose(2, 0, 1)
        files = sorted(pathlib.Path(path).glob("*/*.jpg"))
        return [(torch.tensor(one(p), dtype=torch.float32), self.labels.index(p.parent.name)) for p in files]

    def length(self, row):
        return 0

    def answers(self, batch):
        return self.net(torch.stack([r[0] for r in batch]))

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.answers(batch), torch.tensor([r[1] for r in batch]))

    def judge(self, answers, data):
        return float((answers.argmax(1) == np.array([r[1] for r in data])).mean())


kind, model, train, dev, test, epochs, lr, seed = sys.argv[1:9]
epochs, lr, seed = int(epochs), float(lr), int(seed)
torch.set_num_threads(int(sys.argv[9]) if len(sys.argv) > 9 else 2)
torch.manual_seed(seed)
random.seed(seed)
np.random.seed(seed)
task = {"pairs": Pairs, "molecules": Molecules, "images": Images}[kind](model, train)
data = {name: task.read(path) for name, path in [("train", train), ("dev", dev), ("test", test)]}
net = task.net.eval()  # No dropout, and norms as the base has them.
named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
groups = [
    {"params": [p for _, p in named if p.dim() > 1], "weight_decay": 0.01},
    {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr)
steps = (len(data["train"]) + 31) // 32 * epochs
schedule = get_linear_schedule_with_warmup(optimizer, -(-6 * steps // 100), steps)


def judged(name):
    with torch.inference_mode():
        parts = [task.answers(data[name][i : i + 64]).numpy() for i in range(0, len(data[name]), 64)]
    return task.judge(np.concatenate(parts), data[name])


seconds, best, kept = 0.0, None, None
for epoch in range(epochs):
    began = time.perf_counter()
    order = sorted(range(len(data["train"])), key=lambda i: (task.length(data["train"][i]), random.random()))
    batches = [order[i : i + 32] for i in range(0, len(order), 32)]
    random.shuffle(batches)
    for batch in batches:
        task.loss([data["train"][i] for i in batch]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds += time.perf_counter() - began
    score = judged("dev")
    print(f"epoch {epoch + 1}: {score:.4f} on dev, {seconds:.1f} s", flush=True)
    if best is None or (score != best and task.better(score, best) == score):
        best, kept = score, copy.deepcopy({n: p.detach() for n, p in named})
with torch.no_grad():
    for name, p in named:
        p.copy_(kept[name])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
figures = {"score": judged("test"), "dev": best, "train_seconds": seconds, "peak_rss_mb": peak}
figures["samples_per_second"] = len(data["train"]) * epochs / seconds
print(json.dumps(figures))
