"""Which reader reads which kind of data set. A new data set is one file and one line here."""

from pathlib import Path

from fedcad.shared.config.simulation import DataSetConfig, DicomTreeData, ImageFolderData, PhantomData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.interface import DataSet


def open_data_set(config: DataSetConfig, data: Path | None) -> DataSet:
    """Return the reader of a data set; nothing is read yet.

    Readers are imported only when needed, so that a phantom needs neither Pillow nor pydicom.

    Args:
        config: The ``data`` section of a simulation file.
        data: Folder given by ``--data``; a phantom takes none.

    Raises:
        DataError: The folder is needed but absent, or given although none is needed.
    """
    if isinstance(config, PhantomData):
        if data is not None:
            raise DataError(f"--data {data}: the phantom is computed and reads no folder; leave out --data")
        from fedcad.simulations.datasets.phantom import PhantomDataSet

        return PhantomDataSet(config)
    root = _existing_folder(config.kind, data)
    if isinstance(config, ImageFolderData):
        from fedcad.simulations.datasets.image_folder import ImageFolderDataSet

        return ImageFolderDataSet(config, root)
    if isinstance(config, DicomTreeData):
        from fedcad.simulations.datasets.dicom_tree import DicomTreeDataSet

        return DicomTreeDataSet(config, root)
    from fedcad.simulations.datasets.medmnist import MedMNISTDataSet

    return MedMNISTDataSet(config, root)


def _existing_folder(kind: str, data: Path | None) -> Path:
    if data is None:
        raise DataError(f"the data set {kind!r} lies in a folder, but none was given; add --data FOLDER")
    if not data.is_dir():
        what = "is a file; give the folder that it lies in" if data.exists() else "there is no such folder"
        raise DataError(f"--data {data}: {what}")
    return data
