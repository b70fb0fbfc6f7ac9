"""The oracle: says whether the seven guarantees of an erasure hold, from files alone.

It knows nothing of the code that it judges: it imports none of it, and reads images, Parquet, CSV, weights,
DVC's objects and the rows of the ledger with decoders of its own. What was asked for, and by whom, it is told
by the story; what became of it, the rows of the ledger and the files tell.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.erasure_decoders import (
    dvc_object,
    git,
    git_objects,
    held,
    machine_commits,
    machine_messages,
    parquet_rows,
    read_split,
    tensor_digest,
)
from bench.erasure_facts import Facts, Row, Sample, Trained, Violation, files_below, read_ledger, sha256

ENDED = {"closed", "rejected", "refused", "withdrawn", "duplicate"}
ONCE = {
    "received",
    "validated",
    "promoted",
    "purging",
    "purged",
    "closed",
    "refused",
    "withdrawn",
    "rejected",
}
"""What happens to a request one time at most."""

ASIDE = {"held", "released", "covered", "extended"}
"""What happens to a request without leading it anywhere."""

FEW = 20
"""Figures of fewer samples are figures of persons."""


class Oracle:
    """Looks at a project once; each guarantee is a method that tells what it saw wrong."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.root = facts.root
        self.rows = read_ledger(self.root / "data/requests/ledger.db")

    # what the ledger says

    @cached_property
    def of_request(self) -> dict[str, list[Row]]:
        """Rows by request."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.subject is not None:
                found[row.subject].append(row)
        return {name: rows for name, rows in found.items() if rows[0].kind == "received"}

    @cached_property
    def ids_of(self) -> dict[str, frozenset[str]]:
        """Ids that each request in the ledger names, as the story knows them."""
        found = {}
        for name, rows in self.of_request.items():
            requester = rows[0].told.get("requester")
            found[name] = self.facts.asked.get(requester, frozenset())
        return found

    def meant(self, request: str) -> frozenset[str]:
        """Ids that a request names, without those that it was told earlier ones take care of."""
        named = self.ids_of.get(request, frozenset())
        told = [
            each
            for row in self.of_request.get(request, ())
            for each in row.told.get("already_erased_by") or ()
        ]
        return named.difference(*(self.ids_of.get(each, frozenset()) for each in told))

    def kinds(self, request: str) -> list[str]:
        """Kinds of events of a request, in order."""
        return [row.kind for row in self.of_request[request]]

    def with_kind(self, *kinds: str) -> set[str]:
        """Requests that any of these events has happened to."""
        return {name for name in self.of_request if set(kinds) & set(self.kinds(name))}

    def ids_with(self, *kinds: str) -> set[str]:
        """Ids that those requests name."""
        return {each for name in self.with_kind(*kinds) for each in self.meant(name)}

    def ended(self, request: str) -> bool:
        """Whether nothing more is to happen to a request."""
        return bool(ENDED & set(self.kinds(request)))

    def held(self, request: str) -> bool:
        """Whether a request is on hold."""
        kinds = [kind for kind in self.kinds(request) if kind in {"held", "released"}]
        return bool(kinds) and kinds[-1] == "held"

    def failed(self, request: str) -> bool:
        """Whether a request has failed and waits for a person."""
        kinds = [kind for kind in self.kinds(request) if kind not in ASIDE]
        return kinds[-1:] == ["failed"]

    # who is gone, and what must not be found any more

    @cached_property
    def touched(self) -> set[str]:
        """Ids that a purge may have begun to take."""
        return self.ids_with("purging", "purged")

    @cached_property
    def gone(self) -> set[str]:
        """Ids that were purged, as the ledger says."""
        return self.ids_with("purged")

    @cached_property
    def kept(self) -> list[Sample]:
        """Samples that nobody has begun to take."""
        return [sample for sample in self.facts.samples.values() if sample.id not in self.touched]

    @cached_property
    def _kept_pixels(self) -> set[bytes]:
        return {sample.pixels for sample in self.facts.samples.values() if sample.id not in self.touched}

    def unshared(self, ids: Iterable[str]) -> list[Sample]:
        """Samples of which none that is kept, or that somebody put back, has the same picture."""
        shown = self._kept_pixels | {self.facts.samples[each].pixels for each in self.facts.returned}
        found = (self.facts.samples[each] for each in ids)
        return [
            sample
            for sample in found
            if sample.pixels not in (self._kept_pixels if sample.id in self.facts.returned else shown)
        ]

    # the checks

    def always(self) -> list[Violation]:
        """What must hold at any moment, also half-way through a purge."""
        return [
            *self.nothing_that_stays_is_harmed(),
            *self.nothing_comes_back(),
            *self.holds_are_kept(),
            *self.the_record_names_nobody(),
            *self.the_chain_is_whole(),
            *self.each_step_is_taken_once(),
        ]

    def at_rest(self) -> list[Violation]:
        """What must hold, beside, once ``process`` finds nothing more to do."""
        return [
            *self.always(),
            *self.nobody_stops_another(),
            *self.nothing_is_left(),
            *self.the_base_is_right(),
        ]

    def at_the_end(self) -> list[Violation]:
        """What must hold, beside, once every hold is released and every outage over."""
        return [
            *self.at_rest(),
            *self.every_request_has_ended(),
            *self.the_images_can_be_had(),
            *self.history_is_told(),
            *self.the_ledger_is_small(),
        ]

    def nothing_that_stays_is_harmed(self) -> Iterator[Violation]:
        """1: what is not the request's, and what others need, is there byte for byte."""
        for path, digest in self.facts.protected.items():
            place = path.relative_to(self.facts.home)
            if not path.exists() and not path.is_symlink():
                if (
                    self.facts.remote
                    and path.is_relative_to(self.facts.remote)
                    and not self.facts.remote.is_dir()
                ):
                    continue  # an outage
                yield Violation(1, f"{place} is not the request's, and is gone")
            elif sha256(path) != digest:
                yield Violation(1, f"{place} is not the request's, and was changed")
        yield from self._kept_originals()

    def _kept_originals(self) -> Iterator[Violation]:
        tables: dict[str, list[Any]] = {}
        for sample in self.kept:
            path = self.root / sample.file
            try:
                if sample.row is None:
                    content: bytes | None = path.read_bytes()
                else:
                    rows = tables.setdefault(sample.file, parquet_rows(path))
                    content = rows[sample.row]
            except OSError:
                content = None
            if content != sample.content:
                yield Violation(1, f"the original of {sample.id}, which stays, is gone or another")

    def nothing_comes_back(self) -> Iterator[Violation]:
        """2: what was purged is neither in the split nor in what production was trained on."""
        ids, pixels = read_split(self.root / "data/split")
        if back := sorted(self.gone & set(ids)):
            yield Violation(2, f"{back[0]} was purged and is in data/split, and {len(back) - 1} others")
        for sample in self.unshared(self.gone):
            if sample.pixels in pixels:
                yield Violation(2, f"the picture of {sample.id}, which was purged, is in data/split")
        yield from self._trained_on()

    def _trained_on(self) -> Iterator[Violation]:
        told = [row for row in self.rows if row.kind == "batch-promoted"]
        known: dict[str, list[Trained]] = defaultdict(list)
        for each in self.facts.trained:
            known[each.weights].append(each)
        for row in told:
            weights = str(row.told["weights"])
            before = {
                each
                for name, rows in self.of_request.items()
                if any(own.kind == "promoted" and own.seq <= row.seq + len(self.of_request) for own in rows)
                and any(own.kind == "promoted" and own.told.get("batch") == row.subject for own in rows)
                for each in self.ids_of[name]
            } | {
                each
                for name, rows in self.of_request.items()
                if any(own.kind == "promoted" and own.seq < row.seq for own in rows)
                for each in self.ids_of[name]
            }
            for trained in known.get(weights, [])[-1:]:
                if seen := sorted(before & trained.ids):
                    yield Violation(
                        2, f"the model of {row.subject} was trained on {seen[0]}, which it forgets"
                    )
                stayed = {each.pixels for each in self.facts.samples.values() if each.id not in before}
                gone = map(self.facts.samples.__getitem__, sorted(before))
                taken = [each for each in gone if each.pixels in trained.pixels - stayed]
                if taken:
                    yield Violation(
                        2, f"the model of {row.subject} was trained on the picture of {taken[0].id}"
                    )

    def holds_are_kept(self) -> Iterator[Violation]:
        """1: nothing on legal hold was purged while the hold stood."""
        purged: set[str] = set()
        for row in self.rows:
            if row.kind not in {"purging", "purged"} or row.subject is None:
                continue
            for holder, ids in self._holding(row.seq).items():
                taken = (self.meant(row.subject) & ids) - purged
                if taken and not (holder == row.subject and row.kind == "purged"):
                    yield Violation(1, f"{row.subject} was {row.kind} although {holder} holds {min(taken)}")
            if row.kind == "purged":
                purged |= self.meant(row.subject)

    def _holding(self, seq: int) -> dict[str, frozenset[str]]:
        """Ids that holds protect just before an event."""
        found: dict[str, frozenset[str]] = {}
        for row in self.rows[: seq - 1]:
            name = row.subject or ""
            if row.kind == "held":
                found[name] = self.ids_of.get(name, frozenset())
            elif row.kind == "hold-placed" and name in self.facts.holds:
                found[name] = self.facts.holds[name]
            elif row.kind in {"released", "hold-lifted", *ENDED}:
                found.pop(name, None)
        return found

    def nobody_stops_another(self) -> Iterator[Violation]:
        """3: what shares nothing with a request that waits has been carried out."""
        waiting = {name for name in self.of_request if not self.ended(name)}
        reasons = {name for name in waiting if self.held(name) or self.failed(name)}
        asked = {each for ids in self.ids_of.values() for each in ids}
        needed = {target for link, target in self.facts.links.items() if link not in asked}
        reasons |= {name for name in waiting if self.ids_of[name] & needed}  # a link that stays needs it
        blocked = {each for name in reasons for each in self.ids_of[name]}
        blocked |= {each for ids in self.facts.holds.values() for each in ids}
        while more := {name for name in waiting - reasons if self.ids_of[name] & blocked}:
            reasons |= more
            blocked |= {each for name in more for each in self.ids_of[name]}
        for name in sorted(waiting - reasons):
            yield Violation(3, f"{name} shares nothing with what waits, and stays {self.kinds(name)[-1]}")
        for name, rows in self.of_request.items():
            requester = rows[0].told.get("requester")
            if rows[-1].kind == "rejected" and requester in self.facts.asked:
                yield Violation(3, f"{name} is valid and was rejected: {rows[-1].body[:150]}")
            if requester in self.facts.bad and rows[-1].kind != "rejected":
                yield Violation(3, f"{name} must be rejected and is {rows[-1].kind}")

    def the_record_names_nobody(self) -> Iterator[Violation]:
        """4: no id, path or file name in ledger, certificates and the machine's commits; no one's score."""
        places = {
            "the ledger": b"".join(row.body.encode() + (row.subject or "").encode() for row in self.rows)
        }
        for path in files_below(self.root / "data/requests/certificates"):
            places[f"certificate {path.name}"] = path.read_bytes()
        places["the machine's commits"] = "".join(machine_commits(self.root)).encode()
        for path in [self.root / "mlflow.db", *files_below(self.root / "mlruns")]:
            if path.is_file():
                places[f"MLflow's {path.relative_to(self.root)}"] = path.read_bytes()
        for place, content in places.items():
            for sample in self.facts.samples.values():
                if sample.token.encode() in content:
                    yield Violation(4, f"{place} names {sample.id}")
                    break
            if found := re.search(rb"\.parquet#\d+", content):
                yield Violation(4, f"{place} names a row: {found[0].decode()}")
        for row in self.rows:
            yield from _scores(row)

    def the_chain_is_whole(self) -> Iterator[Violation]:
        """5: every event is sealed to the one before, and every anchor lies on the chain."""
        previous, hashes = "0" * 64, ["0" * 64]
        for number, row in enumerate(self.rows, start=1):
            sealed = [row.seq, row.at, row.kind, row.subject, json.loads(row.body), row.previous]
            text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
            if (
                row.seq != number
                or row.previous != previous
                or row.hash != hashlib.sha256(text.encode()).hexdigest()
            ):
                yield Violation(5, f"event {row.seq} breaks the chain")
            previous = row.hash
            hashes.append(previous)
        for where, anchor in self._anchors():
            seq, _, digest = anchor.partition(":")
            if int(seq) >= len(hashes) or hashes[int(seq)] != digest:
                yield Violation(5, f"the anchor in {where} is not on the chain: event {seq}")

    def the_end_is_anchored(self) -> Iterator[Violation]:
        """5: after a run the last event is written down outside of the ledger."""
        if self.rows:
            head = f"{self.rows[-1].seq}:{self.rows[-1].hash}"
            if head not in {anchor for _, anchor in self._anchors()}:
                yield Violation(5, f"event {self.rows[-1].seq}, the last, is anchored nowhere")

    def _anchors(self) -> Iterator[tuple[str, str]]:
        for message in machine_messages(self.root):
            for found in re.findall(r"^Expunge-Ledger: (\d+:[0-9a-f]{64})$", message, re.MULTILINE):
                yield "a commit", found
        for path in (self.facts.home / "keys").glob("ledger-*.mark"):
            yield path.name, path.read_text().strip()

    def each_step_is_taken_once(self) -> Iterator[Violation]:
        """6: nothing happens twice, or after the end."""
        for name in self.of_request:
            kinds = self.kinds(name)
            if twice := [kind for kind, count in Counter(kinds).items() if count > 1 and kind in ONCE]:
                yield Violation(6, f"{name} was {twice[0]} twice")
            ends = [place for place, kind in enumerate(kinds) if kind in ENDED]
            if ends and set(kinds[ends[0] + 1 :]) - {"unkeyed"}:
                yield Violation(6, f"{name} has ended, and then was {kinds[ends[0] + 1]}")

    def the_base_is_right(self) -> Iterator[Violation]:
        """6: ``data/base`` holds the weights that the ledger says are in production."""
        told = [row for row in self.rows if row.kind in {"adopted", "batch-promoted", "rolled-back"}]
        if not told:
            return
        weights = told[-1].told["weights"]
        found = tensor_digest((self.root / "data/base/weights.safetensors").read_bytes())
        if found != weights:
            yield Violation(6, f"data/base holds {str(found)[:12]}, and the ledger says {weights[:12]}")

    def every_request_has_ended(self) -> Iterator[Violation]:
        """6: nothing is stuck."""
        for name in self.of_request:
            if not self.ended(name):
                yield Violation(6, f"{name} is stuck: {', '.join(self.kinds(name)[-4:])}")

    def nothing_is_left(self) -> Iterator[Violation]:
        """5: what a purge says is gone is gone.

        Outages are over by now, and what is somebody else's is not counted, so there is no excuse: a record
        that owns up to it is true, but the copies are there.
        """
        told = [row.told for row in self.rows if row.kind == "batch-purged"]
        for store, found in self.remains(self.ids_with("closed") - self.facts.returned).items():
            if found:
                owned = "the record says so" if any(_owns_up(each, store) for each in told) else "untold"
                yield Violation(5, f"{store} still holds erased samples ({owned}): {found[0]}")

    def remains(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Where erased samples still are, by store."""
        samples = self.unshared(ids)
        kept = [sample.token for sample in self.kept]  # an id made of bytes begins those of its copies
        names = [
            (sample, sample.token.encode())
            for sample in map(self.facts.samples.__getitem__, ids)
            if not any(sample.token in token for token in kept)
        ]
        elsewhere = self.facts.elsewhere
        content = {sample.content: sample for sample in samples if sample.id not in elsewhere}
        pixels = [sample for sample in samples if sample.id not in elsewhere and len(set(sample.pixels)) > 8]
        void = self._void_weights(set(ids))
        places = {
            "DVC cache": self.facts.cache,
            "DVC remote": self.facts.remote,
            "data": self.root / "data",
            "state": self.root / ".expunge",
            "MLflow": self.root / "mlruns",
        }
        found: dict[str, list[str]] = {}
        for store, place in places.items():
            found[store] = []
            for path in files_below(place) if place and place.is_dir() else ():
                if path in self.facts.protected or path.is_symlink() or path.name.startswith("ledger.db"):
                    continue
                if path.parent.name == "rejected" and path.name[:17] in self._rejected_since:
                    continue  # what its sender wrote: a person is told to empty the folder
                data = path.read_bytes()
                what = held(data, names, content, pixels)
                if what is None and path.is_relative_to(self.root / self.facts.source):
                    continue
                where = path.relative_to(self.facts.home)
                if what is not None:
                    found[store].append(f"{where} ({what})")
                elif void and data[8:10] == b'{"' and (known := tensor_digest(data)) in void:
                    found[store].append(f"{where} (weights {known[:12]} that knew them)")
        return found

    @cached_property
    def _rejected_since(self) -> set[str]:
        """Requests that were rejected after the last purge."""
        purges = [row.seq for row in self.rows if row.kind == "batch-purged"]
        return {name for name, rows in self.of_request.items() if rows[0].seq > max(purges, default=0)}

    def _void_weights(self, ids: set[str]) -> set[str]:
        """Digests of models that were trained on what has left."""
        told = [row for row in self.rows if row.kind in {"adopted", "batch-promoted", "rolled-back"}]
        current = {row.told["weights"] for row in told[-1:]}
        return {each.weights for each in self.facts.trained if each.ids & ids} - current

    def the_images_can_be_had(self) -> Iterator[Violation]:
        """1: a clone of the last commit gets every image that stays, and none that left."""
        if self.facts.tracked_by == "nobody":
            return
        pointer = next(
            (
                f"{name}.dvc"
                for name in ("data/images", "data/pictures")
                if (self.root / f"{name}.dvc").exists()
            ),
            None,
        )
        if pointer is None:  # nobody may have had a reason yet to move the images from Git to DVC
            in_git = self.facts.tracked_by == "git" and git(self.root, "ls-files", "--", "data/images")
            if not in_git:
                yield Violation(1, "the source's pointer file is gone")
            return
        text = git(self.root, "show", f"HEAD:{pointer}")
        found = re.search(r"md5: ([0-9a-f]{32}\.dir)", text)
        stores = [self.facts.cache, *([self.facts.remote] if self.facts.remote else [])]
        for store in stores:
            listing = dvc_object(store, found[1]) if found else None
            if listing is None:
                yield Violation(1, f"{pointer} in the last commit points to a list that {store.name} lacks")
                continue
            files = {each["relpath"]: each["md5"] for each in json.loads(listing)}
            yield from self._can_be_had(files, store, pointer)

    def _can_be_had(self, files: Mapping[str, str], store: Path, pointer: str) -> Iterator[Violation]:
        base = pointer.removesuffix(".dvc") + "/"
        for sample in self.kept:
            md5 = files.get(sample.file.removeprefix(base))
            content = dvc_object(store, md5) if md5 else None
            if content is None or (sample.row is None and content != sample.content):
                yield Violation(1, f"{sample.id} stays, and a clone cannot get it from {store.name}")
                return
        for sample in map(self.facts.samples.__getitem__, self.gone - self.facts.returned):
            if sample.row is None and sample.file.removeprefix(base) in files:
                yield Violation(2, f"{sample.id} was purged, and {pointer} in the last commit lists it")
                return

    def history_is_told(self) -> Iterator[Violation]:
        """5: the last purge says that Git holds its images if and only if Git does."""
        told = [
            row
            for row in self.rows
            if row.kind == "batch-purged" and any(_of_git(line) for line in row.told.get("checklist", ()))
        ]
        if not told:
            return
        ids = {
            each
            for name, rows in self.of_request.items()
            if any(row.kind == "purged" and row.told.get("batch") == told[-1].subject for row in rows)
            for each in self.meant(name)
        }
        lines = [line for line in told[-1].told["checklist"] if _of_git(line)]
        clean = all(_FINE.match(str(line.get("outcome"))) for line in lines)
        samples = [each for each in self.unshared(ids) if each.id not in self.facts.elsewhere]
        content = {sample.content: sample for sample in samples}
        names = [(self.facts.samples[each], self.facts.samples[each].token.encode()) for each in ids]
        objects = list(git_objects(self.root))
        before = [each for each in samples if each.id not in self.facts.returned]  # to Git, perhaps
        known = {sample.content: sample for sample in before}
        holds = [found for each in objects if (found := held(each, (), known, before))]
        if holds and clean:
            yield Violation(5, f"Git {holds[0]}, and the checklist says that it holds nothing")
        if not clean and not any(held(each, names, content, samples) for each in objects):
            yield Violation(5, "Git holds nothing of the last purge, and the checklist does not say so")

    def the_ledger_is_small(self) -> Iterator[Violation]:
        """7: a request costs the ledger what it says itself, not what its batch says."""
        for name, rows in self.of_request.items():
            size = sum(len(row.body) for row in rows)
            allowed = 250 * len(rows) + 1200 * max(1, len(self.ids_of[name]))
            if size > allowed and self.ids_of[name]:
                yield Violation(7, f"{name} takes {size} bytes of the ledger; {allowed} would do")


_FINE = re.compile(r"^(deleted|nothing|not.applicable|made.again)", re.IGNORECASE)


def _of_git(line: Mapping[str, Any]) -> bool:
    """Whether a line tells of Git; a store that was down may have been searched again without it."""
    return line.get("store") == "Git history"


def _owns_up(told: Mapping[str, Any], store: str) -> bool:
    """Whether a checklist says that a store may hold something."""
    wanted = {"data": ("workspace", "source"), "state": ("state",)}.get(store, (store.lower(),))
    for line in told.get("checklist", ()):
        outcome = str(line.get("outcome") or line.get("result") or "")
        if not _FINE.match(outcome) and any(word in str(line.get("store", "")).lower() for word in wanted):
            return True
    return False


def _scores(row: Row) -> Iterator[Violation]:
    """Figures that are one person's."""
    told = row.told
    if "placements" in row.body:
        yield Violation(4, f"event {row.seq} keeps placements")
    for key in ("pooled",):
        pooled = told.get(key) or {}
        if pooled and pooled.get("count", 0) < FEW:
            yield Violation(4, f"event {row.seq} keeps sums over {pooled.get('count')} samples")
    figures = told.get("figures") or {}
    if figures.get("audit/count", FEW) < FEW and any(
        not name.startswith(("audit/val_acc_loss", "audit/count")) for name in figures
    ):
        yield Violation(4, f"event {row.seq} keeps figures of {figures.get('audit/count')} samples")
