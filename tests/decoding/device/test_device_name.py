import torch

from padrec.decoding.device.device_name import device_name


def test_the_name_says_what_ran() -> None:
    threads = torch.get_num_threads()
    assert f"({threads} thread" in device_name(torch.device("cpu"))
    assert device_name(torch.device("meta")) == "meta"
