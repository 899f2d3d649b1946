"""Asks a running `graft serve` through the unmodified clients `openai` and `huggingface_hub`.

usage: ask_server.py ADDRESS CLASSIFIER

ADDRESS is like http://127.0.0.1:8080, CLASSIFIER an adapter that classifies texts. Needs openai, huggingface_hub and numpy.
Fails where an answer is not what the clients expect.
"""
import sys

import numpy as np
import openai
from huggingface_hub import InferenceClient

TEXTS = ["hello world", "what is deep learning?"]


def of_openai(address, adapter):
    """Models, vectors in both encodings, an unknown adapter."""
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    models = {m.id: m for m in client.models.list().data}
    base = models[adapter].parent
    assert models[base].parent is None and models[adapter].root
    # The client asks for base64 by itself.
    packed = client.embeddings.create(model=adapter, input=TEXTS)
    floats = client.embeddings.create(model=adapter, input=TEXTS, encoding_format="float")
    for one, other in zip(packed.data, floats.data, strict=True):
        assert np.allclose(one.embedding, other.embedding, atol=1e-6)
    assert packed.usage.total_tokens == floats.usage.total_tokens > 0
    answer = client.embeddings.with_raw_response.create(model=base, input="a")
    assert answer.headers["x-adapter"] == base
    try:
        client.embeddings.create(model="nobody", input="a")
    except openai.NotFoundError as e:
        assert e.code == "model_not_found" and e.param == "model"
    else:
        raise AssertionError("an unknown adapter was answered")


def of_hugging_face(address, adapter):
    """Labels, vectors, likeness."""
    labels = InferenceClient(f"{address}/a/{adapter}").text_classification(TEXTS[1], top_k=2)
    assert len(labels) == 2 and labels[0].score >= labels[1].score
    client = InferenceClient(address)
    vectors = client.feature_extraction(TEXTS[0])
    assert vectors.ndim == 2 and abs(np.linalg.norm(vectors[0]) - 1) < 1e-5
    alike = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    assert abs(alike[0] - 1) < 1e-5 and alike[1] < 1


def main():
    address, adapter = sys.argv[1:]
    of_openai(address, adapter)
    of_hugging_face(address, adapter)
    print("all is as the clients expect it")


if __name__ == "__main__":
    main()
