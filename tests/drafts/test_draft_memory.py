import torch

from padrec.decoding import Observation
from padrec.drafts.draft_memory import DraftMemory


def test_what_the_target_kept_is_remembered() -> None:
    features = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    path = torch.tensor([[0, 2], [0, 3]])
    tokens, slots, count = torch.tensor([[7, 8], [9, 5]]), torch.tensor([[0, 1], [1, 2]]), torch.tensor([2, 1])
    memory = DraftMemory(torch.zeros(2, 1, 3), 2, 3)
    addresses = [x.data_ptr() for x in memory.kept]
    memory.remember(Observation(path, tokens, slots, count, features))
    for row in range(2):
        for place, node in enumerate(path[row].tolist()):
            assert memory.kept.features[row, place].tolist() == features[row, node].tolist()
    assert torch.equal(memory.kept.tokens, tokens)
    assert torch.equal(memory.kept.slots, slots)
    assert torch.equal(memory.kept.valid, count)
    assert [x.data_ptr() for x in memory.kept] == addresses


def test_the_last_output_that_counts_is_the_roots() -> None:
    output = torch.arange(3 * 4 * 2.0).view(3, 4, 2)
    memory = DraftMemory(torch.zeros(3, 1, 2), 4, 2)
    memory.root.fill_(-1)
    memory.lengths.copy_(torch.tensor([5, 6, 7]))
    memory.move_on(output, torch.tensor([4, 0, 1]))
    assert memory.root[:, 0].tolist() == [output[0, 3].tolist(), [-1, -1], output[2, 0].tolist()]
    assert memory.lengths.tolist() == [9, 6, 8]
