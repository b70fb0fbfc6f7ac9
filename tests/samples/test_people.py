"""A person's images stay on one side of a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.samples.image_set import ImageSet
from tasks.samples.people import groups_of, on_both_sides
from tasks.samples.roles import assign_roles
from tests.datasets.building import image_set, reading

SEEDS = range(5)


def test_people_who_share_a_picture_are_one_group() -> None:
    subjects = [("a",), ("b",), ("a", "c"), (), ("c",), ("d",), ()]
    groups = groups_of(subjects)
    assert groups[0] == groups[2] == groups[4]
    assert len({*groups.tolist()}) == 5


def with_people(seed: int, *, classes: int = 4, count: int = 120, people: int = 60) -> ImageSet:
    of = replace(image_set([count] * classes, [0] * classes), has_test=False)
    rng = np.random.default_rng(seed)
    return replace(of, subjects=tuple((f"p{rng.integers(people)}",) for _ in of.sample_ids))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_person_is_on_two_sides_and_every_class_has_about_what_was_asked(seed: int) -> None:
    of = with_people(seed)
    assert of.subjects is not None
    parts, roles = assign_roles(of, reading(seed=seed, val_fraction=0.1, test_fraction=0.2))
    sides: dict[str, set[str]] = {}
    for names, role in zip(of.subjects, roles.tolist(), strict=True):
        sides.setdefault(names[0], set()).add(role)
    assert all(len(each) == 1 for each in sides.values())
    for label in range(4):
        own = parts[of.labels == label]
        assert 0.12 <= np.mean(own == "test") <= 0.28
        assert 0.04 <= np.mean(own == "val") <= 0.16
    assert on_both_sides(of.subjects, parts == "test", parts != "test") == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_with_one_sample_a_person_the_counts_are_those_without_people(seed: int) -> None:
    plain = replace(image_set([50, 31, 12], [0, 0, 0]), has_test=False)
    single = replace(plain, subjects=tuple((name,) for name in plain.sample_ids))
    split = reading(seed=seed)
    one, other = (assign_roles(of, split)[1] for of in (plain, single))
    for label in range(3):
        assert sorted(one[plain.labels == label]) == sorted(other[plain.labels == label])


def test_samples_of_nobody_are_split_one_by_one() -> None:
    plain = replace(image_set([50, 31], [0, 0]), has_test=False)
    nobodys = replace(plain, subjects=((),) * 81)
    assert assign_roles(plain, reading())[1].tolist() == assign_roles(nobodys, reading())[1].tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_when_a_person_leaves_hardly_anybody_changes_sides(seed: int) -> None:
    of = with_people(seed)
    assert of.subjects is not None
    split = reading(seed=seed)
    before = dict(zip(of.sample_ids, assign_roles(of, split)[0].tolist(), strict=True))
    changes = []
    for person in (f"p{number}" for number in range(0, 60, 6)):
        smaller = of.subset(np.flatnonzero([names != (person,) for names in of.subjects]))
        after = dict(zip(smaller.sample_ids, assign_roles(smaller, split)[0].tolist(), strict=True))
        changes.append(sum(before[name] != part for name, part in after.items()) / len(after))
    assert np.mean(changes) < 0.08


def test_people_of_the_sources_own_test_part_are_kept_out_of_val_and_counted() -> None:
    of = image_set([40, 40], [4, 4])
    subjects = tuple(("both",) if row % 8 == 0 else (f"p{row}",) for row in range(len(of.labels)))
    of = replace(of, subjects=subjects)
    parts, _ = assign_roles(of, reading())
    shared = np.array([names == ("both",) for names in subjects])
    assert set(parts[shared & ~of.is_test]) == {"train"}
    assert (
        on_both_sides(subjects, parts == "test", parts == "train")
        == np.count_nonzero(shared & of.is_test)
        == 1
    )
