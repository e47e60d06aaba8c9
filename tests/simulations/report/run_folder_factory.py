"""Realistic run folders: scores are drawn for every case, and all figures computed from these scores.

The folders are what the runner writes, so that the report is developed and tested on the real shapes:
different sites, one of them with a single class, an external one, faults, a stopped run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("normal", "opacity", "nodule")
VENDORS = ("Agfa", "Siemens", "GE", "Philips", "Carestream")
STRENGTH = {"federated": 1.55, "pooled": 1.7, "ensemble": 1.3}


@dataclass(frozen=True)
class SitePlan:
    name: str
    patients: int
    mix: tuple[float, ...]
    role: str = "training"
    vendor: str = "Agfa"
    alone: float = 1.0


FIVE_SITES = (
    SitePlan("kigali", 160, (0.5, 0.3, 0.2), vendor="Agfa", alone=1.1),
    SitePlan("lyon", 260, (0.2, 0.5, 0.3), vendor="Siemens", alone=1.4),
    SitePlan("osaka", 90, (0.34, 0.33, 0.33), vendor="GE", alone=0.6),
    SitePlan("quito", 60, (1.0, 0.0, 0.0), vendor="Philips", alone=0.4),
    SitePlan("tromso", 80, (0.4, 0.2, 0.4), role="external", vendor="Carestream"),
)


def many_sites(number: int) -> tuple[SitePlan, ...]:
    generator = np.random.default_rng(number)
    return tuple(
        SitePlan(
            f"hospital-{index:02d}",
            int(generator.integers(30, 220)),
            tuple(float(share) for share in generator.dirichlet([2.0, 2.0, 2.0])),
            vendor=VENDORS[index % len(VENDORS)],
            alone=float(generator.uniform(0.4, 1.5)),
        )
        for index in range(number)
    )


def write_run(
    folder: Path,
    *,
    sites: tuple[SitePlan, ...] = FIVE_SITES,
    rounds: int = 12,
    closed: int | None = None,
    baselines: tuple[str, ...] = ("alone", "pooled", "ensemble"),
    faults: bool = True,
    seed: int = 1,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder and return it; ``changes`` replaces top-level keys of results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    closed_rounds = rounds if closed is None else closed
    generator = np.random.default_rng(seed)
    results = _results(sites, rounds, closed_rounds, baselines, generator)
    (folder / "results.json").write_text(json.dumps(results | (changes or {})), encoding="utf-8")
    _write_journal(folder / "rounds.jsonl", sites, closed_rounds, generator, faults=faults, ceiling=0.93)
    training = [site for site in sites if site.role == "training"]
    if "alone" in baselines:
        for site in training:
            path = folder / "baselines" / f"alone-{site.name}" / "rounds.jsonl"
            _write_journal(path, (site,), rounds, generator, ceiling=0.7 + 0.1 * site.alone)
    if "pooled" in baselines:
        path = folder / "baselines" / "pooled" / "rounds.jsonl"
        _write_journal(path, sites, rounds, generator, ceiling=0.94)
    configuration = {
        "simulation": {"name": "phantom", "seeds": [1]},
        "study": {"algorithm": {"name": "fedavg"}},
    }
    (folder / "configuration.json").write_text(json.dumps(configuration), encoding="utf-8")
    environment = {"fedcad": "0.1.0", "python": "3.11.2", "torch": "2.13.0+cpu", "cpu": "x86_64, 2 cores"}
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def _split(total: int) -> dict[str, int]:
    validation, test = max(total // 6, 1), max(total // 4, 1)
    return {"train": total - validation - test, "validation": validation, "test": test}


def _labels(cases: dict[str, int], mix: tuple[float, ...]) -> dict[str, dict[str, int]]:
    labels = {}
    for split, total in cases.items():
        counts = [int(share * total) for share in mix]
        counts[int(np.argmax(mix))] += total - sum(counts)
        labels[split] = {name: number for name, number in zip(CLASSES, counts, strict=True) if number}
    return labels


def _site_record(site: SitePlan) -> dict[str, Any]:
    patients = _split(site.patients)
    if site.role == "external":
        patients = {"train": 0, "validation": 0, "test": site.patients}
    cases = {split: number + number // 10 for split, number in patients.items()}
    total = sum(cases.values())
    return {
        "name": site.name,
        "role": site.role,
        "patients": patients,
        "cases": cases,
        "labels": _labels(cases, site.mix),
        "acquisition": {
            "vendor": {site.vendor: total - 5, "unknown": 5},
            "view": {"PA": total - 20, "AP": 20},
        },
        "rejects": {"truncated pixel data": 2, "no label": 1} if site.name == "lyon" else {},
    }


def _results(
    sites: tuple[SitePlan, ...],
    rounds: int,
    closed: int,
    baselines: tuple[str, ...],
    generator: np.random.Generator,
) -> dict[str, Any]:
    records = [_site_record(site) for site in sites]
    truth = {record["name"]: _truth(record) for record in records}
    evaluations, comparisons = [], []
    scores = {"federated": _scores(sites, truth, dict.fromkeys(truth, STRENGTH["federated"]), generator)}
    for model in ("pooled", "ensemble"):
        if model in baselines:
            scores[model] = _scores(sites, truth, dict.fromkeys(truth, STRENGTH[model]), generator)
    for model, by_site in scores.items():
        evaluations += [_evaluate(model, name, truth[name], by_site[name]) for name in truth]
        for place, role in (("union", "training"), ("external sites", "external")):
            names = [site.name for site in sites if site.role == role]
            if names:
                together = np.concatenate([truth[name] for name in names])
                joined = np.concatenate([by_site[name] for name in names])
                evaluations.append(_evaluate(model, place, together, joined))
    if "alone" in baselines:
        alone = _scores(sites, truth, {site.name: site.alone for site in sites}, generator)
        training = [site.name for site in sites if site.role == "training"]
        evaluations += [_evaluate(f"alone-{name}", name, truth[name], alone[name]) for name in training]
    if "without" in baselines:
        unseen = _scores(sites, truth, dict.fromkeys(truth, 1.2), generator)
        training = [site.name for site in sites if site.role == "training"]
        evaluations += [_evaluate(f"without-{name}", name, truth[name], unseen[name]) for name in training]
    comparisons = _comparisons(evaluations, list(sites), baselines)
    return {
        "format": 1,
        "simulation": "phantom",
        "study": "phantom-triage",
        "description": "Emulated hospitals with procedural chest X-rays: normal, opacity or nodule.",
        "seed": 1,
        "engine": "in-process",
        "status": "completed" if closed == rounds else "stopped",
        "reason": "" if closed == rounds else "round 5 closed with 1 update, the quorum is 3",
        "model_sha256": "9f" * 32,
        "selected_version": max(closed - 2, 0),
        "rounds_planned": rounds,
        "rounds_closed": closed,
        "primary_metric": "macro_auroc",
        "classes": list(CLASSES),
        "parameters": 183_427,
        "model": "covid-net",
        "privacy": "none",
        "algorithm": "fedavg",
        "sites": records,
        "excluded_sites": [{"name": "nuuk", "reason": "3 patients, minimum_patients is 10"}],
        "evaluations": evaluations,
        "comparisons": comparisons,
        "time": {
            "prepare_s": 21.4,
            "federated_s": 96.0,
            "baselines_s": 81.3,
            "evaluation_s": 9.9,
            "total_s": 208.6,
        },
        "a_key_of_a_later_version": True,
    }


def _truth(record: dict[str, Any]) -> NDArray[np.int64]:
    test = record["labels"]["test"]
    return np.concatenate([np.full(test.get(name, 0), index) for index, name in enumerate(CLASSES)])


def _scores(
    sites: tuple[SitePlan, ...],
    truth: dict[str, NDArray[np.int64]],
    strength: dict[str, float],
    generator: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    scores = {}
    for site in sites:
        labels = truth[site.name]
        logits = generator.normal(0, 1, (len(labels), len(CLASSES)))
        logits[np.arange(len(labels)), labels] += strength[site.name]
        exponent = np.exp(1.3 * logits)
        scores[site.name] = exponent / exponent.sum(axis=1, keepdims=True)
    return scores


def _roc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    order = np.argsort(-score, kind="stable")
    hits = positive[order]
    tpr = np.concatenate([[0.0], np.cumsum(hits) / hits.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(~hits) / (~hits).sum()])
    return fpr.tolist(), tpr.tolist()


def _evaluate(model: str, on: str, labels: NDArray[np.int64], scores: NDArray[np.float64]) -> dict[str, Any]:
    total, predicted = len(labels), scores.argmax(axis=1)
    metrics: dict[str, Any] = {}
    roc, areas = {}, []
    for index, name in enumerate(CLASSES):
        positive = labels == index
        key, rests_on = f"auroc_{name}", f"{int(positive.sum())} of {total} cases are {name}"
        if 0 < positive.sum() < total:
            fpr, tpr = _roc(positive, scores[:, index])
            area = float(np.trapezoid(tpr, fpr))
            roc[name] = {"fpr": fpr, "tpr": tpr}
            areas.append(area)
            metrics[key] = {"value": area, "denominator": rests_on, "undefined": ""}
        else:
            why = f"all {total} test cases are {name}" if positive.any() else f"no test case is {name}"
            metrics[key] = {"value": None, "denominator": rests_on, "undefined": why}
    macro = float(np.mean(areas)) if len(areas) > 1 else None
    only = CLASSES[int(labels[0])]
    metrics["macro_auroc"] = {
        "value": macro,
        "denominator": f"{len(areas)} of {len(CLASSES)} classes, {total} cases",
        "undefined": "" if macro is not None else f"all {total} test cases are {only}: nothing to tell apart",
    }
    recalls = [np.mean(predicted[labels == index] == index) for index in np.unique(labels)]
    metrics["balanced_accuracy"] = {
        "value": float(np.mean(recalls)),
        "denominator": f"{len(recalls)} classes, {total} cases",
        "undefined": "",
    }
    half = 0.9 / np.sqrt(total)
    interval = None if macro is None else [max(macro - half, 0.0), min(macro + half, 1.0)]
    return {
        "model": model,
        "on": on,
        "metrics": metrics,
        "interval": interval,
        "curves": {
            "roc": roc,
            "calibration": _calibration(labels, scores),
            "confusion": _confusion(labels, predicted),
        },
    }


def _calibration(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> dict[str, Any]:
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    bins = np.minimum((confidence * 10).astype(int), 9)
    result: dict[str, Any] = {"confidence": [], "accuracy": [], "count": []}
    for index in range(10):
        inside = bins == index
        result["confidence"].append(float(confidence[inside].mean()) if inside.any() else None)
        result["accuracy"].append(float(right[inside].mean()) if inside.any() else None)
        result["count"].append(int(inside.sum()))
    return result


def _confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, Any]:
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    return {"classes": list(CLASSES), "counts": counts.tolist()}


def _comparisons(
    evaluations: list[dict[str, Any]], sites: list[SitePlan], baselines: tuple[str, ...]
) -> list[dict[str, Any]]:
    found = {(item["model"], item["on"]): item["metrics"]["macro_auroc"] for item in evaluations}
    comparisons = []
    for against in baselines:
        differences, in_mean = [], []
        for name, role in [(site.name, site.role) for site in sites]:
            other = found.get((f"{against}-{name}" if against in ("alone", "without") else against, name))
            if other is None:
                continue
            mine = found["federated", name]
            entry = _compare(against, name, mine, other, half=0.06)
            comparisons.append(entry)
            is_in_mean = role == "training" and entry["difference"] is not None
            differences += [entry["difference"]] if is_in_mean else []
            in_mean += [name] if is_in_mean else []
            if against == "without":
                comparisons.append(
                    _compare(against, name, found[f"alone-{name}", name], other, half=0.06)
                    | {"model": "alone"}
                )
        mean = {
            "value": float(np.mean(differences)) if differences else None,
            "undefined": "no site is defined",
        }
        comparisons.append(
            _compare(against, "mean of sites", mean, {"value": 0.0}, half=0.03) | {"sites": in_mean}
        )
        for place in ("union", "external sites"):
            if (against, place) in found:
                comparisons.append(
                    _compare(against, place, found["federated", place], found[against, place], half=0.02)
                )
    return comparisons


def _compare(
    against: str, on: str, mine: dict[str, Any], other: dict[str, Any], *, half: float
) -> dict[str, Any]:
    defined = mine["value"] is not None and other["value"] is not None
    difference = mine["value"] - other["value"] if defined else None
    return {
        "model": "federated",
        "against": against,
        "on": on,
        "metric": "macro_auroc",
        "difference": difference,
        "interval": [difference - half, difference + half] if difference is not None else None,
        "undefined": "" if defined else mine["undefined"],
    }


def _participation(
    sites: tuple[SitePlan, ...], number: int, generator: np.random.Generator, *, faults: bool
) -> list[dict[str, Any]]:
    entries = []
    for index, site in enumerate(item for item in sites if item.role == "training"):
        entry = {
            "site": site.name,
            "status": "counted",
            "reason": "",
            "weight": site.patients,
            "delay_s": 0.0,
        }
        if faults and index == 0 and number in (3, 4):
            entry |= {"status": "lost", "reason": "the worker process died", "weight": 0}
        elif faults and index == 1 and number == 6:
            entry |= {"status": "late", "reason": "past the deadline of 60 s", "weight": 0, "delay_s": 90.0}
        elif faults and index == 2 and number == 8:
            entry |= {"status": "rejected", "reason": "not finite: 12 of 183427 numbers", "weight": 0}
        entries.append(entry)
    return entries


def _write_journal(
    path: Path,
    sites: tuple[SitePlan, ...],
    rounds: int,
    generator: np.random.Generator,
    *,
    ceiling: float,
    faults: bool = False,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    events: list[dict[str, Any]] = []
    training = [site for site in sites if site.role == "training"]
    for number in range(rounds + 1):
        if number:
            events.append(
                {
                    "event": "round",
                    "round": number,
                    "attempt": 1,
                    "seconds": 6.0 + float(generator.random()),
                    "bytes_sent": 733_708 * len(training),
                    "bytes_received": 733_708 * len(training),
                    "participation": _participation(sites, number, generator, faults=faults),
                }
            )
        figures = {site.name: _validation(site, number, ceiling, generator) for site in training}
        whole = SitePlan("union", sum(site.patients for site in training), (0.4, 0.3, 0.3))
        union = _validation(whole, number, ceiling, generator)
        events.append({"event": "validation", "version": number, "sites": figures, "union": union})
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def _validation(
    site: SitePlan, number: int, ceiling: float, generator: np.random.Generator
) -> dict[str, Any]:
    progress = 1 - np.exp(-number / 4)
    noise = float(generator.normal(0, 0.012))
    auroc = 0.5 + (ceiling - 0.5) * progress + noise
    return {
        "loss": float(1.1 - 0.6 * progress + 2 * noise + 0.01 * number),
        "macro_auroc": None if max(site.mix) == 1.0 else float(np.clip(auroc, 0, 1)),
        "balanced_accuracy": float(np.clip(auroc - 0.1, 0, 1)),
        "cases": max(site.patients // 6, 1),
    }
