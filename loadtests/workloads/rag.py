"""Questions on long documents: the document comes first, several questions follow, popular documents more often.

Document popularity falls with rank as in Zipf's law, so a few documents are hot on every worker and most are not.
Registered in __init__.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from loadtests.load_request import Json, LoadRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose, question, title


@dataclass(frozen=True, slots=True, kw_only=True)
class Rag:
    """A session asks up to twice `questions` less one about one document, one call each, without history (the
    document is the prefix). `popularity` is Zipf's exponent: 0 makes documents equally popular.
    """

    seed: int = 0
    documents: int = 64
    document_tokens: int = 6000
    questions: int = 3
    output_tokens: int = 120
    think_s: float = 6.0
    popularity: float = 0.9

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        weights = [1 / rank**self.popularity for rank in range(1, self.documents + 1)]
        number = rng.choices(range(self.documents), weights)[0]
        system: Json = {"role": "system", "content": self._document(number)}
        return [
            LoadRequest(
                session_id=f"rag-{index}",
                turn=turn,
                arrival_s=0.0,
                gap_s=rng.expovariate(1 / self.think_s) if turn and self.think_s > 0 else 0.0,
                messages=(system, {"role": "user", "content": question(rng)}),
                max_tokens=self.output_tokens,
                workload="rag",
            )
            for turn in range(rng.randint(1, max(1, 2 * self.questions - 1)))
        ]

    def _document(self, number: int) -> str:
        rng = rng_of(self.seed, "document", number)
        text = prose(rng, self.document_tokens)
        return f"Answer strictly from the document.\n\n<document>\n# {title(rng)}\n\n{text}\n</document>"
