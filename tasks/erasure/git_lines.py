"""Commits of Git, the checkout's and other repositories' on this machine: what they hold is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tasks.core.errors import ExpungeError
from tasks.erasure.account import Account
from tasks.erasure.checklist import Detail, Line, Outcome
from tasks.erasure.git_rewrite import how_to_rewrite
from tasks.erasure.places import AS_EXAMPLE, CODE
from tasks.erasure.pointers import outside
from tasks.erasure.repositories import others
from tasks.erasure.search import Asked
from tasks.erasure.stores_git import GitHistory, Held

GIT, OTHER_GIT = "Git history", "other Git repositories"
"""The stores' names."""


def told_of_git(root: Path, path: str, wanted: Asked, account: Account) -> Iterator[Line]:
    """Search the history of a checkout, and of repositories in it or around its source.

    It is rewritten by nobody but the operator.

    Parameters
    ----------
    root
        The checkout's.
    path
        The source's, as the settings have it.
    wanted
        What identifies the samples.
    account
        Takes what is found by name.
    """
    yield from _history(GIT, [GitHistory(root)], path, wanted, account)
    found, damaged = others(root, *outside(root, path))
    if found:
        yield from _history(OTHER_GIT, [GitHistory(each) for each in found], path, wanted, account)
    for each in damaged:
        why = "looks like a repository of Git, which Git does not take for one"
        account.details.append(Detail(OTHER_GIT, str(each), Outcome.NOT_SEARCHED, why))
    if damaged:
        yield Line(OTHER_GIT, "all of it", Outcome.NOT_SEARCHED, len(damaged), "Git cannot read them")


def _history(
    name: str, stores: Sequence[GitHistory], path: str, wanted: Asked, account: Account
) -> Iterator[Line]:
    """Search one or more repositories."""
    own, shipped, examples, limits, failed = 0, 0, 0, [], False
    for store in stores:
        try:
            held = store.held(wanted)
            limits += store.limits()
        except (ExpungeError, OSError) as error:
            failed = True
            yield account.failed(name, error)
            continue
        shipped += sum(len(each.contents) for each in held if each.public)
        mine = [each for each in held if not each.public]
        if name == GIT:
            told, mine = len(mine), _without_own_text(mine, store)
            examples += told - len(mine)
        own += sum(len(each.contents) for each in mine)
        account.details += _details(name, store, path, mine)
    if shipped:
        what = "of the public data set that is shipped with the project, not the operator's copy"
        yield Line(name, f"files {what}", Outcome.NOT_APPLICABLE, shipped)
    if examples:
        yield Line(name, "the project's own text", Outcome.NOT_APPLICABLE, examples, AS_EXAMPLE)
    if own:
        why = "commits, or what they left, hold samples; expunge verify erasure prints how to rewrite them"
        yield Line(name, GitHistory.how, Outcome.KEPT_REPORTED, own, why)
    for limit in dict.fromkeys(limits):
        yield Line(name, "part of it", Outcome.NOT_SEARCHED, 0, limit)
    if not (own or shipped or examples or failed):
        yield Line(name, GitHistory.how, Outcome.NOTHING_FOUND)


def _details(name: str, store: GitHistory, path: str, held: Sequence[Held]) -> Iterator[Detail]:
    if not held:
        return
    source = store.from_top(path) if name == GIT else None
    if name != GIT:
        held = [replace(each, submodule=str(store.root / each.submodule)) for each in held]
    advice = how_to_rewrite(held, source)
    for each in held:
        where = f"{each.submodule}: " if name != GIT else ""
        yield Detail(name, f"{where}{each.text}", Outcome.KEPT_REPORTED, "; ".join([each.why, *advice]))


def _without_own_text(held: Sequence[Held], store: GitHistory) -> list[Held]:
    """Leave out files of the project's code or docs in which no more than a name was met."""
    if not any(each.by_name for each in held):
        return list(held)
    text = [PurePosixPath(store.from_top(folder)) for folder in CODE]
    return [
        each
        for each in held
        if not (each.by_name and any(PurePosixPath(each.place).is_relative_to(place) for place in text))
    ]
