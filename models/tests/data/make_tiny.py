"""Writes a tiny checkpoint with random weights: make_tiny.py roberta|distilbert OUT_DIR"""
import sys, torch, transformers as t

torch.manual_seed(3)
kind, out = sys.argv[1:3]
if kind == 'roberta':
    c = t.RobertaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
                        max_position_embeddings=20, type_vocab_size=1, pad_token_id=1, hidden_act='gelu_new')
    m = t.RobertaForMaskedLM(c)
else:
    c = t.DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=20)
    m = t.DistilBertModel(c)
for p in m.parameters():
    torch.nn.init.normal_(p, std=0.3)
m.save_pretrained(out)
