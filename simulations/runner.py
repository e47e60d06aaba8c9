"""A simulation from its file to its report: hospitals, federated run, comparisons, tests, results.

The federated run may use either engine; comparisons and tests always run in process. All give the same bits.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors

from fedcad.server.app import GridChannel, make_server_app
from fedcad.server.final_test import statistics_of
from fedcad.server.outcome import MODEL
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.errors import DataError, UnsupportedError
from fedcad.shared.messages import SiteInfo
from fedcad.shared.metrics.registry import statistics_for
from fedcad.simulations import studies
from fedcad.simulations.comparison import TestResults
from fedcad.simulations.engines.pool import WorkerPool
from fedcad.simulations.hospitals import Hospitals
from fedcad.simulations.opening import open_sites
from fedcad.simulations.progress import Display, follow
from fedcad.simulations.results import assemble, describe_site, environment, outcome_of, write_json
from fedcad.simulations.runs import CONTRACT, Run, SimulatedSite, open_channel


@dataclass
class Clock:
    """Seconds spent in each part of a simulation."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(self.seconds.get(part, 0.0) + time.monotonic() - start, 3)

    def total(self) -> dict[str, float]:
        """Return all parts and the total."""
        return {**self.seconds, "total_s": round(time.monotonic() - self.started, 3)}


