"""What a simulation adds to a study: data set, partition into sites, engine, seeds, faults."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name

Patients = Annotated[int, Field(ge=1, le=1_000_000)]
SiteCount = Annotated[int, Field(ge=1, le=1000)]


class PhantomData(Frozen):
    """Procedural chest X-rays with ground truth; needs no download."""

    kind: Literal["phantom"]
    """Data set."""
    patients: Patients
    """Number of patients."""
    images_per_patient: Annotated[int, Field(ge=1, le=16)] = 1
    """Images of each patient."""
    size: Annotated[int, Field(ge=64, le=1024)] = 256
    """Rows and columns of the images in pixels."""
    classes: Annotated[
        tuple[Literal["normal", "opacity", "nodule"], ...], Field(min_length=2, strict=False)
    ] = ("normal", "opacity", "nodule")
    """Findings drawn, each with equal probability."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the images (not of the study)."""


class ImageFolderData(Frozen):
    """Folders of images with a labels.csv, below the folder given by --data."""

    kind: Literal["image-folder"]
    """Data set."""
    pattern: str = "*"
    """Which folders below --data are read (shell pattern on the folder's name)."""
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Shell patterns of folders left out all the same."""


class MedMNISTData(Frozen):
    """A MedMNIST-style .npz file below the folder given by --data."""

    kind: Literal["medmnist"]
    """Data set."""
    file: str
    """Name of the .npz file with train/val/test images and labels."""
    classes: Annotated[tuple[Name, ...], Field(min_length=2, strict=False)]
    """Names of the classes 0, 1, … in the file."""


class DicomTreeData(Frozen):
    """A tree of DICOM files with a label table, below the folder given by --data."""

    kind: Literal["dicom-tree"]
    """Data set."""
    labels: str = "labels.csv"
    """CSV with the columns file (relative to the table), patient_id and label; others become attributes."""


DataSetConfig = Annotated[
    PhantomData | ImageFolderData | MedMNISTData | DicomTreeData, Field(discriminator="kind")
]


class ByFolder(Frozen):
    """Every folder of the data set is a site."""

    kind: Literal["folder"]
    """Partition."""


class ByColumn(Frozen):
    """Every value of a column of the label table is a site."""

    kind: Literal["column"]
    """Partition."""
    column: str
    """Name of the column."""


class ByAcquisition(Frozen):
    """Every value of an acquisition attribute (for instance vendor) is a site."""

    kind: Literal["acquisition"]
    """Partition."""
    attribute: Literal["vendor", "model", "view", "modality"]
    """Acquisition attribute."""


class Iid(Frozen):
    """Patients dealt evenly at random, stratified by label."""

    kind: Literal["iid"]
    """Partition."""
    sites: SiteCount
    """Number of sites."""


class Dirichlet(Frozen):
    """Label skew: each class spread over the sites by a Dirichlet draw (Hsu et al. 2019)."""

    kind: Literal["dirichlet"]
    """Partition."""
    sites: SiteCount
    """Number of sites."""
    alpha: Annotated[float, Field(gt=0.0, le=1e6)]
    """Concentration α: small is skewed, large is even."""


class QuantitySkew(Frozen):
    """Sites of unequal size: site k gets a share proportional to ratio^k."""

    kind: Literal["quantity"]
    """Partition."""
    sites: SiteCount
    """Number of sites."""
    ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Each site's size relative to the one before it; 1 is even."""


class FeatureShift(Frozen):
    """Even and stratified, but each site's images pass through another emulated scanner."""

    kind: Literal["feature-shift"]
    """Partition."""
    sites: SiteCount
    """Number of sites."""


PartitionConfig = Annotated[
    ByFolder | ByColumn | ByAcquisition | Iid | Dirichlet | QuantitySkew | FeatureShift,
    Field(discriminator="kind"),
]


class EngineConfig(Frozen):
    """How the simulation runs; never what it computes."""

    name: Literal["in-process", "flower", "deployment"] = "in-process"
    """`in-process`: worker processes and shared memory. `flower`: Flower's simulation runtime (Ray).
    `deployment`: a coordinator and a node for each site as real processes, over TLS on this machine."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Worker processes; absent means one per CPU core."""


class FaultConfig(Frozen):
    """Something that goes wrong at one site in some rounds."""

    kind: Literal["drop", "delay", "nan", "wrong-shape", "stale-round", "die"]
    """`drop`: no answer. `delay`: late by delay_s on the virtual clock. `nan`, `wrong-shape`, `stale-round`:
    a garbage update. `die`: the process is killed in the middle of training."""
    site: Name
    """Name of the site."""
    rounds: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, strict=False)]
    """Rounds in which it happens, counted from 1."""
    delay_s: Annotated[float, Field(gt=0.0)] | None = None
    """Virtual seconds of `delay`."""

    @model_validator(mode="after")
    def _delay_has_seconds(self) -> Self:
        if self.kind == "delay" and self.delay_s is None:
            raise ValueError("kind 'delay' needs delay_s, for instance delay_s: 600 (virtual seconds)")
        if self.kind != "delay" and self.delay_s is not None:
            raise ValueError(f"delay_s belongs to kind 'delay' alone; remove it from kind {self.kind!r}")
        return self


class BaselinesConfig(Frozen):
    """What the federated model is compared with, with equal steps and selection."""

    alone: bool = True
    """Each site trains on its own cases only; also gives the ensemble of the sites' own models."""
    pooled: bool = True
    """One model on all cases together, which real hospitals could not do."""


class SimulationConfig(Frozen):
    """A simulation: a study run on emulated hospitals on one machine."""

    name: Name
    """Short name of the simulation."""
    description: Annotated[str, Field(max_length=4000)] = ""
    """What it shows and what it cannot show; printed in the report."""
    study: str
    """Path of the study file, relative to this file."""
    data: DataSetConfig
    """The data set."""
    partition: PartitionConfig
    """How patients become sites."""
    partition_seed: Annotated[int, Field(ge=0)] = 1
    """Seed of a random partition; the same hospitals for every study seed."""
    minimum_patients: Annotated[int, Field(ge=1)] = 1
    """Sites with fewer patients are left out, and named."""
    external_sites: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Sites that never train and are tested whole, as an external test."""
    leave_one_site_out: bool = False
    """Also train once without each site, and test on the same test cases as everywhere."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)] = (1,)
    """Study seeds; each gives one whole run."""
    baselines: BaselinesConfig = BaselinesConfig()
    """Comparisons."""
    engine: EngineConfig = EngineConfig()
    """How it runs."""
    faults: Annotated[tuple[FaultConfig, ...], Field(strict=False)] = ()
    """What goes wrong, where and when."""
