"""Runs a training script of PyTorch's up to the end of its first AdamW step, says so, and stops.

usage: startup.py SCRIPT ITS ARGUMENTS
"""

import os
import runpy
import sys

import torch

step = torch.optim.AdamW.step


def first(self, *args, **kwargs):
    step(self, *args, **kwargs)
    print("FIRST STEP", flush=True)
    os._exit(0)


torch.optim.AdamW.step = first
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
