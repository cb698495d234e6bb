import pytest
import torch

from experiments.speed.setting import Setting, backbone_of, large_catalog, past_bytes, read_bytes
from padrec import InputError


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting.build("2x128", torch.device("cpu"), torch.float32, seed=0)


def test_a_shape_names_the_sizes_of_a_model() -> None:
    by_rule = backbone_of("28x1024")
    assert (by_rule["num_hidden_layers"], by_rule["hidden_size"], by_rule["intermediate_size"]) == (28, 1024, 3072)
    assert (by_rule["num_attention_heads"], by_rule["num_key_value_heads"], by_rule["head_dim"]) == (16, 8, 64)
    assert backbone_of("32x4096")["intermediate_size"] == 11008


@pytest.mark.parametrize("shape", ["28", "x1024", "0x1024", "28x1000", "28x0", "28×1024", "axb"])
def test_what_is_no_shape_is_refused(shape: str) -> None:
    with pytest.raises(InputError, match="expected LAYERSxWIDTH"):
        backbone_of(shape)


def test_a_pass_reads_all_weights_but_the_embedding(setting: Setting) -> None:
    model = setting.runner.model
    n_all, n_embedding = sum(weight.numel() for weight in model.parameters()), setting.vocabulary.size * 128
    assert setting.vocabulary.size == 1200
    assert read_bytes(model) == 4 * (n_all - n_embedding)
    assert past_bytes(model, batch=3, prefix=10) == 3 * 10 * 2 * 2 * 64 * 4  # keys and values, 2 layers, 1 head


def test_prompts_have_the_length_that_is_asked_for(setting: Setting) -> None:
    prompts = setting.prompts(3, 13)
    assert prompts.tokens.shape == prompts.slots.shape == (3, 13)
    assert prompts.tokens[:, 0].tolist() == [setting.vocabulary.bos_token] * 3
    assert prompts.slots[0].tolist() == [5, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_trees_have_every_parent_before_its_children(setting: Setting) -> None:
    tree = setting.tree(2, 9)
    assert tree.tokens.shape == (2, 9)
    assert (tree.parents[:, 1:] < torch.arange(1, 9)).all()
    assert tree.depths.amax() < 9


def test_items_of_the_large_catalog_differ() -> None:
    catalog, vocabulary = large_catalog(5000, seed=1)
    assert catalog.n_items == catalog.n_leaves == 5000
    assert vocabulary.codebook_sizes == (299,) * 4
