"""A hospital's folder as it is found, whole or not: each piece is read when a check needs it.

Why not the node's own way of opening it: that stops at the first thing that is wrong, and the doctor is there
to find them all.
"""

from pathlib import Path

from fedcad.client.doctor.check import NotCheckable
from fedcad.client.doctor.remembered import Remembered
from fedcad.client.hospital import SITE_FILE, Hospital
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.enrolment import Enrolment, read_file
from fedcad.shared.errors import FedCADError, IdentityError


class Premises:
    """Where a hospital's files are, and what they say.

    Attributes:
        folder: The hospital's folder.
        site_file: The hospital's own settings.
        enrolment_file: What the coordinator returned.
        keys: Folder of the private keys.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder; nothing is read yet."""
        self.folder = folder
        self.site_file = folder / SITE_FILE
        self.enrolment_file = folder / "enrolment.json"
        self.keys = folder / "keys"
        self._hospital = Remembered(lambda: Hospital.load(folder))
        self._enrolment = Remembered(self._read_enrolment)

    def _read_enrolment(self) -> Enrolment:
        if not self.enrolment_file.exists():
            raise IdentityError(self._next_step())
        return read_file(self.enrolment_file, Enrolment, "an enrolment")

    def _next_step(self) -> str:
        join = f"fedcad client join {self.folder} FILE"
        if (self.folder / "request.json").exists():
            return (
                "requested, not yet enrolled: send request.json to the coordinator if you have not, and "
                f"install the file that it returns: {join}"
            )
        return (
            f"not enrolled: make a request (fedcad client request {self.folder}), send it to the "
            f"coordinator, then install the file that it returns ({join})"
        )

    def read_site(self) -> SiteConfig:
        """Return the site file's content.

        Raises:
            ConfigError: It is absent or wrong.
        """
        return self._hospital().site

    def read_enrolment(self) -> Enrolment:
        """Return the enrolment; its signatures are not checked.

        Raises:
            IdentityError: It is absent or damaged.
        """
        return self._enrolment()

    def hospital(self) -> Hospital:
        """Return the folder as the node opens it, for a check of something else than the site file.

        Raises:
            NotCheckable: It cannot be read, which the check of the site file reports.
        """
        try:
            return self._hospital()
        except FedCADError as error:
            raise NotCheckable("see 'site file'") from error

    def site(self) -> SiteConfig:
        """Return the site file's content; raises NotCheckable as :meth:`hospital` does."""
        return self.hospital().site

    def enrolment(self) -> Enrolment:
        """Return the enrolment for a check of something else, with its signatures checked.

        Raises:
            NotCheckable: It cannot be used, which the check of the enrolment reports.
        """
        try:
            enrolment = self._enrolment()
            enrolment.facts()
        except FedCADError as error:
            raise NotCheckable("see 'enrolment'") from error
        return enrolment

    @property
    def archive(self) -> Path:
        """Folder of the DICOM files; raises NotCheckable without a site file."""
        return self.folder / self.site().archive

    @property
    def labels(self) -> Path:
        """The label table; raises NotCheckable without a site file."""
        return self.folder / self.site().labels

    @property
    def state(self) -> Path:
        """The state folder; raises NotCheckable without a site file."""
        return self.folder / self.site().state