class SimulationRun:
    """One simulation under one seed, in one folder."""

    def __init__(
        self,
        config: SimulationConfig,
        study: StudyConfig,
        *,
        hospitals: Hospitals,
        pool: WorkerPool,
        display: Display,
    ) -> None:
        """Bind the parts together.

        Args:
            config: The simulation.
            study: Its study.
            hospitals: The emulated hospitals.
            pool: Worker processes.
            display: Shows progress.
        """
        self._config = config
        self._study = study
        self._hospitals = hospitals
        self._pool = pool
        self._display = display
        self._clock = Clock()
        self._notes = list(hospitals.notes)

    def run(self, folder: Path, seed: int) -> dict[str, Any]:
        """Run, or go on, and return the results, which are also in ``results.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        contract = studies.federated(self._study, seed)
        write_json(folder / "environment.json", environment())
        with self._clock.time("prepare_s"):
            contract.save(folder / CONTRACT)
            infos, excluded = self._open_sites(folder)
        sites = [self._site(name) for name in infos]
        training = [site for site in sites if infos[site.name].cases["train"]]
        if not training:
            raise DataError("no site has training cases; see the reasons above, or change the partition")
        federated = Run("federated", folder, contract, training)
        with self._clock.time("federated_s"):
            self._federate(federated)
        outcome = outcome_of(folder)
        tests = self._compare(federated, sites, infos) if outcome["status"] == "completed" else None
        described = [describe_site(info, is_external=self._is_external(name)) for name, info in infos.items()]
        results = assemble(
            self._config, contract, outcome=outcome, sites=described, excluded=excluded, tests=tests
        )
        results |= {"engine": self._config.engine.name, "notes": self._notes}
        results["case_passes"] = self._case_passes(federated, infos)
        results["time"] = self._clock.total()
        write_json(folder / "results.json", results)
        return results

    def _case_passes(self, federated: Run, infos: Mapping[str, SiteInfo]) -> dict[str, float]:
        cases = [infos[site.name].cases["train"] for site in federated.sites]
        passes = studies.case_passes(federated.contract, cases)
        return passes if self._config.baselines.pooled else {"federated": passes["federated"]}

    def _is_external(self, name: str) -> bool:
        return name in self._config.external_sites

    def _site(self, name: str) -> SimulatedSite:
        faults = tuple(fault for fault in self._config.faults if fault.site == name)
        site_file = str(self._hospitals.archives[name].site_file)
        return SimulatedSite(name, (site_file,), self._is_external(name), faults)

    def _open_sites(self, folder: Path) -> tuple[dict[str, SiteInfo], list[tuple[str, str]]]:
        """Open every site and say which are left out."""
        sites = [self._site(name) for name in sorted(self._hospitals.archives)]
        opened = open_sites(folder, sites, pool=self._pool, display=self._display)
        excluded = [*self._hospitals.excluded, *opened.refused]
        for name, reason in excluded:
            self._display.say(f"  {name} is left out: {reason}")
        return opened.infos, excluded

    def _federate(self, run: Run) -> None:
        """Run the federated study on the engine of the simulation."""
        observe = follow(self._display, "federated", run.contract.study.rounds)
        if self._config.engine.name == "in-process":
            run.execute(self._pool, observe)
            return
        if self._config.engine.name == "deployment":
            # Imported late: it needs the parts of coordinator and node that hold keys.
            from fedcad.simulations.engines.deployment import run_deployed

            if any(site.faults for site in run.sites):
                raise UnsupportedError(
                    "faults are scheduled, which real processes cannot keep; expected none with the engine "
                    "deployment. Remove them, or use the engine in-process or flower"
                )
            run.prepare()
            files = {site.name: Path(site.site_files[0]) for site in run.sites}
            run_deployed(run.contract, files, run.folder, observe)
            return
        # Imported late: it pulls in Ray, which the default engine does not need.
        from fedcad.simulations.engines.flower import run_on_flower

        nodes = run.prepare()
        workers = self._config.engine.workers or self._pool.workers
        run_on_flower(make_server_app(observe), nodes, workers, run.folder)

    def _compare(
        self, federated: Run, sites: Sequence[SimulatedSite], infos: Mapping[str, SiteInfo]
    ) -> TestResults | None:
        """Train what the federated model is compared with, and test every model at every site."""
        tested = [site for site in sites if infos[site.name].cases["test"]]
        if not tested:
            self._note("no site has a test case, so that no model was tested")
            return None
        baselines = self._baselines(federated, infos)
        with self._clock.time("baselines_s"):
            self._train(baselines)
        baselines = [run for run in baselines if self._is_usable(run)]
        runs = [federated, *baselines]
        self._note_sites_without_personal_entries(runs, tested)
        with self._clock.time("evaluation_s"):
            statistics = self._test(runs, tested, infos)
        trained, tests = {run.name for run in baselines}, [site.name for site in tested]
        return TestResults(
            statistics_for(federated.contract.study),
            statistics,
            own={name: f"alone-{name}" for name in tests if f"alone-{name}" in trained},
            external=[name for name in tests if self._is_external(name)],
            left_out={name: f"without-{name}" for name in tests if f"without-{name}" in trained},
        )

    def _is_usable(self, run: Run) -> bool:
        """Whether a comparison was trained to its end; the others are left out, with the reason."""
        outcome = outcome_of(run.folder)
        if outcome["status"] == "completed":
            return True
        self._note(f"the comparison {run.name} is left out: {outcome['reason']}")
        return False

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._display.say(f"  note: {text}")

    def _baselines(self, federated: Run, infos: Mapping[str, SiteInfo]) -> list[Run]:
        """Return the runs of the comparisons; the pooled one first, as it takes longest."""
        contract, wanted, runs = federated.contract, self._config.baselines, []
        folder = federated.folder / "baselines"
        healthy = [SimulatedSite(site.name, site.site_files) for site in federated.sites]
        if wanted.pooled:
            files = tuple(file for site in healthy for file in site.site_files)
            everything = SimulatedSite("pooled", files)
            study = studies.pooled(contract, [infos[site.name].cases["train"] for site in healthy])
            runs.append(Run("pooled", folder / "pooled", study, [everything]))
        if wanted.alone:
            runs += [
                Run(f"alone-{s.name}", folder / f"alone-{s.name}", studies.alone(contract), [s])
                for s in healthy
            ]
        if self._config.leave_one_site_out and len(healthy) > 1:
            study = studies.without_one(contract, len(healthy) - 1)
            for left in healthy:
                name = f"without-{left.name}"
                runs.append(Run(name, folder / name, study, [s for s in healthy if s is not left]))
        return runs

    def _train(self, runs: Sequence[Run]) -> None:
        """Run comparisons, each of them once; the workers share the messages.

        Two at a time for each worker keep the workers busy; what a run has in memory and on disk until it
        ends does not grow with the number of sites.
        """
        if not runs:
            return
        rounds = sum(run.contract.study.rounds for run in runs)
        done: dict[str, int] = {}

        def execute(run: Run) -> None:
            def observe(event: Mapping[str, Any]) -> None:
                if event["event"] == "round":
                    done[run.name] = event["round"]
                    self._display.update("comparisons, rounds", sum(done.values()), rounds, run.name)

            run.execute_once(self._pool, observe)
            done[run.name] = run.contract.study.rounds

        self._display.update("comparisons, rounds", 0, rounds)
        at_once = min(len(runs), 2 * self._pool.workers)
        with ThreadPoolExecutor(at_once) as threads, self._pool.killed_on_error():
            for running in as_completed([threads.submit(execute, run) for run in runs]):
                running.result()
        self._display.update("comparisons, rounds", rounds, rounds)

    def _note_sites_without_personal_entries(
        self, runs: Sequence[Run], tested: Sequence[SimulatedSite]
    ) -> None:
        """Say at which sites a model is tested that kept nothing there: they have the initial entries."""
        for run in (run for run in runs if run.has_personal):
            counted = run.selected_rounds()
            without = [site.name for site in tested if site.name not in counted]
            if without:
                self._note(
                    f"algorithm {run.contract.study.algorithm.name} keeps entries of the model at the sites; "
                    f"{', '.join(without)} had no part in the model {run.name}, which is tested there with "
                    "the initial entries"
                )

    def _test(
        self, runs: Sequence[Run], sites: Sequence[SimulatedSite], infos: Mapping[str, SiteInfo]
    ) -> dict[str, dict[str, NDArray[np.int64]]]:
        """Return each model's test statistics at each site, under the run whose sites it belongs to."""
        models = models_of(runs)
        enrolled = {site.name: infos[site.name] for site in sites}
        found, channels = {}, dict[Path, GridChannel]()
        for done, model in enumerate(models):
            self._display.update("testing", done, len(models), model.name)
            channel = channels.get(model.under.folder)
            if channel is None:
                channels = {model.under.folder: open_channel(model.under.folder, sites, self._pool)}
                channel = channels[model.under.folder]
                channel.ready()
            answered = statistics_of(
                model.under.contract,
                channel,
                model.vectors,
                sites=enrolled,
                selected=model.under.selected_rounds() if model.under.has_personal else {},
            )
            # In the order of names, not of arrival: sums of floats and results.json must not depend on it.
            found[model.name] = dict(sorted(answered.items()))
        self._display.update("testing", len(models), len(models))
        return found


