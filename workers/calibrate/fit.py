"""Fits the cost model to measurements: its parameters are those with which the simulated engine, sent the same calls
at the same moments, comes closest to what the server did.

The engine itself is in the loop, so queueing, batching and chunks need no formula here. Called by commands.py. Needs
numpy (least_squares.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from workers.calibrate.experiment import Run
from workers.calibrate.features import Feature, features, tells_forward
from workers.calibrate.measurement_file import Measurements
from workers.calibrate.virtual_runner import VirtualRunner, requests_of
from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, CostModel
from workers.simulated.engine_config import EngineConfig
from workers.simulated.errors import BadOption

NEGLIGIBLE_S = 1e-12
"""A fitted parameter that ends this small is written as zero (steps must take some time)."""


_SINGLE = ("prefill", "text")
STAGES: Sequence[tuple[Collection[str], Sequence[str]]] = (
    (
        _SINGLE,
        tuple(name for name in PARAMETERS if name.startswith(("prefill", "front_end")) and "request" not in name),
    ),
    (("decode", "shared"), tuple(name for name in PARAMETERS if "decode" in name)),
)
"""Which parameters are sought in which groups of experiments, where figures change smoothly with the parameters."""
QUEUES = ("burst", "mixed")
"""Groups in which requests meet in a queue. They settle two things, and otherwise check what the others found."""
SHARES = tuple(step / 20 for step in range(21))
TIE = 0.05
"""Values whose summed errors differ by less are equally good; the least is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """One figure: measured, and by the fitted model."""

    name: str
    measured_s: float
    fitted_s: float

    @property
    def error(self) -> float:
        """Relative: 0.1 where the model is 10 % too slow."""
        return self.fitted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A cost model with how well it fits."""

    cost_model: CostModel
    residuals: tuple[Residual, ...]

    @property
    def median_error(self) -> float:
        return median(abs(residual.error) for residual in self.residuals)

    @property
    def largest_error(self) -> float:
        return max(abs(residual.error) for residual in self.residuals)


def fit(measurements: Measurements) -> Fit:
    """Raises BadOption when too little was measured."""
    from workers.calibrate.least_squares import minimise

    problem = _Problem(measurements)
    found = problem.start()
    for groups, names in STAGES:
        fixed = found

        def errors(
            parameters: Mapping[str, float], fixed: Mapping[str, float] = fixed, groups: Collection[str] = groups
        ) -> list[float]:
            return problem.relative_errors({**fixed, **parameters}, groups)

        if errors({}):
            found = {**found, **minimise(errors, {name: found[name] for name in names})}
    found = _settle_queues(problem, found)
    model = problem.model({name: value if value > NEGLIGIBLE_S else 0.0 for name, value in found.items()})
    predicted = problem.predicted(model)
    residuals = tuple(
        Residual(name=measured.name, measured_s=measured.seconds, fitted_s=predicted[measured.name].seconds)
        for measured in problem.measured
    )
    result = Fit(cost_model=model, residuals=residuals)
    facts = measurements.facts
    described = dataclasses.replace(
        model,
        model=facts.model,
        hardware=facts.hardware,
        sglang_version=facts.sglang_version,
        source=(
            f"trieway workers calibrate, {measurements.date}: {len(residuals)} figures, relative error of the median "
            f"{result.median_error:.1%}, largest {result.largest_error:.1%}"
        ),
    )
    return Fit(cost_model=described, residuals=residuals)


def _settle_queues(problem: _Problem, found: Mapping[str, float]) -> dict[str, float]:
    """Two things that only show where requests meet: how much of what a request costs before its first step holds
    others up, and how late a step is planned. Values are tried one by one, since a small change can let a request miss
    a step.
    """
    whole_s = found["front_end_latency_s"] + found["front_end_request_s"]

    def divided(share: float) -> dict[str, float]:
        return {"front_end_latency_s": whole_s * (1 - share), "front_end_request_s": whole_s * share}

    def planned(share: float) -> dict[str, float]:
        return {"plan_s": found["decode_step_base_s"] * share}

    def best(known: Mapping[str, float], vary: Callable[[float], dict[str, float]]) -> dict[str, float]:
        def loss(share: float) -> float:
            errors = problem.relative_errors({**known, **vary(share)}, QUEUES)
            return sum(min(abs(error), 0.5) for error in errors)

        losses = {share: loss(share) for share in SHARES}
        return {**known, **vary(min(share for share in SHARES if losses[share] <= min(losses.values()) + TIE))}

    first = best({**found, **divided(0.1)}, planned)
    return best(best(first, divided), planned)


class _Problem:
    """Measured figures, and the same figures as a model predicts them."""

    def __init__(self, measurements: Measurements) -> None:
        self._config: EngineConfig = measurements.facts.engine_config()
        self._sizes = measurements.facts.prefill_sizes
        self.measured: list[Feature] = []
        self._pieces: list[tuple[Run, Sequence[float], list[int]]] = []
        for run in measurements.runs:
            found = features(run, forward=tells_forward(run))
            if found:
                self.measured += found
                self._pieces.append(
                    (run, [timing.sent_s for timing in run.timings], [timing.prompt_tokens for timing in run.timings])
                )
        if len(self.measured) < len(PARAMETERS):
            raise BadOption(f"only {len(self.measured)} figures were measured; a fit needs {len(PARAMETERS)}")
        page_size = self._config.page_size
        self._requests = [requests_of(run.experiment.calls, page_size, lengths) for run, _, lengths in self._pieces]

    def start(self) -> dict[str, float]:
        """Where the search begins: the H200's parameters, slower or faster as a whole."""
        predicted = self.predicted(H200_QWEN3_8B)
        scale = median(measured.seconds / predicted[measured.name].seconds for measured in self.measured)
        start = {name: getattr(H200_QWEN3_8B, name) * scale for name in PARAMETERS if name != "plan_s"}
        front = {
            "plan_s": 0.0,
            "front_end_latency_s": 1e-3,
            "front_end_request_s": 1e-4,
            "front_end_token_s": 3e-7,
            "front_end_text_token_s": 2e-6,
        }
        return {**start, **front}

    def model(self, parameters: Mapping[str, float]) -> CostModel:
        return CostModel(**parameters, prefill_sizes=self._sizes)  # type: ignore[arg-type]  # names of PARAMETERS only

    def predicted(self, model: CostModel, groups: Collection[str] | None = None) -> dict[str, Feature]:
        """Figures by name, of the experiments in some groups or of all."""
        found: dict[str, Feature] = {}
        runner = VirtualRunner(model, self._config)
        for (run, sent_s, _), requests in zip(self._pieces, self._requests, strict=True):
            if groups is None or run.experiment.group in groups:
                simulated = runner.replay(run.experiment, requests, sent_s)
                for feature in features(simulated, forward=tells_forward(run)):
                    found[feature.name] = feature
        return found

    def relative_errors(self, parameters: Mapping[str, float], groups: Collection[str]) -> list[float]:
        """One for each figure of these groups, times its weight."""
        predicted = self.predicted(self.model(parameters), groups)
        return [
            measured.weight * (predicted[measured.name].seconds / measured.seconds - 1)
            for measured in self.measured
            if measured.name in predicted
        ]
