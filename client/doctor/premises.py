"""A hospital's folder as it is found, whole or not: each piece is read when a check needs it.

Why not the node's own way of opening it: that stops at the first thing that is wrong, and the doctor is there
to find them all.
"""

from pathlib import Path

from fedcad.client.doctor.check import NotCheckable
from fedcad.client.doctor.remembered import Remembered
from fedcad.shared.config.load import load_site
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.enrolment import Enrolment, read_file
from fedcad.shared.errors import ConfigError, FedCADError, IdentityError


class Premises:
    """Where a hospital's files are, and what they say.

    Attributes:
        folder: The hospital's folder.
        site_file: The hospital's own settings.
        enrolment_file: What the coordinator returned.
        keys: Folder of the private keys.
        node_key: The key with which the node logs in.
        signing_key: The key with which the site signs.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder; nothing is read yet."""
        self.folder = folder
        self.site_file = folder / "site.yaml"
        self.enrolment_file = folder / "enrolment.json"
        self.keys = folder / "keys"
        self.node_key = self.keys / "node.key"
        self.signing_key = self.keys / "signing.key"
        self._site = Remembered(self._read_site)
        self._enrolment = Remembered(self._read_enrolment)

    def _read_site(self) -> SiteConfig:
        if not self.site_file.is_file():
            raise ConfigError(f"there is no {self.site_file}; make it with: fedcad client init {self.folder}")
        return load_site(self.site_file)

    def _read_enrolment(self) -> Enrolment:
        if not self.enrolment_file.exists():
            raise IdentityError(
                f"not enrolled yet: make a request (fedcad client request {self.folder}), send it to the "
                f"coordinator, then install its answer (fedcad client join {self.folder} ENROLMENT)"
            )
        return read_file(self.enrolment_file, Enrolment, "an enrolment")

    def read_site(self) -> SiteConfig:
        """Return the site file's content.

        Raises:
            ConfigError: It is absent or wrong.
        """
        return self._site()

    def read_enrolment(self) -> Enrolment:
        """Return the enrolment; its signatures are not checked.

        Raises:
            IdentityError: It is absent or damaged.
        """
        return self._enrolment()

    def site(self) -> SiteConfig:
        """Return the site file's content for a check of something else.

        Raises:
            NotCheckable: It cannot be read, which the check of the site file reports.
        """
        try:
            return self._site()
        except FedCADError as error:
            raise NotCheckable("see 'site file'") from error

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
