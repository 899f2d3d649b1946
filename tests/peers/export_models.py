"""Exports tiny random models of many architectures to ONNX, with PyTorch's outputs and gradients beside them.

usage: export_models.py ZOO [NAME...]

Needs torch, transformers, onnx, onnxscript, onnxruntime and safetensors. Writes for each architecture (all, or those
named) ZOO/NAME.ts (the TorchScript exporter) and ZOO/NAME.dynamo (torch.export), and for some the file after ONNX
Runtime's optimiser (.ort), in float16 (.half), after static (.qdq) and dynamic quantisation (.dynquant) and with weights
of four bits (.nbits). A folder holds `model.onnx`,
`about.json` and `io.safetensors`: `in:INPUT`, `out:OUTPUT`, `ct:OUTPUT` (a random cotangent) and `grad:INITIALIZER`, the
gradient of the sum of out*ct. The inputs are of other sizes than those of the export. An initializer is a parameter's
by its bytes, also when it is transposed. What can't be exported has only `about.json`, with the error.
"""
import json
import os
import shutil
import signal
import sys
import traceback
import warnings

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.numpy import save_file

from recurrent import recurrent_parameters
from zoo import ANY_SIZE, BATCH, BATCH_ONLY, DIMS, KEPT, MODELS, PROCESSED

warnings.filterwarnings("ignore")
class Wrapped(torch.nn.Module):
    """A model with its inputs in order and its outputs as a tuple."""

    def __init__(self, model, inputs, fixed, outputs):
        super().__init__()
        self.m, self.inputs, self.fixed, self.outputs = model, inputs, fixed, outputs

    def forward(self, *args):
        out = self.m(**dict(zip(self.inputs, args)), **self.fixed)
        return tuple(getattr(out, name) for name in self.outputs)


