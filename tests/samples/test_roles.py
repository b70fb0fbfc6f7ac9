from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.params import Forget, Split, load
from tasks.samples.image_set import ImageSet
from tasks.samples.roles import assign_roles, lowest, rank, share
from tests.datasets.building import image_set, taken

SEEDS = range(6)


def settings(forget: dict[str, Any], seed: int = 0, val_fraction: float = 0.1) -> Split:
    return Split(
        source="digits",
        path="unused",
        seed=seed,
        val_fraction=val_fraction,
        forget=Forget.model_validate(forget),
    )


def random(fraction: float, seed: int = 0, val_fraction: float = 0.1) -> Split:
    return settings({"kind": "random", "fraction": fraction}, seed, val_fraction)


def ids_file(tmp_path: Path, ids: list[str], seed: int = 0) -> Split:
    file = tmp_path / "ids.txt"
    file.write_text("\n".join(ids) + "\n")
    return settings({"kind": "ids", "ids_file": str(file)}, seed)


def by_id(of: ImageSet, names: NDArray[np.str_]) -> dict[str, str]:
    return dict(zip(of.sample_ids, names.tolist(), strict=True))


def ids_with(of: ImageSet, names: NDArray[np.str_], name: str) -> set[str]:
    return {sample_id for sample_id, found in by_id(of, names).items() if found == name}


def without(of: ImageSet, sample_id: str) -> ImageSet:
    return taken(of, np.array([row for row, name in enumerate(of.sample_ids) if name != sample_id]))


def test_a_rank_is_the_start_of_the_digest() -> None:
    expected = int.from_bytes(hashlib.sha256(b"val:7:train/cat/1.png").digest()[:8], "big")
    assert rank("val", 7, ["x", "train/cat/1.png"])[1] == expected


def test_ranks_for_other_purposes_and_seeds_are_unrelated() -> None:
    ids = [f"train/{index}" for index in range(4000)]
    columns = [rank("val", 0, ids), rank("forget", 0, ids), rank("val", 1, ids), rank("forget", 1, ids)]
    correlation = np.corrcoef(np.argsort(np.argsort(columns, axis=1), axis=1))
    assert abs(correlation - np.eye(4)).max() < 4 / math.sqrt(4000)  # four standard errors


def test_lowest_takes_exactly_the_lowest_ranks() -> None:
    ranks = rank("x", 0, [str(index) for index in range(50)])
    candidates = np.arange(10, 40)
    expected = sorted(candidates.tolist(), key=lambda row: int(ranks[row]))[:7]
    assert lowest(ranks, candidates, 7).tolist() == expected
    assert lowest(ranks, candidates, 0).size == 0


