import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcad.shared.models.memory_format import channels_innermost


@given(st.tuples(*[st.integers(1, 5)] * 4))
def test_shape_and_values_stay_and_channels_are_innermost(shape):
    x = torch.rand(shape)
    y = channels_innermost(x)
    assert torch.equal(x, y)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_map_already_in_this_order_is_not_copied():
    x = channels_innermost(torch.rand(2, 3, 4, 4))
    assert channels_innermost(x).data_ptr() == x.data_ptr()


def test_gradient_passes_unchanged():
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    weights = torch.rand(2, 3, 4, 4)
    (channels_innermost(x) * weights).sum().backward()
    assert torch.equal(x.grad, weights)
