//! Adapter directories: Hugging Face PEFT's format, Graft's own file beside it, digests.
