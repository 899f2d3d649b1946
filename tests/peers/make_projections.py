"""Writes pairs of models with the same weights, of which one has its projections fused and the other has them split, with
PEFT's adapters on each and what PEFT computes with them.

usage: make_projections.py OUT_DIR

Needs torch, transformers, peft, onnx, onnxscript and safetensors. `llama` is Llama (`q_proj`, `k_proj`, `v_proj`,
`gate_proj`, `up_proj`) and Phi-3 (`qkv_proj`, `gate_up_proj`); `gpt2` is GPT-2 (`c_attn`) and GPT-2 with `q_proj`, `k_proj`
and `v_proj`. OUT_DIR/PAIR gets `split` and `fused` of both exporters, `io.safetensors` and the adapters, named after the
model that they are for, with `out.safetensors` each. The parameters get seeded noise; nothing is trained.
"""
import os
import sys

import onnx
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel, Phi3Config, Phi3Model
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

SIZES = dict(
    vocab_size=32, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5,
    attn_implementation="eager",
)
QKV, GATE_UP = ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]


def lora(targets, **options):
    return LoraConfig(**{"r": 2, "lora_alpha": 4, "target_modules": targets, **options})


# Two of three; other ranks and alphas for one of them; magnitudes; scales.
LLAMA = {
    "split_lora": lora(["q_proj", "v_proj"]),
    "split_numbers": lora(
        QKV + GATE_UP + ["down_proj"], use_rslora=True, rank_pattern={"k_proj": 1}, alpha_pattern={"q_proj": 3, "up_proj": 7}
    ),
    "split_dora": lora(QKV + GATE_UP, use_dora=True),
    "split_ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "split_dora_some": lora(["q_proj", "v_proj"], use_dora=True),
    "fused_lora": lora(["qkv_proj", "gate_up_proj", "o_proj"]),
    "fused_dora": lora(["qkv_proj", "gate_up_proj"], use_dora=True),
    "fused_ia3": IA3Config(target_modules=["qkv_proj", "gate_up_proj"], feedforward_modules=["gate_up_proj"]),
}
GPT2 = {
    "split_bias": lora(QKV, bias="lora_only"),
    "fused_bias": lora(["c_attn"], bias="lora_only", fan_in_fan_out=True),
}


class Split(GPT2Attention):
    """GPT-2's attention with three linear layers in the place of one."""

    def __init__(self, old, config, index):
        super().__init__(config, layer_idx=index)
        weights, biases = old.c_attn.weight.T.chunk(3), old.c_attn.bias.chunk(3)
        del self._modules["c_attn"]
        for name, weight, bias in zip(QKV, weights, biases):
            layer = nn.Linear(*weight.shape[::-1])
            layer.weight.data, layer.bias.data = weight.contiguous().clone(), bias.clone()
            setattr(self, name, layer)
        self.c_proj.load_state_dict(old.c_proj.state_dict())

    def c_attn(self, x):
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)


def llama():
    split = LlamaModel(LlamaConfig(**SIZES))
    fused = Phi3Model(Phi3Config(**SIZES))
    state = {}
    for name, value in split.state_dict().items():
        parts = QKV if "q_proj" in name else GATE_UP if "gate_proj" in name else [name]
        if any(n in name for n in ["k_proj", "v_proj", "up_proj"]):
            continue
        whole = torch.cat([split.state_dict()[name.replace(parts[0], p)] for p in parts])
        state[name.replace("q_proj", "qkv_proj").replace("gate_proj", "gate_up_proj")] = whole
    fused.load_state_dict(state)
    return split, fused


def gpt2():
    config = GPT2Config(
        vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=32, n_inner=20, attn_implementation="eager"
    )
    fused, split = GPT2Model(config), GPT2Model(config)
    # Exporters keep equal tensors once, such as biases of zeros.
    noise(fused.parameters(), 0.05)
    split.load_state_dict(fused.state_dict())
    for i, block in enumerate(split.h):
        block.attn = Split(block.attn, config, i)
    return split, fused


PAIRS = [("llama", llama, LLAMA), ("gpt2", gpt2, GPT2)]


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.m = model

    def forward(self, input_ids, attention_mask):
        return self.m(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state


def export(model, given, stem):
    keywords = dict(input_names=list(given), output_names=["last_hidden_state"])
    axes = {name: {0: "batch", 1: "sequence"} for name in given}
    wrapped, tensors = Wrapped(model), tuple(given.values())
    torch.onnx.export(
        wrapped, tensors, f"{stem}.ts.onnx", dynamic_axes=axes, opset_version=17, dynamo=False, **keywords
    )
    batch, sequence = torch.export.Dim("batch", max=30), torch.export.Dim("sequence", max=30)
    shapes = {name: {0: batch, 1: sequence} for name in given}
    torch.onnx.export(
        wrapped, tensors, f"{stem}.dynamo.onnx", dynamic_shapes=shapes, dynamo=True, external_data=False,
        verbose=False, **keywords,
    )


    for exporter in ["ts", "dynamo"]:
        strip(f"{stem}.{exporter}.onnx")


def strip(path):
    """Leaves out where in whose files the code stands."""
    model = onnx.load(path)
    for node in model.graph.node:
        kept = [p for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)


def noise(parameters, size):
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * size)


def main(out):
    torch.set_num_threads(1)
    given = dict(input_ids=torch.randint(3, 32, (2, 7)), attention_mask=torch.ones(2, 7, dtype=torch.long))
    given["attention_mask"][1, 5:] = 0
    for pair, make, adapters in PAIRS:
        def models():
            torch.manual_seed(5)
            split, fused = make()
            return {"split": split.eval(), "fused": fused.eval()}

        folder = f"{out}/{pair}"
        os.makedirs(folder, exist_ok=True)
        plain = {kind: model(**given).last_hidden_state.detach() for kind, model in models().items()}
        assert torch.allclose(plain["split"], plain["fused"], atol=1e-6)
        save_file({f"in:{k}": v for k, v in given.items()}, f"{folder}/io.safetensors")
        for kind, model in models().items():
            export(model, given, f"{folder}/{kind}")
        for name, config in adapters.items():
            base = models()[name.split("_")[0]]
            model = get_peft_model(base, config).eval()
            noise((p for p in model.parameters() if p.requires_grad), 0.2)
            with torch.no_grad():
                hidden = model(**given).last_hidden_state
            print(pair, name, (hidden - plain["split"]).abs().max().item())
            model.save_pretrained(f"{folder}/{name}")
            os.remove(f"{folder}/{name}/README.md")
            save_file({"out:last_hidden_state": hidden.contiguous()}, f"{folder}/{name}/out.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
