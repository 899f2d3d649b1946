"""Adapters of AdapterHub's library over the checkpoint in CHECKPOINT, with what it gives for given inputs.

Usage: make_bottleneck.py CHECKPOINT IO OUT
Needs the package `adapters` 1.3.0. IO is a safetensors file with `in:` tensors; OUT gets a folder for each adapter, as
the library writes it, and in it `out.safetensors` with the logits.
"""

import pathlib
import sys

import adapters
import torch
from adapters import BnConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

CASES = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "parallel": ParBnConfig(reduction_factor=8, scaling="learned"),
    "norms": SeqBnConfig(
        reduction_factor=4, ln_before=True, ln_after=True, scaling="channel", non_linearity="gelu_new",
        residual_before_ln=False,
    ),
    "around": BnConfig(
        mh_adapter=True, output_adapter=True, reduction_factor=5, non_linearity="leakyrelu", scaling=0.5,
        original_ln_before=True, original_ln_after=False, residual_before_ln="post_add", ln_after=True,
        adapter_residual_before_ln=True, leave_out=[1],
    ),
}


def main(checkpoint, io, out):
    inputs = {k[3:]: v for k, v in load_file(io).items() if k.startswith("in:")}
    for name, config in CASES.items():
        torch.manual_seed(1)
        model = BertForSequenceClassification.from_pretrained(checkpoint)
        adapters.init(model)
        model.add_adapter(name, config=config)
        model.set_active_adapters(name)
        for key, p in model.named_parameters():
            if f".adapters.{name}." in key:
                p.data = torch.randn_like(p) * 0.3 + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        model.eval()
        with torch.no_grad():
            logits = model(**inputs).logits
        folder = pathlib.Path(out) / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            model.save_adapter(str(folder), name, use_safetensors=True)
        except RuntimeError:
            # The library keeps the norm in front under two names, which it can't write as safetensors itself.
            own = {k: v.clone() for k, v in model.state_dict().items() if f".adapters.{name}." in k}
            save_file(own, str(folder / "adapter.safetensors"))
        model.save_head(str(folder), "default", use_safetensors=True)
        save_file({"out:logits": logits.contiguous()}, str(folder / "out.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
