"""Exports small Keras models to ONNX by tf2onnx, with TensorFlow's outputs and gradients beside them.

usage: export_tf_models.py ZOO [NAME...]

Needs tensorflow, tf2onnx and safetensors. Writes ZOO/NAME.tf in the format that export_models.py describes. An initializer
is a variable's by its numbers, in their order or transposed. A variable that the exporter has folded into others (batch
normalisation into the convolution in front) has none; `in:INPUT` has a gradient in each model whose inputs are floats.
"""
import json
import os
import shutil
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

layers = tf.keras.layers


def gelu(x):
    """The tanh form: tf2onnx has no Erfc, which the exact one is made of."""
    return tf.nn.gelu(x, approximate=True)

VOCAB = 60


def cnn():
    x = image = layers.Input((24, 24, 3), name="image")
    for width, strides in ((8, 1), (12, 2)):
        x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.SeparableConv2D(16, 3, padding="same", activation="swish")(x)
    x = layers.AveragePooling2D(2, padding="same")(x)
    x = layers.Dense(20, activation=gelu)(layers.Flatten()(x))
    return tf.keras.Model(image, layers.Dense(5)(x))


def unet():
    image = layers.Input((16, 16, 2), name="image")
    down = layers.Conv2D(6, 3, padding="same", activation="elu")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation=layers.LeakyReLU(0.1))(down)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Concatenate()([x, down])
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    return tf.keras.Model(image, layers.Conv2D(2, 1)(x))


def mobilenet():
    return tf.keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=7, classifier_activation=None)


def efficientnet():
    # Not version 1, and without preprocessing: tf2onnx makes inputs of the constants of a Normalization layer.
    return tf.keras.applications.EfficientNetV2B0(input_shape=(64, 64, 3), weights=None, classes=7, classifier_activation=None, include_preprocessing=False)


def resnet():
    return tf.keras.applications.ResNet50V2(input_shape=(32, 32, 3), weights=None, classes=7, classifier_activation=None)


def text_cnn():
    ids = layers.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(VOCAB, 16)(ids)
    parts = [layers.GlobalMaxPooling1D()(layers.Conv1D(8, k, activation="relu", padding="same")(x)) for k in (2, 3, 5)]
    return tf.keras.Model(ids, layers.Dense(4)(layers.Concatenate()(parts)))


def transformer():
    ids = layers.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(VOCAB, 16)(ids)
    for _ in range(2):
        a = layers.MultiHeadAttention(4, 4)(x, x)
        x = layers.LayerNormalization()(x + a)
        f = layers.Dense(16)(layers.Dense(32, activation=gelu)(x))
        x = layers.LayerNormalization()(x + f)
    return tf.keras.Model(ids, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


MODELS = {
    "keras-cnn": cnn,
    "keras-unet": unet,
    "keras-mobilenet-v2": mobilenet,
    "keras-efficientnet-v2-b0": efficientnet,
    "keras-resnet50-v2": resnet,
    "keras-text-cnn": text_cnn,
    "keras-transformer": transformer,
}


def build(name):
    """A model of fixed random weights, none uniform; normalisations stay near 1, so that nothing vanishes."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(0)
    model = MODELS[name]()
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.dtype == "float32" and v.name != "normalization_variance":
            noise = rng.standard_normal(v.shape).astype(np.float32)
            v.assign_add(np.abs(noise) * 0.1 if "variance" in v.name else noise * 0.02)
    return model


def inputs_of(model, batch, length, seed):
    rng = np.random.default_rng(seed)
    made = {}
    for i in model.inputs:
        shape = [batch, *(d or length for d in i.shape[1:])]
        real = i.dtype == "float32"
        made[i.name] = rng.standard_normal(shape).astype(np.float32) if real else rng.integers(0, VOCAB, shape).astype(np.int32)
    return made


def gradients_of(model, file, given):
    """What export_models.py writes, from `tape.gradient`."""
    values = [tf.constant(v) for v in given.values()]
    with tf.GradientTape() as tape:
        tape.watch([v for v in values if v.dtype.is_floating])
        out = model(values if len(values) > 1 else values[0], training=False)
        ct = np.random.default_rng(3).standard_normal(out.shape).astype(np.float32)
        loss = tf.reduce_sum(out * ct)
    floats = [(k, v) for k, v in zip(given, values) if v.dtype.is_floating]
    variables = list(model.trainable_variables)
    grads = tape.gradient(loss, [v for _, v in floats] + [v.value for v in variables])
    name = file.graph.output[0].name
    io = {f"in:{k}": v for k, v in given.items()} | {f"out:{name}": out.numpy(), f"ct:{name}": ct}
    io |= {f"grad:{k}": g.numpy() for (k, _), g in zip(floats, grads)}
    known, lost = by_bytes(variables, grads[len(floats):])
    for i in file.graph.initializer:
        stored = numpy_helper.to_array(i)
        key, grad = known.get((stored.tobytes(), stored.shape)) or known.get((stored.tobytes(), None)) or (None, None)
        if i.data_type == onnx.TensorProto.FLOAT and key is not None:
            io[f"grad:{i.name}"] = grad.reshape(stored.shape)
            lost.discard(key)
    return {k: np.asarray(v, order="C") for k, v in io.items()}, sorted(lost)


def by_bytes(variables, grads):
    """Gradients by the numbers that a variable may be stored as."""
    known, lost = {}, set()
    for v, g in zip(variables, grads):
        if g is None:
            continue
        lost.add(v.path)
        value, grad = v.numpy(), tf.convert_to_tensor(g).numpy()
        # Kernels are [height, width, in, out] here and [out, in, height, width] there.
        orders = [tuple(range(value.ndim)), tuple(reversed(range(value.ndim)))]
        orders += {3: [(2, 1, 0)], 4: [(3, 2, 0, 1), (2, 3, 0, 1)]}.get(value.ndim, [])
        for order in orders:
            known[np.ascontiguousarray(value.transpose(order)).tobytes(), value.transpose(order).shape] = (v.path, grad.transpose(order))
            known.setdefault((np.ascontiguousarray(value.transpose(order)).tobytes(), None), (v.path, grad.transpose(order)))
    return known, lost


def make(zoo, name):
    folder = f"{zoo}/{name}.tf"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        model = build(name)
        signature = [tf.TensorSpec([None, *i.shape[1:]], i.dtype, name=i.name) for i in model.inputs]
        # A function of the model, for tf2onnx's own entry for Keras models knows Keras 2 alone.
        function = tf.function(lambda *x: model(x if len(x) > 1 else x[0], training=False), input_signature=signature)
        file, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
        onnx.save(file, f"{folder}/model.onnx")
        io, lost = gradients_of(model, file, inputs_of(model, 3, 11, 2))
        save_file(io, f"{folder}/io.safetensors")
        about = {"note": "", "without": lost}
    except Exception as e:
        about = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0]}"[:200]}
    json.dump(about, open(f"{folder}/about.json", "w", encoding="utf8"), indent=1)
    print(name, about.get("error", "ok"), len(about.get("without", [])), flush=True)


if __name__ == "__main__":
    for name in sys.argv[2:] or MODELS:
        make(sys.argv[1], name)
