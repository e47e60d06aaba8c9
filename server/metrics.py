"""Metrics for Prometheus, on this machine only; every value is read from the folders when it is asked for.

Names follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/): base units, ``_total``
for what only grows. Nothing here is known of patients; sites appear by the names of their enrolment.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedcad.server.overview import Overview, overview_of
from fedcad.server.stall import quiet_for
from fedcad.server.study_state import State, StudyView
from fedcad.shared.errors import FedCADError, UnsupportedError
from fedcad.shared.version import __version__

LOOPBACK = "127.0.0.1"
_STUDY = ("study", "version")
Samples = Iterable[tuple[Sequence[str], float]]


class ConsortiumCollector(Collector):
    """Reads a consortium's folder at every scrape."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Use a consortium's folder and a clock (seconds since 1970)."""
        self._folder = folder
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is, is only known once the folder has been read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; where the folder cannot be read, one that says so."""
        now = self._clock()
        try:
            overview = overview_of(self._folder, now)
        except FedCADError:
            overview = None
        yield _gauge(
            "fedcad_build_info", "1, with the version of FedCAD.", ("fedcad",), [((__version__,), 1)]
        )
        readable = [((), float(overview is not None))]
        yield _gauge("fedcad_readable", "1 where the consortium's folder can be read.", (), readable)
        if overview is not None:
            yield from _of_the_coordinator(overview, now)
            yield from _of_studies(overview.studies, now)
            yield from _of_sites(overview.studies, now)
            yield _stalls(overview, now)


def _of_the_coordinator(overview: Overview, now: float) -> Iterator[Metric]:
    processes = (overview.coordinator.processes or {}).items()
    yield _gauge(
        "fedcad_process_up",
        "1 where a process of the coordinator is running.",
        ("process",),
        (((name,), float(state == "running")) for name, state in processes),
    )
    yield _gauge(
        "fedcad_certificate_expires_seconds",
        "Seconds until a certificate ends; negative afterwards.",
        ("owner",),
        (((each.owner,), each.expires - now) for each in overview.certificates),
    )
    problems = len(overview.problems) + sum(len(study.problems) for study in overview.studies)
    yield _gauge(
        "fedcad_problems", "Files that cannot be read; see: fedcad server status", (), [((), problems)]
    )


def _of_studies(studies: Sequence[StudyView], now: float) -> Iterator[Metric]:
    values: dict[str, tuple[str, Callable[[StudyView], float]]] = {
        "round": ("Last closed round.", lambda study: study.round),
        "rounds": ("Rounds that the study has.", lambda study: study.rounds),
        "quorum": ("Updates that a round needs.", lambda study: study.quorum),
        "last_progress_timestamp_seconds": (
            "When a round was last closed or a site heard of; 0 if never.",
            lambda study: study.last_progress,
        ),
    }
    for name, (text, value) in values.items():
        yield _gauge(f"fedcad_study_{name}", text, _STUDY, ((_labels(each), value(each)) for each in studies))
    yield _gauge(
        "fedcad_study_state",
        "1 for the state that the study is in, 0 for all others.",
        (*_STUDY, "state"),
        (
            ((*_labels(study), state.value), float(study.state is state))
            for study in studies
            for state in State
        ),
    )
    ends = ((_labels(study), study.expires - now) for study in studies if study.expires is not None)
    yield _gauge("fedcad_contract_expires_seconds", "Seconds until the contract ends.", _STUDY, ends)
    sent = ((_labels(study), study.bytes_sent) for study in studies)
    yield _counter("fedcad_study_sent_bytes", "Parameters sent to sites in closed rounds.", _STUDY, sent)
    received = ((_labels(study), study.bytes_received) for study in studies)
    yield _counter("fedcad_study_received_bytes", "Updates received in closed rounds.", _STUDY, received)


def _of_sites(studies: Sequence[StudyView], now: float) -> Iterator[Metric]:
    pairs = [(study, site) for study in studies for site in study.sites]
    contacts = [
        ((*_labels(study), site.name), max(now - site.live.last_contact, 0.0))
        for study, site in pairs
        if site.live.last_contact is not None
    ]
    yield _gauge(
        "fedcad_site_last_contact_seconds",
        "Seconds since a site's last sign of life; absent if there was none.",
        (*_STUDY, "site"),
        contacts,
    )
    yield _counter(
        "fedcad_site_rounds",
        "Closed rounds of a site by what became of its part.",
        (*_STUDY, "site", "status"),
        (
            ((*_labels(study), site.name, status), count)
            for study, site in pairs
            for status, count in site.rounds.items()
        ),
    )


def _stalls(overview: Overview, now: float) -> Metric:
    quiet = {
        study.title: quiet_for(study, now, since=overview.coordinator.started) for study in overview.studies
    }
    stalled = {title: each is not None and each >= overview.stall_alert_s for title, each in quiet.items()}
    samples = ((_labels(study), float(stalled[study.title])) for study in overview.studies)
    return _gauge("fedcad_study_stalled", "1 where a study that should run does nothing.", _STUDY, samples)


def _labels(study: StudyView) -> tuple[str, str]:
    return study.name, str(study.version)


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        gauge.add_metric(values, value)
    return gauge


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    """Return a counter; ``_total`` is added to its name."""
    counter = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        counter.add_metric(values, value)
    return counter


class MetricsServer:
    """Serves metrics until it is closed."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        """Hold a server and the thread that runs it."""
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "MetricsServer":
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        self.close()


def serve_metrics(consortium_folder: Path, port: int) -> MetricsServer:
    """Serve a consortium's metrics at ``http://127.0.0.1:PORT/metrics``, to this machine only.

    Args:
        consortium_folder: The consortium's folder, read at every scrape.
        port: Port; 0 chooses a free one.

    Raises:
        UnsupportedError: The port is in use.
    """
    # A registry of its own: the client's default one describes this Python process, which nobody asked for.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ConsortiumCollector(consortium_folder))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise UnsupportedError(
            f"metrics: port {port} of this machine cannot be used ({error.strerror}); "
            "set another metrics_port in consortium.yaml"
        ) from error
    return MetricsServer(server, thread)
