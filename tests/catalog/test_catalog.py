import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import Catalog, InputError


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Few codes, so that many items share a leaf."""
    n_slots = draw(st.integers(1, 3))
    item = st.tuples(*[st.integers(0, 3)] * n_slots)
    items = draw(st.lists(item, min_size=1, max_size=20))
    return Catalog(torch.tensor(items), [f"item {index}" for index in range(len(items))])


def leaves_of(catalog: Catalog) -> dict[tuple[int, ...], list[int]]:
    """Items of every semantic ID, in the order of the codes."""
    leaves: dict[tuple[int, ...], list[int]] = {}
    for item, codes in enumerate(catalog.codes.tolist()):
        leaves.setdefault(tuple(codes), []).append(item)
    return dict(sorted(leaves.items()))


@given(catalog=catalogs())
def test_items_that_share_a_semantic_id_are_one_leaf(catalog: Catalog) -> None:
    leaves = leaves_of(catalog)
    assert catalog.n_leaves == len(leaves)
    assert catalog.leaf_codes.tolist() == [list(codes) for codes in leaves]
    assert catalog.leaf_sizes.tolist() == [len(items) for items in leaves.values()]
    assert [catalog.leaf_items(leaf) for leaf in range(len(leaves))] == list(leaves.values())
    order = list(leaves)
    assert catalog.leaf_of_item.tolist() == [order.index(tuple(codes)) for codes in catalog.codes.tolist()]


@given(catalog=catalogs(), data=st.data())
def test_leaf_of_codes_equals_a_lookup_in_a_dict(catalog: Catalog, data: st.DataObject) -> None:
    leaf_of = {codes: leaf for leaf, codes in enumerate(leaves_of(catalog))}
    wanted = st.one_of(
        st.sampled_from([tuple(codes) for codes in catalog.codes.tolist()]),
        st.tuples(*[st.integers(-2, 6)] * catalog.n_slots),
    )
    codes = data.draw(st.lists(wanted, min_size=1, max_size=12))
    expected = [leaf_of.get(item, -1) for item in codes]
    leaves = catalog.leaf_of_codes(torch.tensor(codes))
    assert leaves.dtype == torch.int64
    assert leaves.tolist() == expected
    shaped = torch.tensor(codes, dtype=torch.int32)[None, :, None]
    assert catalog.leaf_of_codes(shaped).tolist() == [[[leaf] for leaf in expected]]


def test_codes_far_outside_the_catalog_belong_to_no_item() -> None:
    catalog = Catalog(torch.tensor([[0, 1], [1, 0]]), ["a", "b"])
    wild = torch.tensor([[2**40, 0], [0, -(2**40)], [0, 2**62], [0, 1]])
    assert catalog.leaf_of_codes(wild).tolist() == [-1, -1, -1, 0]


def test_leaves_are_found_where_their_codes_fill_more_than_one_number() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2**31, (200, 5), generator=generator)
    codes[100:, :3] = codes[:100, :3]  # prefixes that are shared
    catalog = Catalog(codes, [str(item) for item in range(200)])
    assert torch.equal(catalog.leaf_of_codes(codes), catalog.leaf_of_item)
    for slot in range(5):
        others = codes.clone()
        others[:, slot] = (others[:, slot] + 1) % 2**31
        assert (catalog.leaf_of_codes(others) == -1).all()


@given(catalog=catalogs())
def test_codebooks_reach_to_the_largest_code(catalog: Catalog) -> None:
    assert catalog.codebook_sizes == tuple(max(slot) + 1 for slot in zip(*catalog.codes.tolist(), strict=True))
    assert (catalog.n_items, catalog.n_slots) == tuple(catalog.codes.shape)


def test_items_are_found_by_their_keys() -> None:
    catalog = Catalog(torch.tensor([[1], [0], [1]]), ["x", "y", "z"], texts=["X", "Y", "Z"], source="shop.json")
    assert [catalog.index(key) for key in ("z", "x", "y")] == [2, 0, 1]
    assert (catalog.keys, catalog.texts) == (("x", "y", "z"), ("X", "Y", "Z"))
    with pytest.raises(InputError, match=r"^item 'w' is not among the 3 items of shop.json$"):
        catalog.index("w")


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (3,)])
def test_a_catalog_without_items_or_slots_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^shop: codes of shape .* expected \[items, slots\], neither 0$"):
        Catalog(torch.zeros(shape, dtype=torch.int64), ["x"] * shape[0], source="shop")


def test_lists_of_another_length_are_refused() -> None:
    codes = torch.tensor([[0], [1]])
    with pytest.raises(InputError, match=r"^shop: 1 keys for 2 items, expected one for each$"):
        Catalog(codes, ["x"], source="shop")
    with pytest.raises(InputError, match=r"^shop: 3 texts for 2 items, expected one for each$"):
        Catalog(codes, ["x", "y"], ["X", "Y", "Z"], source="shop")


def test_a_duplicate_key_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^shop: item key 'y' occurs twice, expected every key once$"):
        Catalog(torch.tensor([[0], [1], [2], [0]]), ["x", "y", "y", "x"], source="shop")


@pytest.mark.parametrize("code", [-1, 2**31, 2**32])
def test_a_code_out_of_range_is_refused_with_its_item(code: int) -> None:
    message = rf"^shop: item 'y' has the codes \[0, {code}\], expected codes from 0 to 2147483647$"
    with pytest.raises(InputError, match=message):
        Catalog(torch.tensor([[0, 0], [0, code]]), ["x", "y"], source="shop")


def test_a_catalog_that_adds_and_removes_items_has_the_same_ids() -> None:
    known = Catalog(torch.tensor([[0, 1], [2, 3], [4, 5]]), ["a", "b", "c"])
    Catalog(torch.tensor([[4, 5], [9, 9], [0, 1]]), ["c", "new", "a"]).check_ids(known, "the target")
    known.check_ids(Catalog(known.codes.clone(), known.keys), "the target")


@pytest.mark.parametrize(
    ("codes", "keys", "message"),
    [
        ([[0, 1], [3, 2], [5, 5]], ["a", "b", "new"], r"the target: 1 of 2 items .*'b', \[3, 2\] and not \[2, 3\]"),
        ([[0, 1], [2, 3]], ["b", "a"], "the target: 2 of 2 items have other semantic IDs in catalog"),
        ([[0, 1], [2, 3]], ["x", "y"], "the target: none of its 3 items, such as 'a', is in catalog"),
    ],
)
def test_other_ids_of_the_same_items_are_refused(codes: list[list[int]], keys: list[str], message: str) -> None:
    known = Catalog(torch.tensor([[0, 1], [2, 3], [4, 5]]), ["a", "b", "c"])
    with pytest.raises(InputError, match=message):
        Catalog(torch.tensor(codes), keys).check_ids(known, "the target")
