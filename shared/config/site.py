"""The file that belongs to one hospital alone: where its data lie, and how its node runs."""

from typing import Annotated

from pydantic import Field

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name

ProxyAddress = Annotated[str, Field(pattern=r"^(?:https?://[^\s/@]+:[0-9]{1,5}/?)?$", max_length=300)]


class SiteConfig(Frozen):
    """A hospital node. Paths are relative to the site file."""

    name: Name
    """Name of the site, as the coordinator and the reports use it."""
    archive: str
    """Folder of DICOM files; only ever read."""
    labels: str
    """Label table as exported by the RIS: CSV with the columns sop_instance_uid, patient_id and label."""
    state: str
    """Folder for index, tensor cache and algorithm state; made if absent."""
    proxy: ProxyAddress | None = None
    """Web proxy for the connection to the coordinator, for instance `http://proxy.hospital.example:3128`.
    Absent: the system's own setting; `""`: none, even if the system has one."""
    worker_idle_s: Annotated[float, Field(ge=1.0, le=86400.0)] = 600.0
    """After how many seconds without work models and caches are unloaded from memory."""
    checkpoint_s: Annotated[float, Field(ge=1.0, le=86400.0)] = 60.0
    """Seconds between checkpoints inside a round: what a killed node loses of its training, at most."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many threads training uses. With one, every engine and every repetition gives the same bits."""
    device: Annotated[str, Field(pattern=r"^cpu$|^cuda(:(0|[1-9][0-9]?))?$")] = "cpu"
    """Where networks train and are evaluated: `cpu`, or `cuda` (the first NVIDIA GPU) or `cuda:N` (N from 0).
    Images are decoded and augmented on the processor all the same. Numbers of a GPU differ from a processor's
    in their last digits. Training does not start on a device that is not there; the doctor says so before."""
    largest_payload_mb: Annotated[int, Field(ge=1, le=100_000)] = 4096
    """Largest message that the node takes from the coordinator or sends to it, in MB."""
