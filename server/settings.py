"""What a coordinator's run folder says about the run before it starts: ``run.json``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fedcad.shared.atomic_files import write_bytes
from fedcad.shared.canonical import canonical_json
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.errors import CheckpointError

_NAME = "run.json"


class RunSettings(Frozen):
    """Settings of one run."""

    contract: str
    """Folder of the contract, relative to the run folder."""
    sites: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    """Names of the enrolled sites."""
    virtual_clock: bool = False
    """True in simulations: delays are those that the fault schedule says, never wall time."""

    def save(self, folder: Path) -> None:
        """Write the settings into a run folder, made if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / _NAME, canonical_json(self.model_dump(mode="json")))

    @classmethod
    def load(cls, folder: Path) -> "RunSettings":
        """Read the settings of a run folder.

        Raises:
            CheckpointError: They are missing or wrong.
        """
        try:
            return cls.model_validate_json((folder / _NAME).read_bytes())
        except (OSError, ValidationError) as error:
            raise CheckpointError(f"{folder / _NAME}: the run's settings cannot be read: {error}") from error
