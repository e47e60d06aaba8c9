"""Every error that FedCAD raises on purpose.

FedCADError
├── ConfigError          a YAML file is wrong: file, line, key, given, allowed
├── DataError            a data set, archive or label table cannot be used
│   └── ArchiveError     a DICOM archive or one of its files cannot be used
├── ProtocolError        a message breaks the protocol (wrong round, hash, size, type)
├── IdentityError        a key, certificate or signature is not whose or what it should be
├── InvalidUpdate        an update's numbers cannot be used (shape, dtype, not finite, too large)
├── QuorumError          a round closed with fewer updates than the study's quorum
├── CheckpointError      saved state is missing, damaged or of another study
├── DeviceMemoryError    the memory of a GPU does not suffice
├── UnsupportedError     asked for something that this version does not offer
└── MissingExtraError    a command needs an optional part that is not installed

A message answers four questions: what, got, expected, what to do. It never contains anything
about a patient: files are named by their path only where the reader is the owner of that path.
"""


class FedCADError(Exception):
    """Base of all errors that are shown to a person without a traceback."""


class ConfigError(FedCADError):
    """A configuration file is wrong."""


class DataError(FedCADError):
    """A data set, archive or label table cannot be used."""


class ArchiveError(DataError):
    """A DICOM archive or one of its files cannot be used."""


class ProtocolError(FedCADError):
    """A message breaks the protocol."""


class IdentityError(FedCADError):
    """A key, certificate or signature is not whose or what it should be."""


class InvalidUpdate(FedCADError):  # noqa: N818 - the domain's word, not an "...Error"
    """An update's numbers cannot be used."""


class QuorumError(FedCADError):
    """A round closed with fewer updates than the study's quorum.

    Attributes:
        missing: Names of the sites whose update is missing.
    """

    def __init__(self, reason: str, missing: tuple[str, ...] = ()) -> None:
        """Say why, and which sites are missing."""
        super().__init__(reason)
        self.missing = missing


class CheckpointError(FedCADError):
    """Saved state is missing, damaged or of another study."""


class DeviceMemoryError(FedCADError):
    """The memory of a GPU does not suffice."""


class UnsupportedError(FedCADError):
    """This version does not offer what was asked for."""


class MissingExtraError(FedCADError):
    """A command needs an optional part that is not installed."""
