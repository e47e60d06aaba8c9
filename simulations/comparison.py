"""From test statistics to figures, intervals and paired differences.

Replicates are paired: at each site, replicate b has the same patient weights for every model, and the union's
replicate b is the sum of the sites' replicates b. Union and mean are over the training sites, whatever is
compared; external sites have an entry together of their own. Legend: R replicates, K statistics.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.metrics.bootstrap import estimate, paired_difference
from fedcad.shared.metrics.interface import StatisticsFamily

UNION = "union"
EXTERNAL = "external sites"
MEAN = "mean of sites"
WITHOUT = "without"
Statistics = Mapping[str, NDArray[np.int64]]
"""Site → int64 (1 + R, K)."""
Reference = Mapping[str, NDArray[np.float64]]
"""Site → primary metric, float64 (1 + R,)."""


@dataclass(frozen=True)
class TestResults:
    """Test statistics of all models at all sites.

    Attributes:
        family: Gives metrics from statistics.
        models: Model → site → int64 (1 + R, K).
        own: Model name of each training site that trained alone.
        external: Sites that never train.
        left_out: Training site → name of the model trained without it.
    """

    __test__ = False

    family: StatisticsFamily
    models: Mapping[str, Statistics]
    own: Mapping[str, str]
    external: Collection[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def evaluations(self) -> Iterator[dict[str, Any]]:
        """Yield every model on every site, on the union and on all external sites together, as plain data.

        Curves only where they are shown.
        """
        for model, sites in self.models.items():
            for place in (*sites, *self._together()):
                values = self._statistics(model, place)
                shows_curves = _shows_curves(model, place)
                yield {
                    "model": model,
                    "on": place,
                    "metrics": {
                        name: {"value": m.value, "denominator": m.denominator, "undefined": m.undefined}
                        for name, m in self.family.metrics(values[0]).items()
                    },
                    "interval": _plain_interval(estimate(self.family.primary_values(values)).interval),
                    "curves": self.family.curves(values[0]) if shows_curves else {},
                }

    def comparisons(self) -> Iterator[dict[str, Any]]:
        """Yield federated against alone, pooled and ensemble, then what only left-out sites can tell."""
        for against, reference in self._references().items():
            yield from self._against(against, reference)
            for place in self._together() if against in self.models else ():
                yield self._difference(
                    against, place, self._primary("federated", place), self._primary(against, place)
                )
        yield from self._unseen()

    def _against(self, against: str, reference: Reference) -> Iterator[dict[str, Any]]:
        """Yield the differences at each site and their mean over training sites."""
        for site in (s for s in self.models["federated"] if s in reference):
            yield self._difference(against, site, self._primary("federated", site), reference[site])
        training = {site: values for site, values in reference.items() if site not in self.external}
        if training:
            yield self._mean_difference(against, training)

    def _unseen(self) -> Iterator[dict[str, Any]]:
        """Yield, federated, and each left-out site's own model, against the one that never saw the site."""
        unseen = {site: self._primary(model, site) for site, model in self.left_out.items()}
        yield from self._against(WITHOUT, unseen)
        for site, theirs in unseen.items():
            if site in self.own:
                ours = self._primary(self.own[site], site)
                yield self._difference(WITHOUT, site, ours, theirs) | {"model": "alone"}

    def _together(self) -> tuple[str, ...]:
        """Names of the places that join sites."""
        tested = self.models["federated"]
        union = (UNION,) if any(site not in self.external for site in tested) else ()
        return (*union, *((EXTERNAL,) if any(site in self.external for site in tested) else ()))

    def _references(self) -> dict[str, Reference]:
        """Primary values of what the federated model is compared with, by site."""
        alone = {site: self._primary(model, site) for site, model in self.own.items()}
        found: dict[str, Reference] = {"alone": alone} if alone else {}
        for model in ("ensemble", "pooled"):
            if model in self.models:
                found[model] = {site: self._primary(model, site) for site in self.models[model]}
        return found

    def _mean_difference(self, against: str, reference: Reference) -> dict[str, Any]:
        """Compare means over the sites where both are defined; one-class sites drop out, by name."""
        ours = {site: self._primary("federated", site) for site in reference}
        kept = [s for s in reference if np.isfinite(ours[s][0]) and np.isfinite(reference[s][0])]
        left_out = sorted(set(reference) - set(kept))
        if not kept:
            nothing = np.full(1, np.nan)
            return self._difference(against, MEAN, nothing, nothing)
        mean = self._difference(
            against, MEAN, _mean(ours[s] for s in kept), _mean(reference[s] for s in kept)
        )
        return mean | {"sites": kept, "left_out": left_out}

    def _difference(
        self, against: str, place: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]
    ) -> dict[str, Any]:
        difference = paired_difference(ours, theirs)
        undefined = "" if difference.value is not None else self._why(place)
        return {
            "model": "federated",
            "against": against,
            "on": place,
            "metric": self.family.primary,
            "difference": difference.value,
            "interval": _plain_interval(difference.interval),
            "undefined": undefined,
        }

    def _why(self, place: str) -> str:
        if place == MEAN:
            return "the metric is undefined at every site"
        metrics = self.family.metrics(self._statistics("federated", place)[0])
        return metrics[self.family.primary].undefined

    def _primary(self, model: str, place: str) -> NDArray[np.float64]:
        return self.family.primary_values(self._statistics(model, place))

    def _statistics(self, model: str, place: str) -> NDArray[np.int64]:
        sites = self.models[model]
        if place not in (UNION, EXTERNAL):
            return sites[place]
        joined = [each for site, each in sites.items() if (site in self.external) == (place == EXTERNAL)]
        union: NDArray[np.int64] = np.sum(joined, axis=0, dtype=np.int64)
        return union


def _shows_curves(model: str, place: str) -> bool:
    """Whether the report draws a model there; models of one site are many."""
    kind, _, site = model.partition("-")
    return place in (UNION, site) if kind == "alone" else kind != "without"


def _mean(values: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over sites of each replicate, over the sites where that replicate is defined."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        mean: NDArray[np.float64] = np.nanmean(np.stack(list(values)), axis=0)
    return mean


def _plain_interval(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval is not None else None
