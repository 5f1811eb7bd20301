"""What holds for the tests of the losses."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """What is computed here is too small to be shared out; on a busy machine threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
