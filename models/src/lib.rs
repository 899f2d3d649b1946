//! Architectures as graph recipes: a Hugging Face checkpoint directory to an ONNX base.