def build(name, attention):
    """A model of fixed random weights in which no parameter is uniform or equal to another."""
    cls, config, draw, outputs = MODELS[name]
    torch.manual_seed(0)
    config = config()
    if attention:
        config._attn_implementation = attention
    model = cls(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.add_(torch.randn(p.shape) * 0.02)
            if key.endswith("bias") and p.numel() == 1:
                # A Relu behind a head of one number would give zero alone.
                p.add_(0.5)
        for key, b in model.named_buffers():
            if key.endswith("running_mean"):
                b.copy_(torch.randn(b.shape) * 0.1)
            elif key.endswith("running_var"):
                b.copy_(torch.rand(b.shape) + 0.5)
    example, given = (draw(torch.Generator().manual_seed(s), *size) for s, size in ((1, (2, 8)), (2, (3, 7))))
    fixed = {k: v for k, v in example.items() if not isinstance(v, torch.Tensor)}
    tensors = lambda values: {k: v for k, v in values.items() if k not in fixed}
    wrapped = Wrapped(model, [k for k in example if k not in fixed], fixed, outputs).eval()
    return wrapped, tensors(example), tensors(given)


def export(name, exporter, attention, dynamic, path):
    wrapped, example, given = build(name, attention)
    args, names = tuple(example.values()), list(example)
    dims = {k: ANY_SIZE.get(name) or (DIMS[k] if name not in BATCH_ONLY else BATCH) for k in names}
    common = dict(input_names=names, output_names=wrapped.outputs, verbose=False)
    with torch.no_grad():
        if exporter == "ts":
            # Without this, normalisations are folded into the convolutions in front of them.
            kept = {"training": torch.onnx.TrainingMode.PRESERVE} if name in KEPT else {}
            torch.onnx.export(wrapped, args, path, dynamo=False, opset_version=18, **kept, dynamic_axes=dims if dynamic else None, **common)
        else:
            shapes = (tuple(dims[k] for k in names),) if dynamic else None
            torch.onnx.export(wrapped, args, path, dynamo=True, external_data=False, optimize=name not in KEPT, dynamic_shapes=shapes, **common)
    return wrapped, example, given if dynamic else example


def gradients_of(wrapped, inputs, model, cotangents=None):
    """Outputs, cotangents and the gradients of those initializers of `model` that are parameters."""
    wrapped.zero_grad()
    outputs = dict(zip(wrapped.outputs, wrapped(*inputs.values())))
    generator = torch.Generator().manual_seed(3)
    cts = {k: torch.randn(o.shape, generator=generator) for k, o in outputs.items()}
    sum((outputs[k] * cts[k]).sum() for k in outputs).backward()
    io = {f"in:{k}": v.numpy() for k, v in inputs.items()}
    io |= {f"out:{k}": o.detach().numpy() for k, o in outputs.items()}
    io |= {f"ct:{k}": c.numpy() for k, c in cts.items()}
    by_bytes, lost = {}, set()
    for key, p in wrapped.named_parameters():
        if p.grad is None or float(p.grad.abs().max()) == 0.0 and p.grad.numel() > 1:
            continue
        lost.add(key)
        values, grad = p.detach().numpy(), p.grad.numpy()
        if values.ndim == 2:
            by_bytes[values.T.tobytes(), values.T.shape] = (key, grad.T)
        if values.ndim == 1:
            # Gemma's norms scale by one more than their weight, which exporters add up.
            by_bytes[(values + np.float32(1)).tobytes(), values.shape] = (key, grad)
        by_bytes[values.tobytes(), values.shape] = (key, grad)
        # An exporter may drop or add dimensions of one element.
        by_bytes.setdefault((values.tobytes(), None), (key, grad))
    recurrent = {}
    for keys, values, grad in recurrent_parameters(wrapped):
        by_bytes[values.tobytes(), values.shape] = (keys[0], grad)
        recurrent |= {keys[0]: keys + [f"{key}_reverse" for key in keys]}
    # Quantisers leave the floats in the file, and some of their shapes are still asked for.
    read = {name for n in model.graph.node if n.op_type != "Shape" for name in n.input}
    for i in model.graph.initializer:
        if i.data_type != onnx.TensorProto.FLOAT or i.name not in read:
            continue
        values = numpy_helper.to_array(i)
        key, grad = by_bytes.get((values.tobytes(), values.shape)) or by_bytes.get((values.tobytes(), None)) or (None, None)
        if key is not None:
            io[f"grad:{i.name}"] = np.asarray(grad.reshape(values.shape), order="C")
            lost.difference_update(recurrent.get(key, [key]))
    return {k: np.asarray(v, order="C") for k, v in io.items()}, sorted(lost)


def session(path, **options):
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    for k, v in options.items():
        setattr(settings, k, v)
    return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def same(path, io):
    """Raises where ONNX Runtime gives other outputs than PyTorch: tracing has kept something of the example."""
    made = session(path)
    names = [o.name for o in made.get_outputs()]
    for name, values in zip(names, made.run(names, {i.name: io[f"in:{i.name}"] for i in made.get_inputs()})):
        want = io[f"out:{name}"]
        if values.shape != want.shape or np.linalg.norm(values - want) > 1e-4 * np.linalg.norm(want):
            raise ValueError("ONNX Runtime computes other outputs from the exported file than PyTorch")


def write(folder, about, io=None):
    if io is not None:
        save_file(io, f"{folder}/io.safetensors")
    json.dump(about, open(f"{folder}/about.json", "w", encoding="utf8"), indent=1)
    print(os.path.basename(folder), about.get("error", "ok"), about.get("note", ""), len(about.get("without", [])), flush=True)


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return f"{folder}/model.onnx"


def make(zoo, name, exporter):
    """Exports with as much freedom as the exporter allows: dynamic sizes before fixed ones, the model's own attention
    before the plain one."""
    folder = f"{zoo}/{name}.{exporter}"
    error = None
    for dynamic in (True, False):
        for attention in (None, "eager"):
            path = fresh(folder)
            signal.alarm(400)
            try:
                wrapped, example, given = export(name, exporter, attention, dynamic, path)
                model = onnx.load(path)
                io, lost = gradients_of(wrapped, given, model)
                same(path, io)
                note = ", ".join(["fixed sizes"] * (not dynamic) + ["eager attention"] * (attention == "eager"))
                write(folder, {"note": note, "without": lost}, io)
                return folder, wrapped, given
            except Exception as e:
                first = str(e).strip().splitlines()[0] if str(e).strip() else ""
                error = error or f"{type(e).__name__}: {first}"[:200]
                print(f"  {name}.{exporter} {attention} dynamic={dynamic}: {type(e).__name__}: {first[:160]}", flush=True)
                if os.environ.get("TRACE"):
                    traceback.print_exc()
            finally:
                signal.alarm(0)
    fresh(folder)
    write(folder, {"error": error})


def activations(model, processed, count=10):
    """Names of float activations that the processed file still has, spread over the model."""
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = {v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    kept = {o for n in processed.graph.node for o in n.output}
    kinds = ("MatMul", "Gemm", "Conv", "Add", "LayerNormalization")
    names = [n.output[0] for n in model.graph.node if n.op_type in kinds and n.output[0] in floats & kept]
    # What leads to a mask is added up as well; it depends on no float.
    return [names[i] for i in np.unique(np.linspace(len(names) // 8, len(names) - 1, count).astype(int))]


def is_copy(initializer, parameter):
    return numpy_helper.to_array(initializer).tobytes() == parameter.detach().numpy().tobytes()


def optimised(path, to, feeds):
    import onnxruntime as ort

    level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session(path, graph_optimization_level=level, optimized_model_filepath=to)


def half(path, to, feeds):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path)), to)


def static(path, to, feeds):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [feeds]

        def get_next(self):
            return self.left.pop() if self.left else None

    # A mask of -3e38 has no scale: what is added to scores stays as it is.
    kinds = ["Conv", "Gemm", "MatMul", "Gather", "LayerNormalization"]
    quantize_static(path, to, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=kinds)


def dynamic(path, to, feeds):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(path, to)


def four_bits(path, to, feeds):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # Level 1 computes in float32.
    quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=16, is_symmetric=True, accuracy_level=1)
    quantizer.process()
    quantizer.model.save_model_to_file(to)


KINDS = {"ort": optimised, "half": half, "qdq": static, "dynquant": dynamic, "nbits": four_bits}


def process(folder, wrapped, given):
    """The file after ONNX Runtime's optimiser, in float16, and after the quantisers."""
    feeds = {k: v.numpy() for k, v in given.items()}
    plain = onnx.load(f"{folder}/model.onnx")
    for kind, maker in KINDS.items():
        to = fresh(f"{folder}.{kind}")
        try:
            maker(f"{folder}/model.onnx", to, feeds)
            made = onnx.load(to)
            io, lost = rounded_gradients(wrapped, given, plain) if kind == "half" else gradients_of(wrapped, given, made)
            about = {"note": "", "without": lost}
            if kind == "half":
                about["half"] = True
                names = {i.name for i in made.graph.initializer}
                io = {k: v for k, v in io.items() if not k.startswith("grad:") or k[5:] in names}
                low = lambda v: v.astype(np.float16) if v.dtype == np.float32 else v
                io = {k: low(v) if k.startswith(("in:", "ct:")) else v for k, v in io.items()}
            elif kind != "ort":
                about |= {"quantised": True, "float": os.path.basename(folder), "activations": activations(plain, made)}
                io |= quantised_outputs(to, wrapped.outputs, feeds, about)
                # Of a tied table one use is packed, and the other is no whole parameter.
                table = wrapped.m.get_input_embeddings() if wrapped.m.config.to_dict().get("tie_word_embeddings") else None
                tied = {i.name for i in made.graph.initializer if table is not None and is_copy(i, table.weight)}
                io = {k: v for k, v in io.items() if k.removeprefix("grad:") not in tied}
            write(f"{folder}.{kind}", about, io)
        except Exception as e:
            write(f"{folder}.{kind}", {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0]}"[:200]})


def rounded_gradients(wrapped, given, plain):
    """Those of the model whose parameters and inputs are numbers of float16: what rounding them changes is no error of the
    gradients. A parameter keeps its name in float16, but not its bytes."""
    low = lambda v: v.half().float() if v.dtype == torch.float32 else v
    kept = {k: v.clone() for k, v in wrapped.state_dict().items()}
    rounded = onnx.ModelProto()
    rounded.CopyFrom(plain)
    for i in rounded.graph.initializer:
        if i.data_type == onnx.TensorProto.FLOAT:
            i.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(i).astype(np.float16).astype(np.float32), i.name))
    wrapped.load_state_dict({k: low(v) for k, v in kept.items()})
    try:
        return gradients_of(wrapped, {k: low(v) for k, v in given.items()}, rounded)
    finally:
        wrapped.load_state_dict(kept)


def quantised_outputs(path, names, feeds, about):
    """What ONNX Runtime computes from the file as it is written. How far its integer kernels are from that, where a
    number is rounded to the next step, is the tolerance."""
    import onnxruntime as ort

    written = session(path, graph_optimization_level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL).run(names, feeds)
    joined = session(path).run(names, feeds)
    far = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
    about["rounding"] = {k: far(a, b) for k, a, b in zip(names, joined, written)}
    return {f"out:{k}": v for k, v in zip(names, written)}


def expire(*_):
    raise TimeoutError("the exporter did not end in time")


if __name__ == "__main__":
    zoo, names = sys.argv[1], sys.argv[2:] or list(MODELS)
    signal.signal(signal.SIGALRM, expire)
    os.makedirs(zoo, exist_ok=True)
    for name in names:
        for exporter in ("ts", "dynamo"):
            made = make(zoo, name, exporter)
            if made and name in PROCESSED:
                process(*made)
