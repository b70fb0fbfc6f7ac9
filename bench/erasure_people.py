"""What people ask for and decide in the campaign's stories."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bench.erasure_facts import Violation
from bench.erasure_oracle import Oracle
from bench.erasure_scene import EXPECTED, Scene

GROUNDS = ("consent-withdrawn", "objection", "no-longer-necessary", "data-quality")


class People(Scene):
    """Submits, holds, approves, refuses: at the desk or through the inbox."""

    # requests

    def _ids(self) -> list[str]:
        return [sample.id for sample in self.facts.samples.values() if sample.part == "train"]

    def submit(self) -> str:
        """Somebody asks: for a few images, for some that others ask for too, or for the same again."""
        ids = self._ids()
        earlier = list(self.facts.asked.values())
        way = self.rng.random()
        named: dict[str, list[Any]] = {}
        if way < 0.06 and not self.class_asked:
            self.class_asked = True
            label = self.rng.randrange(3)
            wanted = {each for each in ids if self.facts.samples[each].label == label}
            named = {"class": [str(label)]}
        elif way < 0.2 and earlier:
            wanted = set(self.rng.choice(earlier))
        elif way < 0.4 and earlier:
            mine = sorted(self.rng.choice(earlier))
            wanted = set(self.rng.sample(mine, self.rng.randint(1, min(2, len(mine))))) | {
                self.rng.choice(ids)
            }
        elif way < 0.5 and (twins := self._twins()):
            wanted = {self.rng.choice(twins)}
        else:
            wanted = set(self.rng.sample(ids, self.rng.choice([1, 1, 2, 3])))
        if len(wanted | {each for own in earlier for each in own}) > 0.55 * len(ids):
            return ""
        named = named or self._names(sorted(wanted))
        requester = self._requester()
        self.facts.asked[requester] = frozenset(wanted)
        done = self._hand_in(requester, named)
        return f"{requester} asks for {len(wanted)} by {', '.join(named)}{done}"

    def _twins(self) -> list[str]:
        pictures: dict[bytes, list[str]] = {}
        for sample in self.facts.samples.values():
            pictures.setdefault(sample.pixels, []).append(sample.id)
        trained = set(self._ids())
        return [each for found in pictures.values() if len(found) > 1 for each in found if each in trained]

    def _names(self, ids: list[str]) -> dict[str, list[Any]]:
        named: dict[str, list[Any]] = {}
        rows = Counter(self.facts.samples[each].file for each in self._ids())
        for each in ids:
            sample = self.facts.samples[each]
            kind = self.rng.choice(["id", "id", "path"] if sample.row is None else ["id", "path", "index"])
            below = sample.file.removeprefix(f"{self.facts.source}/")
            path = below if sample.row is None else f"{below}#{sample.row}"
            before = sum(count for file, count in rows.items() if file < sample.file)
            index = before + (sample.row or 0)  # through all files of the training part
            named.setdefault(kind, []).append({"id": each, "path": path, "index": index}[kind])
        return named

    def _requester(self) -> str:
        self.submitted += 1
        return f"crm:{self.submitted}"

    def _hand_in(self, requester: str, named: Mapping[str, list[Any]]) -> str:
        own = {
            "requester": requester,
            "received_at": (self.time - timedelta(minutes=self.rng.choice([1, 600, 20000]))).isoformat(),
            "ground": self.rng.choice(GROUNDS),
        }
        if self.rng.random() < 0.5:
            suffix, text = ".json", json.dumps({**own, "samples": named})
        else:
            rows = [
                ",".join([*own.values(), kind, str(each)]) for kind, names in named.items() for each in names
            ]
            suffix, text = ".csv", "\n".join(["requester,received_at,ground,kind,value", *rows, ""])
        return self._send(text.encode(), f"{requester.replace(':', '-')}{suffix}")

    def _send(self, content: bytes, name: str) -> str:
        if self.rng.random() < 0.4:
            place = self.root / "data/requests/inbox" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            os.utime(place, (1, 1))  # long ago: it is not being written any more
            return ", through the inbox"
        fault = self.fault() if self.rng.random() < 0.15 and name.startswith("crm") else None
        outcome = self.child(lambda: self._submit(content, name), fault)
        if fault and outcome.kind:  # whoever was told nothing asks again
            outcome = self.child(lambda: self._submit(content, name))
        if outcome.kind:
            self.look(
                [Violation(3, f"a submission ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")]
            )
        return f", at the desk{f', {fault}' if fault else ''}"

    def _submit(self, content: bytes, name: str) -> str:
        from tasks.requests.catalogue import Catalogue

        try:
            catalogue: Any = Catalogue.load(patience=0)
        except Exception as error:
            if type(error).__name__ not in EXPECTED:
                raise
            catalogue = None
        return str(self.desk().submit(content, name, catalogue, channel="cli").request.id)

    def submit_badly(self) -> str:
        """Somebody sends what cannot be a request."""
        requester = self._requester()
        self.facts.bad.add(requester)
        test = next(each.id for each in self.facts.samples.values() if each.part == "test")
        good = {"requester": requester, "received_at": self.time.isoformat(), "ground": "objection"}
        value, name = self.rng.choice(
            [
                ({**good, "samples": {"id": ["train/0/nobody.png"]}}, "a.json"),
                ({**good, "samples": {"id": [test]}}, "b.json"),
                ({**good, "received_at": "9999-12-31T23:59:59-12:00", "samples": {"id": [test]}}, "c.json"),
                ({**good, "samples": {"id": [self._ids()[0]] * 2}}, "d.json"),
                ({**good, "samples": {"index": [-1]}}, "e.json"),
                ({**good, "samples": {}}, "f" * 225 + ".json"),
                ({**good, "samples": {"class": ["none"]}}, "g.JSON"),
                ([], "erased.key.json"),
            ]
        )
        text = json.dumps(value).encode()
        done = self._send(text[: self.rng.choice([len(text), 20])], name)
        return f"{requester} sends {name[:20]}{done}"

    # decisions

    def _decide(self, kind: str, request: str) -> str:
        def decide() -> None:
            from tasks.requests import events

            self.desk().decide(getattr(events, kind)(by="someone", reason="the campaign"), request)

        outcome = self.child(decide)
        if outcome.kind and outcome.kind not in EXPECTED:
            self.look([Violation(3, f"{kind} ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        return f"{kind} {request}{f': {outcome.error[:90]}' if outcome.kind else ''}"

    def _some(self, kind: str) -> str:
        found = self._open()
        return self._decide(kind, self.rng.choice(found)) if found else ""

    def approve(self) -> str:
        """Somebody approves all that waits."""
        return "; ".join(self._decide("Approved", each) for each in self._open())

    def hold(self) -> str:
        """Somebody holds a request."""
        return self._some("Held")

    def stop_one(self) -> str:
        """Somebody refuses a request, or its requester withdraws it."""
        return self._some(self.rng.choice(["Refused", "Withdrawn"]))

    def extend(self) -> str:
        """Somebody extends a due date."""
        return self._some("Extended")

    def retry(self) -> str:
        """Somebody looks at what failed."""
        oracle = Oracle(self.facts)
        failed = [name for name in self._open() if oracle.failed(name)]
        return "; ".join(self._decide("Retried", each) for each in failed)

    def ask_for_what_is_held(self) -> str:
        """Somebody asks for an image of another's request, which is on hold by then."""
        oracle = Oracle(self.facts)
        found = [name for name in self._open() if oracle.ids_of[name]]
        if not found:
            return ""
        request = self.rng.choice(found)
        told = "" if oracle.held(request) else self._decide("Held", request) + "; "
        wanted = {min(oracle.ids_of[request]), self.rng.choice(self._ids())}
        requester = self._requester()
        self.facts.asked[requester] = frozenset(wanted)
        return (
            f"{told}{requester} asks for what it holds{self._hand_in(requester, self._names(sorted(wanted)))}"
        )

    def hold_samples(self) -> str:
        """Somebody holds images, whoever asks for them, or all that one requester asks for, now or later."""
        if self.rng.random() < 0.5:
            return self._hold_requester(f"crm:{self.rng.randint(1, self.submitted + 1)}")
        ids = self.rng.sample(self._ids(), 2)
        outcome = self.child(lambda: self.desk().place_hold(by="legal", reason="a case", ids=ids))
        if outcome.kind:
            self.look([Violation(3, f"a hold ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        else:
            self.facts.holds[str(outcome.value)] = frozenset(ids)
        return f"{outcome.value} holds {len(ids)} images"

    def _hold_requester(self, requester: str) -> str:
        outcome = self.child(lambda: self.desk().place_hold(by="legal", reason="a case", requester=requester))
        if outcome.kind:
            self.look([Violation(3, f"a hold ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        else:
            self.facts.holds[str(outcome.value)] = frozenset()  # the ledger tells which requests it holds
        return f"{outcome.value} holds {requester}"

    def release(self) -> str:
        """Somebody ends all holds, or one."""
        oracle = Oracle(self.facts)
        told = [self._lift(each) for each in list(self.facts.holds)]
        told += [self._decide("Released", each) for each in self._open() if oracle.held(each)]
        return "; ".join(told)

    def _lift(self, hold: str) -> str:
        outcome = self.child(lambda: self.desk().lift_hold(hold, by="legal", reason="over"))
        if outcome.kind:
            self.look([Violation(3, f"lifting ended with {outcome.kind}: {outcome.error}\n{outcome.trace}")])
        self.facts.holds.pop(hold)
        return f"{hold} lifted"
