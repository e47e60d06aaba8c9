"""The file that belongs to one hospital alone: where its data lie."""

from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name


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
