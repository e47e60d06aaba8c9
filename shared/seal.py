"""The coordinator's signature under a contract: what was agreed, from when until when, and what it replaces.

The contract says what is trained; its seal says that this consortium's coordinator stands behind it. A site
needs no more than both texts and the coordinator's public key, and checks them before any data is touched.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from fedcad.shared.canonical import canonical_json
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.config.study import Name
from fedcad.shared.contract import Terms
from fedcad.shared.errors import IdentityError, ProtocolError
from fedcad.shared.messages import Hash, decode
from fedcad.shared.signing import PublicKey, SigningKey
from fedcad.shared.version import __version__

PURPOSE = "contract"
FROM_SEED = "the study's seed"
CLOCK_TOLERANCE_S = 600.0
"""How far a site's clock may be behind the coordinator's."""


class Seal(Frozen):
    """What is signed about a contract."""

    format: Literal[1] = 1
    """Version of this text."""
    consortium: Name
    """Name of the consortium."""
    study: Name
    """Name of the study."""
    version: Annotated[int, Field(ge=1, le=9999)]
    """Version of the study's contract, from 1."""
    study_hash: Hash
    """Hash of the contract: the name that plans use."""
    previous: Hash | None = None
    """Hash of the version that this one replaces."""
    initial_from: Annotated[str, Field(max_length=300)] = FROM_SEED
    """Lineage of the initial parameters."""
    fedcad: str = __version__
    """Version of FedCAD that coordinator and sites run."""
    issued: Annotated[str, Field(max_length=40)]
    """When it was signed, ISO 8601 with time zone."""
    expires: Annotated[str, Field(max_length=40)]
    """When it ends, ISO 8601 with time zone."""


class SignedSeal(Frozen):
    """A seal and its signature."""

    seal: Seal
    """What is signed."""
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """Ed25519, hexadecimal, of the seal's canonical JSON."""

    def text(self) -> str:
        """Return it as canonical JSON."""
        return canonical_json(self.model_dump(mode="json")).decode()


def sign_seal(seal: Seal, key: SigningKey) -> SignedSeal:
    """Sign a seal with the coordinator's key."""
    return SignedSeal(seal=seal, signature=key.sign(PURPOSE, _signed(seal)))


def verify_seal(contract_text: object, seal_text: object, *, coordinator: PublicKey, now: datetime) -> Terms:
    """Check a contract and its seal, and return the contract's terms.

    Args:
        contract_text: From :meth:`Terms.text`, possibly hostile.
        seal_text: From :meth:`SignedSeal.text`, possibly hostile.
        coordinator: Whose signature is expected.
        now: Time of the check, with time zone.

    Raises:
        ProtocolError: A text is not what it should be.
        IdentityError: The signature is not the coordinator's, belongs to another contract, or has ended.
    """
    signed = decode(SignedSeal, seal_text)
    seal = signed.seal
    coordinator.verify(PURPOSE, _signed(seal), signed.signature)
    _check_time(seal, now)
    if seal.fedcad != __version__:
        raise IdentityError(
            f"the contract is for FedCAD {seal.fedcad}; this is {__version__}. Install the same version"
        )
    terms = Terms.from_text(contract_text)
    if terms.study_hash != seal.study_hash or terms.study.name != seal.study:
        raise IdentityError("the seal belongs to another contract; ask the coordinator for both files again")
    return terms


def _check_time(seal: Seal, now: datetime) -> None:
    issued, expires = _time(seal.issued), _time(seal.expires)
    if now >= expires:
        raise IdentityError(
            f"the contract ended at {seal.expires}; it is {now.astimezone(UTC).isoformat()} here. "
            "Ask the coordinator to amend the study, or set the clock"
        )
    if (issued - now).total_seconds() > CLOCK_TOLERANCE_S:
        raise IdentityError(
            f"the contract was signed at {seal.issued}, but here it is only "
            f"{now.astimezone(UTC).isoformat()}; set the clock"
        )


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ProtocolError(f"{text[:40]!r} is no time") from error
    if time.tzinfo is None:
        raise ProtocolError(f"{text[:40]!r} names no time zone")
    return time


def _signed(seal: Seal) -> bytes:
    return canonical_json(seal.model_dump(mode="json"))
