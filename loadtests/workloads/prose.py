"""Plausible English from a small vocabulary and a seeded Random: sentences, paragraphs and documents of a given size.

What it says means nothing; its length, its word lengths and where two texts agree are what matters. Called by the
workloads and by block_text.py.
"""

from __future__ import annotations

from random import Random

BYTES_PER_TOKEN = 4
"""English averages about four bytes a token in the tokenizers of current models; the simulated worker's is exact."""

SUBJECTS = (
    "the scheduler", "a customer", "the invoice", "our service", "the second engine", "a reader", "the committee",
    "this section", "the passenger", "an operator", "the archive", "the compiler", "a patient", "the network",
    "each branch", "the contract", "a small team", "the morning report", "the warehouse", "every session",
    "the librarian", "a visitor", "the pump", "the first draft", "a neighbour", "the harbour", "the survey",
)  # fmt: skip
VERBS = (
    "records", "explains", "delays", "replaces", "returns", "accepts", "measures", "rejects", "follows", "describes",
    "compares", "opens", "repairs", "confirms", "moves", "reads", "carries", "forgets", "checks", "orders", "keeps",
    "answers", "divides", "improves", "counts", "mentions", "requires", "signs",
)  # fmt: skip
OBJECTS = (
    "the remaining payment", "a list of exceptions", "the booking", "two earlier versions", "the water level",
    "a written request", "the cost of storage", "the older rule", "a spare part", "the shared table",
    "the results of last year", "an open question", "the middle chapter", "a change of address", "the queue",
    "the temperature", "a sample of letters", "the emergency plan", "a refund", "the night train", "the key",
    "several measurements", "the map of the valley", "a second opinion", "the error message", "the daily limit",
)  # fmt: skip
ENDINGS = (
    "before noon", "without a reason", "in the usual order", "after a short pause", "when the limit is reached",
    "as the manual says", "in most cases", "twice a week", "near the entrance", "for the third time",
    "with great care", "unless the weather changes", "at the end of the month", "on behalf of the owner",
    "while the others wait", "under the new agreement", "from the beginning", "within two days", "by mistake",
)  # fmt: skip
TOPICS = (
    "payments", "storage", "travel", "maintenance", "safety", "training", "deliveries", "archives", "heating",
    "contracts", "insurance", "gardens", "printing", "bridges", "translations", "recipes", "accounts", "ferries",
)  # fmt: skip


def sentence(rng: Random) -> str:
    """Eight to twelve words, about 14 tokens."""
    words = (rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS), rng.choice(ENDINGS))
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def prose(rng: Random, tokens: int) -> str:
    """Sentences in paragraphs of six, of `tokens` tokens at four bytes each, cut where that ends."""
    size = tokens * BYTES_PER_TOKEN
    pieces: list[str] = []
    length = 0
    while length < size:
        piece = sentence(rng) + ("\n\n" if len(pieces) % 6 == 5 else " ")
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces)[:size]


def question(rng: Random) -> str:
    """One short question, about 12 tokens."""
    return f"Why does it matter that {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}?"


def title(rng: Random) -> str:
    """A heading of two or three words."""
    return f"{rng.choice(TOPICS).capitalize()} and {rng.choice(TOPICS)}"
