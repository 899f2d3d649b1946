"""Writes a small convolutional base, LoHa and DoRA of PEFT over its convolutions, and what PEFT computes with them.

usage: make_conv.py OUT_DIR

Needs torch, peft, safetensors, onnx and onnxscript. Weights are random; the adapters' parameters get seeded noise.
"""
import os
import sys
import warnings

import onnx
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

warnings.filterwarnings("ignore")
CASES = {
    "loha": LoHaConfig(r=3, alpha=5, target_modules=["stem", "point", "last"]),
    "loha_groups": LoHaConfig(r=3, alpha=5, target_modules=["middle"]),
    "loha_effective": LoHaConfig(
        r=3, target_modules=["stem", "middle", "point"], use_effective_conv2d=True, rank_pattern={"middle": 2},
    ),
    "dora": LoraConfig(r=2, lora_alpha=4, target_modules=["stem", "point", "last"], use_dora=True),
}


class Net(nn.Module):
    """Strides, padding, groups, a kernel of 1, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=2)
        self.point = nn.Conv2d(8, 6, 1, bias=False)
        self.last = nn.Linear(6, 4)

    def forward(self, pixels):
        x = self.point(torch.relu(self.middle(torch.relu(self.stem(pixels)))))
        return self.last(torch.relu(x).mean((2, 3)))


def main(out):
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, 9, 8)
    save_file({"in:pixels": pixels}, f"{out}/in.safetensors")
    net = Net().eval()
    axes = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
    for name, dynamo in (("ts", False), ("dynamo", True)):
        shapes = {"dynamic_shapes": {"pixels": {0: "batch"}}} if dynamo else {"dynamic_axes": axes}
        torch.onnx.export(
            net, (pixels,), f"{out}/{name}.onnx", input_names=["pixels"], output_names=["logits"], dynamo=dynamo,
            external_data=False, verbose=False, **shapes,
        )
        # The new exporter writes down where the script lay.
        model = onnx.load(f"{out}/{name}.onnx")
        for node in model.graph.node:
            kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        onnx.save(model, f"{out}/{name}.onnx")
    for name, config in CASES.items():
        torch.manual_seed(1)
        plain = Net()
        plain.load_state_dict(net.state_dict())
        model = get_peft_model(plain, config).eval()
        with torch.no_grad():
            for p in (p for p in model.parameters() if p.requires_grad):
                p.add_(torch.randn_like(p) * 0.3)
            logits = model(pixels)
        model.save_pretrained(f"{out}/{name}")
        os.remove(f"{out}/{name}/README.md")
        save_file({"out:logits": logits.contiguous()}, f"{out}/{name}/out.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
