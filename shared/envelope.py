"""Messages signed end to end by their maker, so that no proxy and no relay can change anything.

TLS ends at the hospital's proxy where that inspects traffic, and at the coordinator's listener; Flower's own
signature covers a timestamp only. Here the maker signs all texts of a message, and the texts name the hashes
of its arrays: a plan its broadcast's, an answer those of its vectors and statistics (:class:`Hashes`).
"""

from collections.abc import Mapping

from fedcad.shared.canonical import canonical_json, hash_of_vectors
from fedcad.shared.config.frozen import Frozen
from fedcad.shared.errors import IdentityError
from fedcad.shared.messages import Hash, Update
from fedcad.shared.signing import PublicKey, SigningKey

SIGNATURE = "signature"
"""Name of the text that holds the signature of all others."""
PLAN = "plan"
"""Purpose of a plan's signature."""
ANSWER = "answer"
"""Purpose of an answer's signature."""


class Hashes(Frozen):
    """Hashes of the arrays of an update."""

    vectors: Hash
    """Hash of its vectors."""
    statistics: Hash
    """Hash of its statistics."""

    @classmethod
    def of(cls, update: Update) -> "Hashes":
        """Return the hashes of an update's arrays."""
        statistics = hash_of_vectors(update.statistics)
        return cls(vectors=hash_of_vectors(update.vectors), statistics=statistics)


def ready_purpose(question: str) -> str:
    """Return the purpose of the answer to one question whether a site is ready.

    Args:
        question: A number that the coordinator drew for this question alone: an old answer fits no new one.
    """
    return f"ready {question}"


def sign_texts(texts: Mapping[str, str], purpose: str, key: SigningKey) -> dict[str, str]:
    """Return the texts of a message with the signature of its maker.

    Args:
        texts: Named texts, none named ``signature``.
        purpose: What the message is for; a signature made for one purpose is none for another.
        key: The maker's key.
    """
    return {**texts, SIGNATURE: key.sign(purpose, canonical_json(dict(texts)))}


def verify_texts(texts: Mapping[str, str], purpose: str, key: PublicKey) -> None:
    """Check that texts are what the owner of a key made for this purpose.

    Raises:
        IdentityError: There is no signature, or it is of another key, purpose or text.
    """
    signature = texts.get(SIGNATURE)
    if signature is None:
        raise IdentityError("the message is not signed; a proxy or relay may have changed it")
    signed = {name: text for name, text in texts.items() if name != SIGNATURE}
    try:
        content = canonical_json(signed)
    except UnicodeEncodeError as error:
        raise IdentityError("the message holds text that nobody can have signed: it is no Unicode") from error
    key.verify(purpose, content, signature)
