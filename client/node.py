"""A hospital's node: answers plans with updates, or refuses them. Knows nothing of Flower."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.case_source import CaseSource, Part
from fedcad.client.evaluation import evaluate
from fedcad.client.personal import personal_state, split_state
from fedcad.client.site_state import SiteStateStore
from fedcad.client.training import LocalTrainer
from fedcad.client.workbench import Workbench
from fedcad.shared.algorithms.interface import State
from fedcad.shared.canonical import canonical_json
from fedcad.shared.exchange import rounded
from fedcad.shared.messages import Header, Objection, Refusal, RoundPlan, SiteInfo, Update, Vectors, Work
from fedcad.shared.metrics.bootstrap import patient_weights
from fedcad.shared.parameters import tensor_of

PARTS: tuple[Part, ...] = ("train", "validation", "test")
PART_OF: Mapping[Work, Part] = {"validate": "validation", "test": "test"}


class Node:
    """One site taking part in one study."""

    def __init__(self, name: str, data: CaseSource, bench: Workbench, *, state: Path) -> None:
        """Open a site for a study.

        Args:
            name: Name of the site.
            data: Its cases.
            bench: The study's networks.
            state: Folder for what the site keeps between rounds.
        """
        self._name = name
        self._data = data
        self._bench = bench
        self._contract = bench.contract
        self._store = SiteStateStore(state, bench.contract.study_hash)

    def info(self) -> SiteInfo:
        """Say what the site brings: counts only."""
        return SiteInfo(
            site=self._name,
            study_hash=self._contract.study_hash,
            cases={part: self._count(part) for part in PARTS},
            summary=canonical_json(dict(self._data.summary())).decode(),
        )

    def answer(self, plan: RoundPlan, broadcast: Vectors, broadcast_hash: str) -> Update | Refusal:
        """Do what a plan asks, after checking that it may be done.

        Validation and training see this site's personal entries as of the last round that counted. A plan
        that only tests sees them as of the round that it names, whichever models it brings: the state folder
        holds the personal entries of one run, so that models of another run must not be tested here where the
        algorithm has personal entries.

        Args:
            plan: What is asked.
            broadcast: Vectors that came with it.
            broadcast_hash: Their hash as computed here from the bytes that arrived.

        Raises:
            CheckpointError: The site's state is missing, damaged or of another model.
        """
        code = self._objection(plan, broadcast, broadcast_hash)
        if code is not None:
            return Refusal(plan=plan.identity, site=self._name, code=code)
        state, personal = split_state(self._state_for(plan), self._contract.layout)
        self._bench.become(personal)
        models = {name: tensor_of(values) for name, values in broadcast.items()}
        statistics: dict[str, NDArray[np.int64]] = {
            PART_OF[work]: self._evaluate(_evaluated(models), PART_OF[work])
            for work in plan.work
            if work in PART_OF and self._count(PART_OF[work])
        }
        vectors = self._train(plan, models, state) if "train" in plan.work else {}
        header = Header(
            study_hash=plan.study_hash,
            plan=plan.identity,
            round=plan.round,
            site=self._name,
            weights=dict(self._bench.algorithm.weights(self._count("train"))) if vectors else {},
            releases=(*sorted(vectors), *sorted(statistics)),
        )
        return Update(header, vectors, statistics)

    def _objection(self, plan: RoundPlan, broadcast: Vectors, broadcast_hash: str) -> Objection | None:
        """Check a plan before any data is touched."""
        if plan.study_hash != self._contract.study_hash:
            return "wrong-study"
        if plan.site != self._name:
            return "wrong-site"
        if not self._is_expected(plan, broadcast):
            return "wrong-broadcast"
        if broadcast_hash != plan.broadcast_hash:
            return "wrong-broadcast"
        if "train" in plan.work and self._count("train") == 0:
            return "no-data"
        return None

    def _is_expected(self, plan: RoundPlan, broadcast: Vectors) -> bool:
        """Whether a broadcast has the vectors that its work needs: the algorithm's, or models to test."""
        layout = self._contract.layout
        if plan.work == ("test",):
            return bool(broadcast) and all(values.shape == (layout.size,) for values in broadcast.values())
        sizes = self._bench.algorithm.sizes(layout)
        return {name: values.shape for name, values in broadcast.items()} == {
            name: (size,) for name, size in sizes.items()
        }

    def _count(self, part: Part) -> int:
        return len(self._data.patients(part))

    def _evaluate(self, models: Sequence[Tensor], part: Part) -> NDArray[np.int64]:
        """Evaluate on a part; bootstrap replicates only on the test part, where intervals are reported."""
        study = self._contract.study
        replicates = study.evaluation.bootstrap_replicates if part == "test" else 0
        patients = self._data.patients(part)
        weights = patient_weights(patients, replicates=replicates, seed=study.seed, site=self._name)
        return evaluate(self._bench, models, data=self._data, part=part, weights=weights)

    def _state_for(self, plan: RoundPlan) -> State:
        """Return the site's state on which a plan builds; a final test takes that of the selected version."""
        first = self._bench.algorithm.init_site(self._contract.layout) | self._bench.first_personal()
        if plan.work == ("test",):
            return self._store.selected(plan.selected_round, first)
        return self._store.begin(plan.last_counted_round, first, selected_round=plan.selected_round)

    def _train(
        self, plan: RoundPlan, broadcast: dict[str, Tensor], state: State
    ) -> dict[str, NDArray[np.float32]]:
        """Do the site's half of the algorithm; what it leaves is pending until a later plan builds on it."""
        # Copies: an algorithm that changes its argument must not change what other sites receive.
        own = {name: tensor.clone() for name, tensor in broadcast.items()}
        trainer = LocalTrainer(self._bench, self._data, site=self._name, round_number=plan.round)
        state, vectors = self._bench.algorithm.local(state, own, trainer)
        personal = personal_state(self._bench.networks, self._contract.layout)
        self._store.keep(
            plan.round,
            state | personal,
            built_on=plan.last_counted_round,
            selected_round=plan.selected_round,
        )
        arrays = {name: vector.detach().contiguous().numpy() for name, vector in vectors.items()}
        return rounded(arrays, self._contract.study.exchange.precision)


def _evaluated(vectors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the models among a broadcast's vectors: ``model``, or else all, the members of an ensemble.

    Members come in the order of their names: their outputs are added in that order, whatever the record's.
    """
    return [vectors["model"]] if "model" in vectors else [vectors[name] for name in sorted(vectors)]
