"""A whole consortium at one moment: its coordinator, its certificates, its studies. Read, never changed."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from fedcad.server.consortium import Consortium
from fedcad.server.printable import printable
from fedcad.server.study_folder import StudyFolder, is_locked, newest_studies
from fedcad.server.study_state import StudyView, view_of
from fedcad.server.study_wording import in_words
from fedcad.shared.errors import FedCADError

WARN_BEFORE_S = 30 * 86400.0
"""How long before its end a certificate is warned of."""
_LARGEST_BYTES = 2**20


@dataclass(frozen=True)
class CoordinatorView:
    """The coordinator's processes.

    Attributes:
        is_running: Whether its supervisor lives.
        pid: The supervisor's process; None if unknown.
        started: When it was started, in seconds since 1970; 0 if unknown.
        problem: What it cannot do just now, in plain words; empty if all is well.
        processes: State of each of its processes by name.
        troubles: For each study folder, ``NAME/vNNNN``, why its last run ended; empty if it did not fail.
    """

    is_running: bool
    pid: int | None = None
    started: float = 0.0
    problem: str = ""
    processes: dict[str, str] | None = None
    troubles: dict[str, str] | None = None

    def trouble_of(self, folder: StudyFolder) -> str:
        """Return why a study's last run ended too early, or an empty text."""
        return (self.troubles or {}).get(f"{folder.path.parent.name}/{folder.path.name}", "")


@dataclass(frozen=True)
class CertificateView:
    """A certificate: whose, when it ends (seconds since 1970), and the command that renews it."""

    owner: str
    expires: float
    remedy: str


@dataclass(frozen=True)
class Overview:
    """A consortium.

    Attributes:
        name: Its name.
        address: Where sites reach it.
        stall_alert_s: Seconds of quiet after which a study stalls.
        coordinator: Its processes.
        sites: Status of every enrolled site by name: enrolled, revoked, expired.
        certificates: Those of authority, server and enrolled sites.
        studies: The newest version of every study.
        problems: What could not be read.
    """

    name: str
    address: str
    stall_alert_s: float
    coordinator: CoordinatorView
    sites: dict[str, str]
    certificates: tuple[CertificateView, ...]
    studies: tuple[StudyView, ...]
    problems: tuple[str, ...] = ()

    def warnings(self, now: float) -> list[str]:
        """Return what somebody should do something about, in plain words, each with its remedy."""
        found = [_certificate_warning(certificate, now) for certificate in self.certificates]
        found += [_contract_warning(study, now) for study in self.studies]
        return [text for text in found if text] + list(self.problems)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON; times in seconds since 1970."""
        return asdict(self)


def overview_of(folder: Path, now: float) -> Overview:
    """Look at a consortium's folder.

    Raises:
        FedCADError: The folder is no consortium's. All that is damaged below it becomes a problem instead.
    """
    consortium = Consortium.load(folder)
    problems: list[str] = []
    coordinator = _read_coordinator(consortium, problems)
    sites, certificates = _read_certificates(consortium, problems)
    return Overview(
        name=consortium.config.name,
        address=consortium.config.address,
        stall_alert_s=consortium.config.stall_alert_s,
        coordinator=coordinator,
        sites=sites,
        certificates=tuple(certificates),
        studies=tuple(study_view(study, coordinator, now) for study in newest_studies(consortium.studies)),
        problems=tuple(problems),
    )


def study_view(folder: StudyFolder, coordinator: CoordinatorView, now: float) -> StudyView:
    """Return a study's view, knowing what its coordinator does."""
    trouble = coordinator.trouble_of(folder)
    return view_of(folder, now=now, coordinator_runs=coordinator.is_running, trouble=trouble)


def coordinator_of(consortium: Consortium) -> CoordinatorView:
    """Return the state of a consortium's processes; damage becomes the view's problem."""
    problems: list[str] = []
    view = _read_coordinator(consortium, problems)
    return view if not problems else CoordinatorView(view.is_running, problem="; ".join(problems))


def _read_coordinator(consortium: Consortium, problems: list[str]) -> CoordinatorView:
    try:
        if not is_locked(consortium.run / "supervisor.lock"):
            return CoordinatorView(is_running=False)
        path = consortium.run / "supervisor.json"
        with path.open("rb") as stream:
            return _coordinator_from(json.loads(stream.read(_LARGEST_BYTES)))
    except FileNotFoundError:
        return CoordinatorView(is_running=True)
    except FedCADError as error:
        problems.append(str(error))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{path}: the state of the coordinator cannot be read: {error}")
        return CoordinatorView(is_running=True)
    return CoordinatorView(is_running=False)


def _coordinator_from(plain: dict[str, Any]) -> CoordinatorView:
    runs = {str(name): run for name, run in plain.get("runs", {}).items()}
    return CoordinatorView(
        is_running=True,
        pid=int(plain["pid"]),
        started=datetime.fromisoformat(str(plain["started"])).timestamp(),
        problem=str(plain.get("problem", "")),
        processes={str(name): _state_of(each) for name, each in plain.get("processes", {}).items()},
        troubles={name: str(run.get("reason", "")) for name, run in runs.items() if run.get("failures")},
    )


def _state_of(process: dict[str, Any]) -> str:
    """Return a process's state; where it is not running, with the last error that it printed."""
    state, error = str(process["state"]), str(process.get("last_error", ""))
    return state if state == "running" or not error else f"{state} ({printable(error)})"


def _read_certificates(
    consortium: Consortium, problems: list[str]
) -> tuple[dict[str, str], list[CertificateView]]:
    place = consortium.folder
    server = f"fedcad server renew {place} --server"
    certificates = [
        *_certificate("the authority", consortium.ca_certificate, "plan a new consortium in time", problems),
        *_certificate("the coordinator's server", consortium.server_certificate, server, problems),
    ]
    try:
        enrolled = consortium.sites()
    except FedCADError as error:
        problems.append(str(error))
        return {}, certificates
    for name, site in sorted(enrolled.items()):
        if site.status != "revoked":
            remedy = f"fedcad server renew {place} {name}"
            certificates.append(CertificateView(f"site {name}", site.expires.timestamp(), remedy))
    return {name: site.status for name, site in sorted(enrolled.items())}, certificates


def _certificate(owner: str, path: Path, remedy: str, problems: list[str]) -> list[CertificateView]:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        problems.append(f"{path}: the certificate of {owner} cannot be read: {error}")
        return []
    return [CertificateView(owner, found.not_valid_after_utc.timestamp(), remedy)]


def _certificate_warning(certificate: CertificateView, now: float) -> str:
    left = certificate.expires - now
    if left > WARN_BEFORE_S:
        return ""
    when = f"expires in {in_words(left)}" if left > 0 else f"EXPIRED {in_words(-left)} ago"
    return f"the certificate of {certificate.owner} {when}: {certificate.remedy}"


def _contract_warning(study: StudyView, now: float) -> str:
    if study.expires is None or study.state.has_ended or study.expires - now > WARN_BEFORE_S:
        return ""
    left = study.expires - now
    when = f"ends in {in_words(left)}" if left > 0 else f"ENDED {in_words(-left)} ago"
    return f"the contract of {study.title} {when}; sites refuse it then: fedcad server amend"
