"""Soft prompts and prefixes of Hugging Face PEFT over small models of several architectures, against `graft run`.

usage: virtual_tokens.py GRAFT_BINARY [--page docs/interoperability.md] [ARCHITECTURE …]

Needs torch, transformers, peft, onnx, onnxscript and safetensors. Each model has random weights and is exported by both
of PyTorch's exporters, as users do; each adapter is PEFT's own with random virtual tokens, those that come out of an
encoder or a projection too. Prints the largest difference of each and exits 1 where one is above 1e-4. With --page the
table of a page is written anew: of both exporters the larger difference.
"""
import os
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers as hf
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from page import write_table

warnings.filterwarnings("ignore")
TOLERANCE = 1e-4
VOCABULARY, WIDTH, LAYERS, HEADS, TOKENS = 97, 32, 2, 4, 5

small = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
wide = dict(small, intermediate_size=64)
grouped = dict(wide, num_key_value_heads=2)
# Architecture: configuration, model class, PEFT's task, whether the export has an input for positions.
MODELS = {
    "bert": (hf.BertConfig(**wide), hf.BertModel, "FEATURE_EXTRACTION", False),
    "roberta": (hf.RobertaConfig(**wide, pad_token_id=1), hf.RobertaModel, "FEATURE_EXTRACTION", False),
    "distilbert": (
        hf.DistilBertConfig(vocab_size=VOCABULARY, dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=64),
        hf.DistilBertModel, "FEATURE_EXTRACTION", False,
    ),
    "electra": (hf.ElectraConfig(**wide, embedding_size=WIDTH), hf.ElectraModel, "FEATURE_EXTRACTION", False),
    "gpt2": (
        hf.GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS), hf.GPT2LMHeadModel, "CAUSAL_LM", False,
    ),
    "gpt2 with positions": (
        hf.GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS), hf.GPT2LMHeadModel, "CAUSAL_LM", True,
    ),
    "gpt_neox": (hf.GPTNeoXConfig(**wide), hf.GPTNeoXForCausalLM, "CAUSAL_LM", False),
    "llama": (hf.LlamaConfig(**grouped), hf.LlamaForCausalLM, "CAUSAL_LM", False),
    "llama with positions": (hf.LlamaConfig(**grouped), hf.LlamaForCausalLM, "CAUSAL_LM", True),
    "qwen2": (hf.Qwen2Config(**grouped), hf.Qwen2ForCausalLM, "CAUSAL_LM", False),
    "qwen3": (hf.Qwen3Config(**grouped, head_dim=8), hf.Qwen3ForCausalLM, "CAUSAL_LM", False),
    "opt": (
        hf.OPTConfig(**small, ffn_dim=64, word_embed_proj_dim=WIDTH, pad_token_id=1), hf.OPTForCausalLM, "CAUSAL_LM", False,
    ),
    "t5": (
        hf.T5Config(vocab_size=VOCABULARY, d_model=WIDTH, d_ff=64, d_kv=8, num_layers=LAYERS, num_heads=HEADS, decoder_start_token_id=0),
        hf.T5ForConditionalGeneration, "SEQ_2_SEQ_LM", False,
    ),
}
ADAPTERS = {
    "prompt": lambda **sizes: PromptTuningConfig(num_virtual_tokens=TOKENS, **sizes),
    "p-tuning": lambda **sizes: PromptEncoderConfig(num_virtual_tokens=TOKENS, encoder_hidden_size=16, **sizes),
    "prefix": lambda **sizes: PrefixTuningConfig(num_virtual_tokens=TOKENS, **sizes),
    "prefix, projected": lambda **sizes: PrefixTuningConfig(
        num_virtual_tokens=TOKENS, prefix_projection=True, encoder_hidden_size=16, **sizes
    ),
}


