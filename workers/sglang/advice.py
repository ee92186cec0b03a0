"""What to do about a server that failed, from the last lines it logged.

A table of what SGLang, torch and the hub print in the common cases (0.5.17 and 0.5.21). Called by process.
"""

from __future__ import annotations

import re

_ADVICE = (
    (
        r"not enough memory.*mem[-_]fraction[-_]static|increase --mem-fraction-static",
        "The weights leave no room for the KV cache: raise --mem-fraction-static, or spread the model with --tp.",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "The GPU's memory is too small for this: lower --mem-fraction-static, or spread the model with --tp.",
    ),
    (
        r"RepositoryNotFound|Repository Not Found|is not a local folder and is not a valid model|401 Client Error",
        "There is no such model, or it needs a token: check --model, and set HF_TOKEN for a gated one.",
    ),
    (
        r"LocalEntryNotFoundError|offline mode is enabled|We couldn't connect to|Cannot reach the Hugging Face",
        "The model is not on this machine and cannot be downloaded: fetch it first, and give its folder as --model.",
    ),
    (r"[Aa]ddress already in use|Errno 98", "Something took the port: choose another with --port."),
    (
        r"No CUDA GPUs are available|no NVIDIA driver|CUDA driver version is insufficient|CUDA_ERROR_NO_DEVICE",
        "CUDA finds no GPU: does nvidia-smi work, and does the driver fit this torch?",
    ),
    (r"unrecognized arguments?: (.*)", "This SGLang does not know a flag that it was given; see what follows `--`."),
    (
        r"No module named '?sglang|No module named '?sgl_kernel|ImportError: .*sgl_kernel",
        "SGLang is not installed completely for this Python: pip install sglang, or name another with --python.",
    ),
    (r"No space left on device", "The disk, or /dev/shm, is full."),
    (r"NCCL error|ncclSystemError|ncclInternalError", "NCCL failed: set NCCL_DEBUG=INFO to see why."),
)


def advice(log_tail: str) -> str | None:
    """One sentence on what to do, or None when the lines are of no known kind."""
    return next((text for pattern, text in _ADVICE if re.search(pattern, log_tail)), None)
