"""Which ids a request means: the one accessor, for whoever carries it out."""

from __future__ import annotations

from collections.abc import Collection

from tasks.core.errors import ExpungeError
from tasks.requests.keys import KeyStore
from tasks.requests.request import Recognition, Request


def meant(request: Request, keys: KeyStore, known: Collection[str], *, remaining: bool = True) -> list[str]:
    """Return those of the known ids that a request means, in no order that tells anything.

    While a request is open, its names lie beside its key, so that thousands of requests need not each be held
    against all samples. They count only as far as the ledger's digests confirm them; without them every known
    id is compared. Where the key is lost they are all that is left, and are taken as they are.

    Parameters
    ----------
    request, keys
        The request, and where its key lies.
    known
        Ids that there are; a set or mapping, where there are many.
    remaining
        Whether to leave out what other batches have erased.

    Raises
    ------
    ExpungeError
        If the key is lost, and the names with it.
    """
    names = keys.names(request.id)
    try:
        key = keys.load(request.id)
    except ExpungeError:
        if names is None:
            raise
        return [name for name in names if name in known]
    recognition = (Recognition.of_remaining if remaining else Recognition.of_all)(request, key)
    asked = request.digests.get("id", frozenset())
    if names is None or not {recognition.digest(name) for name in names} >= asked:
        return recognition.among(known)
    return [name for name in recognition.among(names) if name in known]