class Exported(torch.nn.Module):
    """The model as a function of its tensors in order, without a cache."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors):
        out = self.model(**dict(zip(self.names, tensors)), use_cache=False) if self.cached() else self.model(**dict(zip(self.names, tensors)))
        return out.logits if hasattr(out, "logits") else out.last_hidden_state

    def cached(self):
        return getattr(self.model.config, "use_cache", None) is not None


def inputs(task, positions):
    ids = torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    if task == "SEQ_2_SEQ_LM":
        given["decoder_input_ids"] = ids[:, :5].contiguous()
    if positions:
        given["position_ids"] = torch.arange(9).repeat(3, 1)
    return given


def export(model, given, path, exporter):
    names = list(given)
    out = "logits" if "LM" in type(model).__name__ or "Generation" in type(model).__name__ else "last_hidden_state"
    keywords = dict(input_names=names, output_names=[out])
    wrapped, tensors = Exported(model, names).eval(), tuple(given.values())
    if exporter == "old":
        axes = {n: {0: "batch", 1: "decoder" if "decoder" in n else "sequence"} for n in names + [out]}
        torch.onnx.export(wrapped, tensors, path, dynamic_axes=axes, opset_version=17, dynamo=False, **keywords)
    else:
        batch, sequence, decoder = (torch.export.Dim(n, max=400) for n in ("batch", "sequence", "decoder"))
        shapes = ({0: batch, 1: decoder if "decoder" in n else sequence} for n in names)
        torch.onnx.export(wrapped, tensors, path, dynamic_shapes=(tuple(shapes),), dynamo=True, **keywords)


def compare(graft, base, folder, given, wanted):
    tensors, made = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
    save_file({f"in:{n}": t.contiguous() for n, t in given.items()}, tensors)
    line = [graft, "run", base, "--adapter", os.path.join(folder, "adapter"), "--tensors", tensors, "--out", made]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    ours = next(iter(load_file(made).values()))
    if ours.shape != wanted.shape:
        return None, f"shape {tuple(ours.shape)}, PEFT's is {tuple(wanted.shape)}"
    # What stands where the text is padding is nobody's business.
    seen = torch.cat([torch.ones(3, wanted.shape[1] - given["attention_mask"].shape[1]), given["attention_mask"]], 1) if wanted.shape[1] >= 9 else torch.ones(wanted.shape[:2])
    return ((ours - wanted).abs() * seen.unsqueeze(-1)).max().item(), ""


def main():
    arguments = sys.argv[1:]
    page = arguments.pop(arguments.index("--page") + 1) if "--page" in arguments else None
    graft, *names = [a for a in arguments if a != "--page"]
    failed, table = False, {}
    for name in names or MODELS:
        config, kind, task, positions = MODELS[name]
        config.attn_implementation = config._attn_implementation = "eager"
        torch.manual_seed(0)
        model = kind(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p.normal_(0, 0.3)
        given = inputs(task, positions)
        with tempfile.TemporaryDirectory() as folder:
            bases = {}
            for exporter in ("old", "new"):
                path = os.path.join(folder, f"{exporter}.onnx")
                try:
                    export(model, given, path, exporter)
                    bases[exporter] = path
                except Exception as e:
                    print(f"{name:24} {exporter:4} is not exported: {str(e).splitlines()[0][:90]}", flush=True)
            for method, make in ADAPTERS.items():
                torch.manual_seed(1)
                # PEFT does not know what DistilBERT calls its sizes.
                sizes = dict(num_layers=LAYERS, token_dim=WIDTH, num_attention_heads=HEADS) if name == "distilbert" else {}
                wrapped = get_peft_model(kind(config).eval(), make(task_type=task, **sizes)).eval()
                wrapped.get_base_model().load_state_dict(model.state_dict())
                wanted = {k: v for k, v in given.items() if k != "position_ids"}
                try:
                    with torch.inference_mode():
                        out = wrapped(**wanted)
                except Exception as e:
                    table.setdefault(name, {})[method] = "PEFT can't"
                    print(f"{name:24}      {method:18} PEFT can't: {str(e).splitlines()[0][:90]}", flush=True)
                    continue
                wanted = out.logits if hasattr(out, "logits") else out.last_hidden_state
                wrapped.save_pretrained(os.path.join(folder, "adapter"))
                for exporter, base in bases.items():
                    worst, why = compare(graft, base, folder, given, wanted)
                    bad = worst is None or worst > TOLERANCE
                    failed |= bad
                    figure = why if worst is None else f"{worst:.1e}"
                    known = table.setdefault(name, {}).get(method, "0")
                    table[name][method] = figure if worst is None or worst >= float(known) else known
                    print(f"{name:24} {exporter:4} {method:18} {figure}{'  <-' if bad else ''}", flush=True)
    if page:
        rows = [["base", *ADAPTERS], ["---"] * (len(ADAPTERS) + 1)]
        rows += [[name, *(table[name].get(m, "") for m in ADAPTERS)] for name in table]
        write_table(page, "virtual tokens", rows)
    sys.exit(failed)


main()
