"""The real SGLang server on a machine without a GPU, for tests: its set-up, a tiny model, and running it.

`setup.sh` builds the environment, `python -m workers.sglang.cpu` runs a command while a server is up. Speed and text
of such a server mean nothing; its HTTP, tokenizer, scheduler, radix cache, KV events and metrics are SGLang's own.
"""
