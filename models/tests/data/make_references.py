"""Writes what PyTorch computes for a checkpoint, which the tests compare with.
usage: make_references.py HF_DIR OUT.safetensors LENGTH,LENGTH,... [types]
A row has so many tokens and is padded up to the longest; a length of 0 masks the whole row. With `types`, the second half
of each row is of segment 1."""
import sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

src, out, lengths = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3].split(',')]
m = AutoModel.from_pretrained(src, attn_implementation='eager').eval()
torch.manual_seed(7)
B, S = len(lengths), max(lengths)
pad = m.config.pad_token_id or 0
mask = (torch.arange(S)[None] < torch.tensor(lengths)[:, None]).long()
ids = torch.randint(pad + 1, m.config.vocab_size, (B, S))
feed = dict(input_ids=torch.where(mask.bool(), ids, pad), attention_mask=mask)
if 'types' in sys.argv[4:]:
    feed['token_type_ids'] = (torch.arange(S) >= S // 2).long().expand(B, S).contiguous()
with torch.no_grad():
    y = m(**feed)
tensors = {'in:' + k: v for k, v in feed.items()} | {'out:last_hidden_state': y.last_hidden_state}
# A pooler that the checkpoint lacks is made up by transformers.
if any('pooler' in k for k in load_file(src + '/model.safetensors')):
    tensors['out:pooler_output'] = y.pooler_output
save_file({k: v.contiguous() for k, v in tensors.items()}, out)
