"""The KV pages of one engine: free, in the tree (locked or evictable), or owned by a running request.

Every page is in exactly one of these; their sum never changes. Called by admission.py and engine.py.
"""

from __future__ import annotations

from workers.simulated.radix_cache import CacheListener, RadixCache
from workers.simulated.request_state import RequestState


class KvMemory:
    """Moves pages between their owners. `cache` may be read by others, and changed only here."""

    def __init__(self, capacity_tokens: int, page_size: int, listener: CacheListener | None = None) -> None:
        self.page_size = page_size
        self.capacity_pages = capacity_tokens // page_size
        self.cache = RadixCache(listener)
        self._owned = 0
        self._attached = 0  # pages of the tree, as often as requests hold them

    @property
    def shared_tokens(self) -> int:
        """By how many tokens what requests hold in the tree is more than what is held: read again, not stored again."""
        return (self._attached - self.cache.locked_pages) * self.page_size

    @property
    def owned_pages(self) -> int:
        """Pages that running requests hold outside the tree."""
        return self._owned

    @property
    def free_pages(self) -> int:
        return self.capacity_pages - self._owned - self.cache.locked_pages - self.cache.evictable_pages

    @property
    def available_pages(self) -> int:
        """Pages that `take` could give."""
        return self.capacity_pages - self._owned - self.cache.locked_pages

    @property
    def available_tokens(self) -> int:
        return self.available_pages * self.page_size

    @property
    def used_tokens(self) -> int:
        """Tokens that cannot be evicted now, in whole pages."""
        return (self._owned + self.cache.locked_pages) * self.page_size

    def pages_for(self, tokens: int) -> int:
        """Pages that hold so many tokens."""
        return -(-tokens // self.page_size)

    def matched_tokens(self, state: RequestState) -> int:
        """Tokens that an admission of this waiting request would find cached now. Changes nothing in the cache."""
        request = state.request
        state.seen = self.cache.look(request.namespace, request.pages, self._reusable(state), state.seen)
        return state.seen.pages * self.page_size

    def attach(self, state: RequestState) -> None:
        """Finds and locks the cached prefix of a request that holds nothing. One token is always left to compute."""
        request = state.request
        match = self.cache.match(request.namespace, request.pages, self._reusable(state))
        self.cache.lock(match.node)
        state.node = match.node
        state.tree_pages = match.pages
        state.seen = None  # should it wait again, its prompt has grown
        self._attached += match.pages
        state.kv_tokens = match.pages * self.page_size

    def extend(self, state: RequestState, tokens: int) -> None:
        """Gives the request pages for `tokens` more."""
        self.take(self.pages_for(state.kv_tokens + tokens) - self.pages_for(state.kv_tokens))
        state.kv_tokens += tokens

    def take(self, pages: int) -> None:
        """Makes `pages` owned, evicting what it must. The caller has seen that they are available."""
        short = pages - self.free_pages
        if short > 0:
            self.cache.evict(short)
        self._owned += pages
        assert self.free_pages >= 0

    def commit(self, state: RequestState) -> None:
        """Puts the request's whole pages into the tree, where others find them; duplicates are freed."""
        whole = state.kv_tokens // self.page_size
        found = self.cache.insert(state.request.namespace, state.request.pages, whole)
        self._owned -= whole - state.tree_pages
        self.cache.lock(found.node)
        assert state.node is not None
        self.cache.unlock(state.node)
        state.node = found.node
        self._attached += whole - state.tree_pages
        state.tree_pages = whole

    def release(self, state: RequestState, *, keep: bool) -> None:
        """Takes everything from the request; with `keep`, its whole pages stay in the tree until evicted."""
        if keep:
            self.commit(state)
        self._owned -= self.pages_for(state.kv_tokens) - state.tree_pages
        if state.node is not None:
            self.cache.unlock(state.node)
        state.node = None
        self._attached -= state.tree_pages
        state.tree_pages = 0
        state.kv_tokens = 0

    def _reusable(self, state: RequestState) -> int:
        limit = state.request.reusable_tokens
        most = state.fill_tokens - 1
        return (most if limit is None else min(most, limit)) // self.page_size
