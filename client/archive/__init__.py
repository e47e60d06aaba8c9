"""From a DICOM folder to preprocessed tensors, read-only on the source."""
