from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.processing.certifying import certify, key_periods, rotate_key
from tasks.requests.verification import open_envelope, verify
from tests.processing.conftest import Checkout, names


def test_a_certificate_is_of_its_request_and_can_be_made_again(checkout: Checkout) -> None:
    one, two = names(0, 7)[0], names(0, 8)[0]
    first, second = checkout.submit(one).id, checkout.submit(two).id
    assert checkout.process() == []
    ledger = checkout.desk.ledger
    for request, other in ((first, second), (second, first)):
        path = Path(f"data/requests/certificates/{request}.json")
        content = path.read_bytes()
        found = verify(content, pinned=key_periods(ledger), anchors=ledger.events())
        assert found.ok, found
        page = path.with_suffix(".html").read_bytes()
        statement = open_envelope(content)
        assert other not in statement.model_dump_json()
        assert all(event.body is not None for event in statement.predicate.ledger.events)
        path.unlink()
        certify(checkout.desk, checkout.desk.show(request), path.parent)
        assert (path.read_bytes(), path.with_suffix(".html").read_bytes()) == (content, page)
    assert len(key_periods(ledger)) == 1
    rotate_key(checkout.desk, by="ada", reason="stolen", compromised=True)
    assert not verify(content, pinned=key_periods(ledger)).ok
    certify(checkout.desk, checkout.desk.show(second), path.parent)
    again = path.read_bytes()
    assert verify(again, pinned=key_periods(ledger), anchors=ledger.events()).ok
    assert open_envelope(again) == open_envelope(content)
    (checkout.desk.keys.folder / "signing.pem").unlink()
    with pytest.raises(ExpungeError, match="rotate-key"):
        certify(checkout.desk, checkout.desk.show(second), path.parent)
