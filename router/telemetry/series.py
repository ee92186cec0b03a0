"""Counters and histograms that one thread writes and a scrape reads: prometheus_client's own cost a lock per number.

A family is all series of one name, keyed by label values in the order of its labels. Called by telemetry.metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Count:
    """One counter. Whoever counts adds to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, number: float) -> None:
        """What a worker says: its nonsense must not count backwards."""
        if number > 0:
            self.value += number


class Spread:
    """One histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = list(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        bounds, low, high = self._bounds, 0, len(self._bounds)
        while low < high:  # bisect_left, which takes objects: compiled, this compares numbers
            middle = (low + high) // 2
            if bounds[middle] < value:
                low = middle + 1
            else:
                high = middle
        self.counts[low] += 1
        self.total += value


class Counts:
    """A family of counters."""

    def __init__(self, name: str, about: str, labels: Labels) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._series: dict[Labels, Count] = {}

    def of(self, *labels: str) -> Count:
        """The counter with these label values; keep it, asking costs a lookup."""
        return self._series.setdefault(labels, Count())

    def dump(self) -> list[Any]:
        """For another process of the same router."""
        return [(labels, count.value) for labels, count in self._series.items()]

    def add(self, saved: Iterable[Any]) -> None:
        """Count what `dump` made of another one as well."""
        for labels, value in saved:
            self.of(*labels).value += value

    def family(self) -> CounterMetricFamily:
        shown = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, count in self._series.items():
            shown.add_metric(labels, count.value)
        return shown


class Spreads:
    """A family of histograms with the same upper bounds of buckets."""

    def __init__(self, name: str, about: str, labels: Labels, bounds: Sequence[float]) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._bounds = tuple(float(bound) for bound in bounds)
        self._series: dict[Labels, Spread] = {}

    def of(self, *labels: str) -> Spread:
        """The histogram with these label values; keep it, asking costs a lookup."""
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Spread(self._bounds)
        return found

    def dump(self) -> list[Any]:
        """For another process of the same router."""
        return [(labels, spread.counts, spread.total) for labels, spread in self._series.items()]

    def add(self, saved: Iterable[Any]) -> None:
        """Count what `dump` made of another one as well."""
        for labels, counts, total in saved:
            spread = self.of(*labels)
            for place, count in enumerate(counts):
                spread.counts[place] += count
            spread.total += total

    def family(self) -> Metric:
        """Not a HistogramMetricFamily: that leaves out count and sum where a bucket's bound is negative."""
        name = self._name
        shown = Metric(name, self._about, "histogram")
        bounds = [*(str(floatToGoString(bound)) for bound in self._bounds), "+Inf"]  # type: ignore[no-untyped-call]
        for values, spread in self._series.items():
            labels = dict(zip(self._labels, values, strict=True))
            for bound, count in zip(bounds, accumulate(spread.counts), strict=True):
                shown.add_sample(f"{name}_bucket", {**labels, "le": bound}, float(count))
            shown.add_sample(f"{name}_count", labels, float(sum(spread.counts)))
            shown.add_sample(f"{name}_sum", labels, spread.total)
        return shown