def test_a_share_is_rounded_half_up() -> None:
    assert [share(0.5, count) for count in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert [share(0.1, count) for count in (0, 4, 5, 14, 15)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_counts_are_exact_in_every_class(seed: int) -> None:
    counts = [7, 40, 133]
    of = image_set(counts, [5, 6, 7])
    parts, roles = assign_roles(of, random(0.2, seed, val_fraction=0.15))
    for label, (count, val, forget) in enumerate(zip(counts, [1, 6, 20], [1, 7, 23], strict=True)):
        own = roles[of.labels == label]
        assert np.count_nonzero(own == "val") == val
        assert np.count_nonzero(own == "forget") == forget
        assert np.count_nonzero(own == "retain") == count - val - forget
        assert np.count_nonzero(own == "test") == 5 + label
    assert np.array_equal(parts == "train", np.isin(roles, ("retain", "forget")))
    assert np.array_equal(roles == "test", of.is_test)


def test_seeds_choose_different_samples_uniformly() -> None:
    of = image_set([50, 50])
    times = np.zeros(100)
    for seed in range(400):
        times += assign_roles(of, random(0.2, seed))[1][:100] == "forget"
    expected = 400 * 0.2 * 0.9
    spread = math.sqrt(expected * (1 - expected / 400))
    assert times.sum() == 400 * 18
    assert abs(times - expected).max() < 4.5 * spread


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    of = image_set([30, 41])
    mixed = taken(of, np.random.default_rng(seed).permutation(len(of.labels)))
    for split in (random(0.3, seed), settings({"kind": "class", "classes": [1], "fraction": 0.5}, seed)):
        for one, other in zip(assign_roles(of, split), assign_roles(mixed, split), strict=True):
            assert by_id(of, one) == by_id(mixed, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_when_a_forget_sample_leaves_the_others_stay_in_the_forget_set(seed: int) -> None:
    of, split = image_set([100, 100]), random(0.1, seed)
    before = ids_with(of, assign_roles(of, split)[1], "forget")
    for sample_id in sorted(before):
        smaller = without(of, sample_id)
        after = ids_with(smaller, assign_roles(smaller, split)[1], "forget")
        # 99 samples still give 10 for validation and 9 to forget: one successor, all others stay.
        assert before - {sample_id} <= after
        assert len(after) == len(before)


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_leaves_hardly_any_other_role_changes_and_none_in_other_classes(seed: int) -> None:
    of, split = image_set([45, 37]), random(0.25, seed)
    before = by_id(of, assign_roles(of, split)[1])
    for sample_id in of.sample_ids:
        smaller = without(of, sample_id)
        after = by_id(smaller, assign_roles(smaller, split)[1])
        changed = {name for name, role in after.items() if role != before[name]}
        label = sample_id.split("/")[1]
        assert all(name.startswith(f"train/{label}/") for name in changed)
        # At most one sample crosses the border of val, and that shifts the border of forget by one or two.
        assert len(changed) <= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_do_not_depend_on_a_random_or_class_forget_set(seed: int) -> None:
    of = image_set([30, 41, 12])
    parts = [
        assign_roles(of, settings(forget, seed))[0]
        for forget in (
            {"kind": "random", "fraction": 0.1},
            {"kind": "random", "fraction": 0.7},
            {"kind": "class", "classes": [0]},
            {"kind": "class", "classes": [2, 1], "fraction": 0.3},
        )
    ]
    assert all(np.array_equal(parts[0], other) for other in parts[1:])


def test_a_larger_fraction_forgets_the_same_samples_and_more() -> None:
    of = image_set([60, 60])
    smaller, larger = (ids_with(of, assign_roles(of, random(f))[1], "forget") for f in (0.1, 0.3))
    assert smaller < larger


def test_a_class_is_forgotten_whole_except_for_its_validation_samples() -> None:
    of = image_set([30, 20, 10])
    parts, roles = assign_roles(of, settings({"kind": "class", "classes": [2, 0]}))
    for label in (0, 2):
        assert set(roles[(of.labels == label) & (parts == "train")]) == {"forget"}
        assert (
            np.count_nonzero((of.labels == label) & (roles == "val"))
            == of.labels[of.labels == label].size // 10
        )
    assert "forget" not in roles[of.labels == 1]


def test_the_shipped_fraction_is_of_kind_random_and_a_class_is_forgotten_whole() -> None:
    shipped = load(Path(__file__).parents[2] / "params.yaml").split
    roles = assign_roles(image_set([100, 100]), shipped)[1]
    assert np.count_nonzero(roles == "forget") == 18  # a tenth of what is not val
    forget = Forget.model_validate(shipped.forget.model_dump() | {"kind": "class", "classes": (0,)})
    of = image_set([100, 100])
    roles = assign_roles(of, shipped.model_copy(update={"forget": forget}))[1]
    assert np.count_nonzero(roles == "forget") == 90
    assert not np.any(roles[of.labels == 0] == "retain")


def test_a_part_of_a_class_is_said_to_be_one(caplog: pytest.LogCaptureFixture) -> None:
    assign_roles(image_set([100, 100]), settings({"kind": "class", "classes": [0], "fraction": 0.1}))
    assert "takes 9 of the 90 training samples of class 0 (class0); fraction: null takes all" in caplog.text


def test_classes_without_a_test_image_are_named_before_anything_is_trained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = image_set([20, 20, 20], [0, 2, 0])
    assign_roles(of, random(0.1))
    assert "no test images of class 0 (class0), 2 (class2): mia leaves them out" in caplog.text
    caplog.clear()
    assign_roles(image_set([20, 20], [2, 2]), random(0.1))
    assert "no test images" not in caplog.text
    assign_roles(of, settings({"kind": "class", "classes": [0]}))
    assert "no test images of any class that is to be forgotten: mia cannot judge" in caplog.text


def test_a_fraction_of_a_class_is_forgotten() -> None:
    of = image_set([40, 20])
    roles = assign_roles(of, settings({"kind": "class", "classes": [0], "fraction": 0.25}))[1]
    assert np.count_nonzero(roles[of.labels == 0] == "forget") == 9
    assert "forget" not in roles[of.labels == 1]


def test_the_smallest_fraction_forgets_at_least_one_sample() -> None:
    of = image_set([20, 20])
    assert np.count_nonzero(assign_roles(of, random(1e-9))[1] == "forget") == 1
    tiny = settings({"kind": "class", "classes": [0, 1], "fraction": 1e-9})
    assert np.count_nonzero(assign_roles(of, tiny)[1] == "forget") == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_named_samples_are_forgotten_and_never_validate(tmp_path: Path, seed: int) -> None:
    of = image_set([30, 20])
    usual = assign_roles(of, random(0.1, seed))[0]
    val, train = sorted(ids_with(of, usual, "val")), sorted(ids_with(of, usual, "train"))
    named = [val[0], train[3], train[17]]
    parts, roles = assign_roles(of, ids_file(tmp_path, named, seed))
    assert ids_with(of, roles, "forget") == set(named)
    assert ids_with(of, parts, "val") > set(val) - set(named)
    assert len(ids_with(of, parts, "val")) == len(val)


def test_naming_training_samples_leaves_the_parts_as_they_are(tmp_path: Path) -> None:
    of = image_set([30, 20])
    usual = assign_roles(of, random(0.1))[0]
    named = sorted(ids_with(of, usual, "train"))[:7]
    assert np.array_equal(assign_roles(of, ids_file(tmp_path, named))[0], usual)


@pytest.mark.parametrize("val_fraction", [0.001, 0.5, 0.999])
def test_every_class_keeps_a_sample_to_train_on_and_one_to_validate(val_fraction: float) -> None:
    of = image_set([2, 3, 50])
    split = settings({"kind": "class", "classes": [2]}, val_fraction=val_fraction)
    parts = assign_roles(of, split)[0]
    for label in range(3):
        assert {"train", "val"} <= set(parts[of.labels == label])


def test_a_class_of_one_sample_trains_and_does_not_validate() -> None:
    of = image_set([1, 20])
    parts, roles = assign_roles(of, random(0.1))
    assert parts[0] == "train"
    assert roles[0] == "retain"


def refusal(of: ImageSet, split: Split) -> str:
    with pytest.raises(ExpungeError) as caught:
        assign_roles(of, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_sample_to_validate_with_is_refused() -> None:
    assert refusal(image_set([1, 1]), random(0.1)).startswith(
        "params.yaml: split.val_fraction: no sample to spare"
    )


def test_an_unknown_class_is_refused_with_the_range() -> None:
    message = refusal(image_set([20, 20]), settings({"kind": "class", "classes": [1, 2]}))
    assert message == "params.yaml: split.forget.classes: no class 2; classes are 0 (class0) to 1 (class1)"


def test_forgetting_everything_is_refused(tmp_path: Path) -> None:
    of = image_set([20, 20])
    message = refusal(of, settings({"kind": "class", "classes": [0, 1]}))
    assert message == "params.yaml: split.forget takes all 36 training samples; nothing is left to retain"
    named = [name for name in of.sample_ids if name.startswith("train")]
    message = refusal(of, ids_file(tmp_path, named))
    assert message.startswith("params.yaml: split.forget.ids_file: ")
    assert message.endswith("leaves no sample to spare for validation; name fewer")


def test_a_random_fraction_that_takes_a_whole_class_is_refused() -> None:
    message = refusal(image_set([4, 400]), random(0.9))
    assert message == (
        "params.yaml: split.forget.fraction: 0.9 takes all 3 training samples of class 0 (class0); "
        "lower it, or use kind: class if the class is to be forgotten"
    )


def test_naming_a_whole_class_is_refused(tmp_path: Path) -> None:
    of = image_set([20, 5])
    named = [name for name in of.sample_ids if name.startswith("train/1/")]
    message = refusal(of, ids_file(tmp_path, named))
    assert message.endswith(
        "ids.txt names all 5 training samples of class 1 (class1); "
        "if the whole class is to be forgotten use kind: class, or classes: [1] beside it"
    )
    assert message.startswith("params.yaml: split.forget.ids_file: ")


def test_naming_all_but_one_of_a_class_leaves_that_one_to_retain(tmp_path: Path) -> None:
    of = image_set([20, 5])
    roles = assign_roles(of, ids_file(tmp_path, [f"train/1/{index}" for index in range(4)]))[1]
    assert by_id(of, roles)["train/1/4"] == "retain"


def test_bad_ids_name_the_parameter(tmp_path: Path) -> None:
    message = refusal(image_set([5, 5]), ids_file(tmp_path, ["test/0/0", "nobody"]))
    assert message.startswith("params.yaml: split.forget.ids_file: ")
    assert message.endswith(
        "line 1 'test/0/0' is a test sample; only training samples can be forgotten; "
        "line 2 'nobody' is no sample id"
    )


def test_what_is_held_out_is_test_even_where_nothing_else_of_its_class_is_left(tmp_path: Path) -> None:
    of = image_set([4, 20])
    free = settings({"kind": "random"})
    (val, *_) = sorted(
        ids_with(of, assign_roles(of, free)[0], "val") & {f"train/0/{number}" for number in range(4)}
    )
    train = [f"train/0/{number}" for number in range(4) if f"train/0/{number}" != val]
    asked = ids_file(tmp_path, [*train, f"#held-out {val}", "#held-out gone"])
    asked = asked.model_copy(update={"forget": asked.forget.model_copy(update={"classes": (0,)})})
    parts, roles = (by_id(of, names) for names in assign_roles(of, asked))
    assert parts[val] == roles[val] == "test"
    assert {roles[name] for name in train} == {"forget"}
    parts, roles = (by_id(of, names) for names in assign_roles(of, ids_file(tmp_path, [f"#held-out {val}"])))
    assert parts[val] == "test"
    assert "forget" not in roles.values()


def test_where_nothing_is_left_of_the_sources_val_part_one_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = replace(image_set([10, 10]), is_val=np.zeros(24, dtype=np.bool_))
    parts, _ = assign_roles(of, random(0.2))
    assert np.count_nonzero(parts == "val") == 2
    assert "nothing is left of the source's val part" in caplog.text


@pytest.mark.parametrize("seed", SEEDS)
def test_the_test_share_is_drawn_beside_the_sources_val_part(seed: int) -> None:
    of = replace(image_set([40, 25], [0, 0]), has_test=False)
    is_val = np.arange(65) % 2 == 0
    of = replace(of, is_val=is_val)
    parts, _ = assign_roles(of, random(0.1, seed))
    assert np.array_equal(parts == "val", is_val)
    rest = [int(np.count_nonzero(~is_val & (of.labels == label))) for label in (0, 1)]
    assert [np.count_nonzero((parts == "test") & (of.labels == label)) for label in (0, 1)] == [
        share(0.2, count) for count in rest
    ]


def test_whom_the_sources_val_part_shows_is_not_drawn_into_test() -> None:
    of = replace(image_set([40, 40], [0, 0]), has_test=False)
    is_val = np.arange(80) % 8 == 0
    subjects = tuple(("both",) if row % 8 < 2 else (f"p{row}",) for row in range(80))
    parts, _ = assign_roles(replace(of, is_val=is_val, subjects=subjects), random(0.1))
    shared = np.array([names == ("both",) for names in subjects])
    assert set(parts[shared & ~is_val]) == {"train"}
    assert np.count_nonzero(parts == "test") == 2 * share(0.2, 35)


def test_a_named_sample_of_the_sources_val_part_trains_and_changes_no_other_part(tmp_path: Path) -> None:
    of = replace(image_set([40, 25], [0, 0]), has_test=False)
    of = replace(of, is_val=np.arange(65) % 2 == 0)
    before = by_id(of, assign_roles(of, random(0.1))[0])
    after = by_id(of, assign_roles(of, ids_file(tmp_path, ["train/0/0"]))[0])
    assert {name for name in before if before[name] != after[name]} == {"train/0/0"}
    assert after["train/0/0"] == "train"
