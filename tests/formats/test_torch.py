"""PyTorch modules in and out, and tensors as data; where PyTorch is installed."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import numpy as np
import pytest

import gpubp
from gpubp.data import check_split
from gpubp.data.dataset import check_inputs
from gpubp.data.inputs import Inputs, Scaling
from gpubp.errors import DataError, UsageError
from gpubp.functions import LOSSES
from gpubp.model import LOGITS, UNKNOWN, VALUES
from gpubp.network import Network
from gpubp.verification import bounds
from gpubp.verification.bounds import Precision
from gpubp.verification.compare import compare
from tests.networks import DTYPES, assert_same, bounded_outputs, spread, within

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "gpubp[torch]"')
nn = torch.nn

from gpubp.formats import torch as torch_format  # noqa: E402, it imports PyTorch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", torch_format._MODULES)
@pytest.mark.parametrize("hidden", [(), (17,), (9, 33, 12)])
def test_there_and_back_is_bitwise_and_outputs_keep_to_the_bound(dtype, activation, hidden, rng):
    for output in {activation, "softmax"}:
        net = spread(Network([23, *hidden, 6], hidden=activation, output=output, dtype=dtype, seed=4), rng)
        module = net.to_torch()
        assert_same(Network.from_torch(module), net)
        x = rng.standard_normal((50, 23)).astype(dtype)
        with torch.no_grad():
            got = module(torch.from_numpy(x)).numpy()
        assert got.dtype == dtype
        assert within(got, bounded_outputs(net, x))


def test_a_scaling_becomes_part_of_the_first_linear(rng):
    net = spread(Network([23, 9, 6], dtype="float64"), rng)
    x = rng.standard_normal((50, 23)) * 7 + 3
    net.inputs = Inputs("numbers", scaling=Scaling.of(x))
    np.testing.assert_allclose(
        net.to_torch()(torch.from_numpy(x)).detach().numpy(), net.forward(x), rtol=1e-9
    )


def test_parameters_are_copies_in_both_directions():
    net = Network([4, 3, 2], seed=0)
    module, kept = net.to_torch(), copy.deepcopy(net)
    with torch.no_grad():
        module[0].weight.zero_()
    assert_same(net, kept)
    back = Network.from_torch(module)
    with torch.no_grad():
        module[0].weight.fill_(5)
    assert not back.parameters[0][0].any()
    assert back.parameters[0][0].flags.writeable


@pytest.mark.parametrize("dtype", DTYPES)
def test_autograd_finds_the_gradients_that_gpubp_does(dtype, rng):
    net = Network([12, 9, 7, 4], hidden=["tanh", "leaky_relu"], dtype=dtype, seed=2)
    x, y = rng.standard_normal((40, 12)).astype(dtype), rng.integers(0, 4, 40)
    cost, gradients = gpubp.gradients(net, x, y, loss="cross_entropy", backend="numpy")
    module = net.to_torch()
    theirs = nn.functional.cross_entropy(module[:-1](torch.from_numpy(x)), torch.from_numpy(y))
    theirs.backward()
    linears = [part for part in module if isinstance(part, nn.Linear)]
    batch = x, np.eye(4)[y], np.ones(40)
    step = bounds.backpropagate(
        net.parameters, net.activations, LOSSES["cross_entropy"], *batch, Precision.of(dtype)
    )
    assert compare("cost", theirs.item(), step.cost).ok
    assert compare("cost", cost, step.cost).ok
    expected = zip(step.gradients[::2], step.gradients[1::2], strict=True)
    for linear, ours, bounds_of_layer in zip(linears, gradients, expected, strict=True):
        for tensor, our, bounded in zip((linear.weight, linear.bias), ours, bounds_of_layer, strict=True):
            assert compare("ours", our, bounded).ok
            assert compare("autograd's", tensor.grad.numpy(), bounded).ok


def test_modules_of_ones_own_making():
    module = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.Identity(), nn.ReLU()),
        nn.Linear(5, 4),
        nn.Linear(4, 4),
        nn.LeakyReLU(0.01),
        nn.Dropout(0.0),
        nn.Linear(4, 3),
        nn.Softmax(dim=-1),
    )
    net = Network.from_torch(module)
    assert net.sizes == [6, 5, 4, 4, 3]
    assert [layer.activation for layer in net.layers] == ["relu", "identity", "leaky_relu", "softmax"]
    assert not net.parameters[0][1].any()
    x = torch.randn(7, 2, 3)
    np.testing.assert_allclose(net.forward(x), module(x).detach(), atol=1e-6)
    bare = Network.from_torch(nn.Sequential(nn.Linear(3, 2)).double())
    assert repr(bare) == "Network(3-2: identity; 8 parameters, float64)"


def test_a_module_that_is_there_twice_counts_twice():
    relu = nn.ReLU()
    net = Network.from_torch(nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2)))
    assert [layer.activation for layer in net.layers] == ["relu", "relu", "identity"]


def test_dropout_is_left_out_with_a_word():
    with pytest.warns(UserWarning, match=r"Dropout\(p=0.5.*at place 1 is left out") as said:
        net = Network.from_torch(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), nn.ReLU(), nn.Linear(2, 2)))
    assert said[0].filename == __file__
    assert net.layers[0].activation == "relu"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.Linear(3, 2), "takes an nn.Sequential, not Linear"),
        (None, "takes an nn.Sequential, not NoneType"),
        (nn.Sequential(), "holds no Linear"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.GELU()),
            r"GELU\(.*\) at place 1 has no counterpart.*takes Linear",
        ),
        (nn.Sequential(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))), r"BatchNorm1d.* at place 0\.1"),
        (nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(0.2)), "at place 1: .*the slope 0.01"),
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=0)), "at place 1: .*dim=1"),
        (nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(dim=1)), "not their logarithms; put nn.Softmax"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), r"ReLU\(\) at place 0 has no Linear before it"),
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.ReLU()), "at place 2 has an activation before it"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten()), r"Flatten.* at place 1 has no counterpart"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.Linear(5, 2)),
            "at place 1 takes 5 inputs, the layer before gives",
        ),
        (nn.Sequential(nn.Linear(3, 2)).half(), r"at place 0 has torch\.float16 weights; .*\.float\(\)"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).double()), "several dtypes"),
    ],
)
def test_what_is_no_network_is_refused_by_name_and_place(module, says):
    with pytest.raises(UsageError, match=says):
        Network.from_torch(module)


def test_an_activation_that_torch_has_no_module_for_is_named(monkeypatch):
    monkeypatch.delitem(torch_format._MODULES, "tanh")
    with pytest.raises(UsageError, match="to_torch has no module for the activation 'tanh'"):
        Network([4, 5, 3], hidden="tanh").to_torch()


def test_lecun_tanh_can_be_saved_by_pytorch():
    module = Network([4, 3], output="lecun_tanh").to_torch()
    assert_same(Network.from_torch(pickle.loads(pickle.dumps(module))), Network.from_torch(module))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_tensors_are_read_where_they_lie(dtype):
    x = (torch.rand(6, 4) * 99).to(dtype)
    split = check_split(x, torch.arange(6))
    assert np.shares_memory(split.inputs, x.numpy())
    assert split.targets.tolist() == list(range(6))


def test_tensors_that_require_a_gradient_or_are_strided_are_taken():
    x = torch.rand(6, 4, requires_grad=True)
    assert np.shares_memory(check_inputs(x), x.detach().numpy())
    np.testing.assert_array_equal(check_inputs(x.T[::2]), x.detach().numpy().T[::2])


def test_tensors_that_numpy_cannot_read_say_why():
    with pytest.raises(DataError, match=r"data: the inputs .*bfloat16 is not NumPy's, convert it to float32"):
        check_inputs(torch.zeros(3, 2, dtype=torch.bfloat16))
    with pytest.raises(DataError, match=r"data: the inputs .*[sS]parse"):
        check_inputs(torch.eye(3).to_sparse())
    with pytest.raises(DataError, match="data: the inputs"):
        check_inputs(torch.zeros(3, 2, device="meta"))


@pytest.mark.parametrize(("outputs", "meaning"), [("logits", LOGITS), ("values", VALUES), (None, UNKNOWN)])
def test_a_module_that_ends_in_a_linear_is_told_what_it_gives(outputs, meaning, rng):
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with nullcontext() if outputs else pytest.warns(UserWarning, match="ends in a Linear.*outputs='logits'"):
        net = Network.from_torch(module, outputs=outputs)
    assert net.meaning == meaning
    x = torch.from_numpy(rng.standard_normal((20, 4)).astype(np.float32))
    with torch.no_grad():
        logits = module(x)
    if outputs == "logits":
        assert net.predict(x).tolist() == logits.argmax(dim=1).tolist()
        np.testing.assert_allclose(net.predict_proba(x), logits.softmax(dim=1).numpy(), rtol=1e-5)
    else:
        np.testing.assert_allclose(net.predict(x), logits.numpy(), rtol=1e-5, atol=1e-6)


def test_outputs_that_a_module_does_not_give_are_refused():
    with pytest.raises(UsageError, match="ends in softmax, so that its outputs are no logits"):
        Network.from_torch(nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)), outputs="logits")
    with pytest.raises(UsageError, match="'logits' or 'values', not 'classes'"):
        Network.from_torch(nn.Sequential(nn.Linear(4, 3)), outputs="classes")
