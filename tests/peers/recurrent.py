"""Recurrent layers for the zoo: a small model, and how its parameters lie in an ONNX file."""
from types import SimpleNamespace

import torch


class Recurrent(torch.nn.Module):
    """Two recurrent layers of both directions over an embedding: all states, and the last ones through a head."""

    def __init__(self, config, vocabulary=99):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, 16)
        self.layers = config.layers(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(12, 5)

    def forward(self, input_ids):
        states, last = self.layers(self.embedding(input_ids))
        last = last[0] + last[1].tanh() if isinstance(last, tuple) else last
        return SimpleNamespace(last_hidden_state=states, pooler_output=self.head(last))


def recurrent_parameters(model):
    """Parameters of recurrent layers as ONNX has them, with their gradients: directions stacked, gates in its order."""
    for name, m in model.named_modules():
        if not isinstance(m, (torch.nn.LSTM, torch.nn.GRU)):
            continue
        order = [0, 3, 1, 2] if isinstance(m, torch.nn.LSTM) else [1, 0, 2]
        as_onnx = lambda v: torch.cat([v.detach().chunk(len(order))[k] for k in order])
        for layer in range(m.num_layers):
            of = lambda kind: [getattr(m, f"{kind}_l{layer}{way}") for way in ("", "_reverse")[: 1 + m.bidirectional]]
            pairs = list(zip(of("bias_ih"), of("bias_hh")))
            for kind in ("weight_ih", "weight_hh"):
                yield [f"{name}.{kind}_l{layer}"], *(torch.stack([as_onnx(f(p)) for p in of(kind)]).numpy() for f in (lambda p: p, lambda p: p.grad))
            yield [f"{name}.bias_ih_l{layer}", f"{name}.bias_hh_l{layer}"], *(torch.stack([torch.cat([as_onnx(f(p)) for p in pair]) for pair in pairs]).numpy() for f in (lambda p: p, lambda p: p.grad))
