"""The whole list for one hospital's folder; one broken piece leaves the others checkable."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcad.client.archive.labels import read_labels
from fedcad.client.doctor import machine, permissions
from fedcad.client.doctor.archive import Data
from fedcad.client.doctor.check import Check, Finding, NotCheckable, Tell, ok
from fedcad.client.doctor.connection import Route, proxy_for, split_address
from fedcad.client.doctor.identity import Identity
from fedcad.client.doctor.network import Network
from fedcad.client.doctor.premises import Premises
from fedcad.client.doctor.remembered import Remembered
from fedcad.client.doctor.study_file import StudyFile
from fedcad.client.doctor.training import Rehearsal, cache_bytes
from fedcad.shared.errors import FedCADError
from fedcad.shared.flower_environment import flower_environment

_FOLDER = "Folder"
_OWN_FOLDERS = ("flwr", "logs", "run")


@dataclass(frozen=True)
class Trial:
    """A study to try.

    Attributes:
        path: Its file.
        given: What the file holds.
    """

    path: Path
    given: StudyFile


def checks_of(
    premises: Premises, environment: Mapping[str, str], trial: Trial | None = None
) -> tuple[Check, ...]:
    """Return every check, in the order of the list.

    Args:
        premises: The hospital's folder.
        environment: Environment of this process; the node is taken to be started in the same.
        trial: A study to try as well.
    """
    data = Remembered(lambda: Data(premises.archive, premises.labels))
    identity = Identity(premises.read_enrolment, premises.hospital)
    return (
        *machine.checks(lambda: premises.site().device),
        Check(machine.GROUP, "disk", lambda _: _disk(premises, trial)),
        Check(_FOLDER, "site file", lambda _: _site_file(premises)),
        *_permissions(premises),
        *identity.checks(),
        *Network(lambda: route_of(premises, environment)).checks(),
        Check("Data", "archive", lambda tell: data().archive(tell)),
        Check("Data", "decoding", lambda tell: data().decoding(tell)),
        Check("Data", "labels", lambda _: data().label_table()),
        Check("Data", "labels fit", lambda tell: data().fit(tell)),
        *(_study(premises, trial) if trial else ()),
    )


def _site_file(premises: Premises) -> Finding:
    """Whether the site file can be used."""
    site = premises.read_site()
    return ok(f"{premises.site_file} (site {site.name})")


def _disk(premises: Premises, trial: Trial | None) -> Finding:
    """Whether there is room for what will be written into the state folder."""
    needed, what = machine.LEAST_DISK_BYTES, "needed for index, models and logs"
    if trial is not None:
        try:
            labels = len(read_labels(premises.labels).rows)
        except FedCADError:
            labels = 0  # the check of the label table says why
        needed += cache_bytes(trial.given.study, labels, premises.state)
        what = f"needed, with {labels} images of the study"
    return machine.disk(premises.state, needed, what)


def _keys(premises: Premises) -> Finding:
    """Whether the keys are private; before the request that makes them there is nothing to check."""
    if not premises.keys.exists() and not premises.enrolment_file.exists():
        raise NotCheckable("made with the enrolment request; see 'enrolment'")
    return permissions.secrets(premises.keys)


def _permissions(premises: Premises) -> tuple[Check, ...]:
    own = [premises.folder / name for name in _OWN_FOLDERS]
    return (
        Check(_FOLDER, "keys", lambda _: _keys(premises)),
        Check(_FOLDER, "folders", lambda _: permissions.folders([premises.state, *own])),
        Check(_FOLDER, "state", lambda _: permissions.writable(premises.state)),
        Check(
            _FOLDER,
            "read-only",
            lambda _: permissions.untouched(premises.archive, [premises.state, premises.keys, *own]),
        ),
    )


def route_of(premises: Premises, environment: Mapping[str, str]) -> Route:
    """Return the way to the coordinator that the node's processes take.

    Raises:
        NotCheckable: The hospital is not enrolled, or the site file or the proxy's address cannot be used.
        ConfigError: The site file's proxy cannot be used.
    """
    enrolment, proxy = premises.enrolment(), premises.site().proxy
    host, port = split_address(enrolment.address)
    settings = flower_environment(premises.folder / "flwr", environment, proxy=proxy)
    return Route(host, port, enrolment.ca_pem, proxy_for(host, settings, "site.yaml" if proxy else ""))


def _study(premises: Premises, trial: Trial) -> tuple[Check, ...]:
    def rehearsal() -> Rehearsal:
        site = premises.site()
        request = {
            "study": str(trial.path),
            "archive": str(premises.archive),
            "labels": str(premises.labels),
            "state": str(premises.state),
            "site": site.name,
            "threads": site.threads,
            "device": site.device,
        }
        return Rehearsal(trial.given, request)

    once = Remembered(rehearsal)

    def cases(tell: Tell) -> Finding:
        return once().cases(tell)

    def training(tell: Tell) -> Finding:
        return once().training(tell)

    return (Check("Study", "cases", cases), Check("Study", "training", training))
