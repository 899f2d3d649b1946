//! ONNX Runtime for Graft: finding the library, providers, sessions, kernels.
