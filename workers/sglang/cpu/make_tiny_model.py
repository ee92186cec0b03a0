"""Writes a tiny random Llama model with a byte-level BPE tokenizer and a ChatML template: make_tiny_model.py OUT_DIR.

About 250 thousand parameters, 2,048 tokens of vocabulary, 16,384 tokens of context. Its text is noise; its prefix
cache, streaming and token counts are real. Run by setup.sh with the Python of the environment it builds.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch  # type: ignore[import-not-found]  # this runs in the environment of setup.sh
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (  # type: ignore[import-not-found]
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 2048
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")  # ids 0, 1, 2
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer trained on the Python standard library: text that is on every machine."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:120]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in corpus], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL_TOKENS[1], pad_token=SPECIAL_TOKENS[2])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model() -> LlamaForCausalLM:
    """Two layers of random weights; the same on every machine."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16384,
            eos_token_id=1,
            pad_token_id=2,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    make_tokenizer().save_pretrained(out)
    make_model().save_pretrained(out)
