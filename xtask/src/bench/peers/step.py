"""One LoRA training step of Hugging Face PEFT at batches of a constant shape, and the base's forward pass.

usage: step.py MODEL_DIR lora|lora_all BATCH LENGTH STEPS THREADS [cpu|cuda]
"""

import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification

model, method = sys.argv[1:3]
batch, length, steps, threads = map(int, sys.argv[3:7])
device = sys.argv[7] if len(sys.argv) > 7 else "cpu"
torch.set_num_threads(threads)
torch.manual_seed(0)
targets = ["query", "value"] if method == "lora" else ["query", "key", "value", "dense"]
config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=targets, lora_dropout=0.0)
adapted = get_peft_model(AutoModelForSequenceClassification.from_pretrained(model, num_labels=6), config)
adapted = adapted.to(device).train()
base = AutoModel.from_pretrained(model).to(device).eval()
optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-3)
ids = torch.randint(1000, 21000, (batch, length), device=device)
mask = torch.ones_like(ids)
labels = torch.arange(batch, device=device) % 6


def step():
    loss = adapted(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def forward():
    with torch.inference_mode():
        base(input_ids=ids, attention_mask=mask)
        if device == "cuda":
            torch.cuda.synchronize()


def times(work):
    for _ in range(3):
        work()
    taken = []
    for _ in range(steps):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1e3)
    return sorted(taken)[steps // 2], min(taken)


(median, best), (forward_median, forward_best) = times(step), times(forward)
print(
    f"RESULT step_ms={median:.2f} step_min_ms={best:.2f} forward_ms={forward_median:.2f} forward_min_ms={forward_best:.2f}"
)
