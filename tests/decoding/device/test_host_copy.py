import torch

from padrec.decoding.device.host_copy import HostCopy


def test_values_of_all_types_and_shapes_arrive_together() -> None:
    tensors = [
        torch.tensor([[True, False, True]]),
        torch.tensor([7]),
        torch.tensor([[0.5], [torch.nan], [-torch.inf]]),
        torch.zeros(2, 0, dtype=torch.long),
        torch.tensor([1 / 3], dtype=torch.float64),
        torch.tensor([-(2**62), 2**62]),
    ]
    copy = HostCopy(tensors)
    for _ in range(2):
        copy.begin()
        expected = [tensor.clone() for tensor in tensors]
        for tensor in tensors:
            tensor.zero_()
        found = copy.values()
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    # What was returned stays as it was.
    copy.begin()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
