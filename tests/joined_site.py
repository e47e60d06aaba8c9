"""A real hospital that has joined a real consortium, and the coordinator's half of its messages."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import tiny_study
import yaml

from fedcad.client.enrolment import join, request
from fedcad.client.hospital import Hospital
from fedcad.client.workbench import freeze
from fedcad.client.worker_protocol import WorkerMessage
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.enrolment import enrol
from fedcad.shared.canonical import hash_of_vectors
from fedcad.shared.config.study import StudyConfig
from fedcad.shared.contract import Contract
from fedcad.shared.enrolment import file_text
from fedcad.shared.envelope import ANSWER, PLAN, Hashes, ready_purpose, sign_texts, verify_texts
from fedcad.shared.messages import Header, Refusal, RoundPlan, SiteInfo, Update, decode, encode
from fedcad.shared.seal import Seal, sign_seal

QUESTION = "5" * 32


def join_site(folder: Path, *, patients: int = 24, **settings: object) -> tuple[Hospital, "Coordinator"]:
    """Write an archive, found a consortium, and let the hospital join it."""
    archive = next(iter(tiny_study.build_archives(folder / "archives", patients=patients).values()))
    plain = yaml.safe_load(archive.site_file.read_text()) | settings
    archive.site_file.write_text(yaml.safe_dump(plain))
    consortium = Consortium.create(folder / "consortium", make_config("tiny", "localhost:8443"))
    hospital = Hospital.load(archive.folder)
    (folder / "enrolment.json").write_bytes(file_text(enrol(consortium, request(hospital))))
    join(hospital, folder / "enrolment.json", consortium.fingerprint)
    for made in (hospital.run, hospital.logs):
        made.mkdir(mode=0o700)
    return hospital, Coordinator(consortium, hospital)


class Coordinator:
    """What the coordinator sends to one site, and how it checks the answers."""

    def __init__(self, consortium: Consortium, hospital: Hospital) -> None:
        self.key = consortium.signing_key()
        self.site = hospital.site.name
        self.site_key = hospital.signing_key().public

    def ready(self, contract: Contract, *, days: float = 10, key=None) -> WorkerMessage:
        now = datetime.now(UTC)
        seal = Seal(
            consortium="tiny",
            study=contract.study.name,
            version=1,
            study_hash=contract.study_hash,
            issued=(now - timedelta(days=1)).isoformat(),
            expires=(now + timedelta(days=days)).isoformat(),
        )
        signed = sign_seal(seal, self.key).text()
        texts = {"question": QUESTION, "contract": contract.terms.text(), "seal": signed}
        return WorkerMessage("ready", sign_texts(texts, PLAN, key or self.key))

    def train(self, contract: Contract, *, key=None, vectors=None, **changes: object) -> WorkerMessage:
        arrays = vectors or {"model": contract.initial.numpy()}
        plain = {
            "study_hash": contract.study_hash,
            "site": self.site,
            "round": 1,
            "work": ("validate", "train"),
            "broadcast_hash": hash_of_vectors(
                {name: values.astype(np.float32) for name, values in arrays.items()}
            ),
        }
        plan = RoundPlan.model_validate(plain | changes)
        texts = sign_texts({"plan": encode(plan)}, PLAN, key or self.key)
        return WorkerMessage("train", texts, {"vectors": arrays})

    def info(self, answer: WorkerMessage) -> SiteInfo | Refusal:
        verify_texts(answer.texts, ready_purpose(QUESTION), self.site_key)
        if "refusal" in answer.texts:
            return decode(Refusal, answer.texts["refusal"])
        return decode(SiteInfo, answer.texts["siteinfo"])

    def update(self, answer: WorkerMessage) -> Update | Refusal:
        verify_texts(answer.texts, ANSWER, self.site_key)
        if "refusal" in answer.texts:
            return decode(Refusal, answer.texts["refusal"])
        vectors = {name: values.astype(np.float32) for name, values in answer.arrays["vectors"].items()}
        update = Update(decode(Header, answer.texts["header"]), vectors, answer.arrays["statistics"])
        assert Hashes.of(update) == decode(Hashes, answer.texts["hashes"])
        return update


def make_contract(**changes: object) -> Contract:
    """Freeze a small study."""
    study: StudyConfig = tiny_study.make_study(**changes)
    return freeze(study)