@dataclass(frozen=True)
class TestedModel:
    """A model and where it is tested.

    Attributes:
        name: Its name in the results.
        vectors: Its parameters: one vector, or the members of an ensemble.
        under: The run whose contract and whose sites' states it is tested with: its own where entries of it
            are personal; whole models share one run, so that sites are opened once for all of them.
    """

    __test__ = False

    name: str
    vectors: Mapping[str, NDArray[np.float32]]
    under: Run


def models_of(runs: Sequence[Run]) -> list[TestedModel]:
    """Return the selected model of each finished run, and the ensemble of those that trained alone.

    Args:
        runs: The federated run first.
    """
    vectors = {run.name: _selected(run) for run in runs}
    shared = next((run for run in runs if not run.has_personal), runs[0])
    models = [
        TestedModel(run.name, {"model": vectors[run.name]}, run if run.has_personal else shared)
        for run in runs
    ]
    members = {name: vector for name, vector in vectors.items() if name.startswith("alone-")}
    if members:
        models.append(TestedModel("ensemble", members, shared))
    return models


def _selected(run: Run) -> NDArray[np.float32]:
    """Return the flat parameters that a finished run selected."""
    outcome_of(run.folder)
    tensors = load_tensors((run.folder / MODEL).read_bytes())
    return np.concatenate(
        [tensors[entry.name].reshape(-1).float().numpy() for entry in run.contract.layout.exchanged]
    )
