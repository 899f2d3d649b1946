"""Runs the script that follows, with its arguments, with DoRA in the place of LoRA. usage: dora.py SCRIPT ARGUMENT…"""

import functools
import runpy
import sys

import peft

peft.LoraConfig = functools.partial(peft.LoraConfig, use_dora=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
