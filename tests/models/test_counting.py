"""Counting passes: every call of the network, and each way that autograd takes through it, counted once."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from tdabench.methods.view import View
from tdabench.models.counting import Passes
from tdabench.models.denoiser import Denoiser

from .. import tiny

# torch's own forward-mode rules are torchscript, whose use it warns of
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ITEMS, DRAWS = 3, 2
N = ITEMS * DRAWS
T = torch.tensor(300)


def counted(model: Denoiser) -> tuple[int, int]:
    return model.passes.forward, model.passes.backward


class Case:
    """A model in float64 with N images, functions of its weights, and directions among the weights."""

    def __init__(self):
        self.model = tiny.denoiser().double()
        self.weights = {name: value.detach() for name, value in self.model.named_parameters()}
        self.x = tiny.images(N).double()
        self.items = self.x.view(ITEMS, DRAWS, *tiny.SHAPE)

    def direction(self, seed: int = 0, *batch: int) -> dict[str, torch.Tensor]:
        stream = tiny.generator(seed)
        return {n: torch.randn(*batch, *v.shape, generator=stream).double() for n, v in self.weights.items()}

    def output(self, weights, x):
        return functional_call(self.model, weights, (x, T))

    def loss(self, weights, x):
        return self.output(weights, x).square().mean()

    def tangent(self, weights, x, direction):
        return jvp(lambda w: self.loss(w, x), (weights,), (direction,))[1]

    def gradient(self, weights, x):
        return grad(self.loss)(weights, x)

    def slope(self, weights, x, direction):
        """Return the loss's slope in a direction, as the product of its gradient with it."""
        return dot(self.gradient(weights, x), direction)


def dot(one, other):
    return sum((one[name] * other[name]).sum() for name in one)


def twice_backward(case, direction, value):
    weights = {name: value.clone().requires_grad_() for name, value in case.weights.items()}
    first = torch.autograd.grad(value(weights), list(weights.values()), create_graph=True)
    slope = dot(dict(zip(weights, first, strict=True)), direction)
    second = torch.autograd.grad(slope, list(weights.values()), materialize_grads=True)
    return dict(zip(weights, second, strict=True))


# what the network's callers do


RAW = {
    "output": lambda net, x: net(x, T).sample,
    "tuple": lambda net, x: net(x, T, return_dict=False)[0],
    "functional_call": lambda net, x: functional_call(net, dict(net.named_parameters()), (x, T)).sample,
}


@pytest.mark.parametrize("call", RAW.values(), ids=RAW)
def test_calls_of_the_raw_network_are_counted(call):
    model = tiny.denoiser()
    out = call(model.net, tiny.images(N))
    assert counted(model) == (N, 0)
    out.mean().backward()
    assert counted(model) == (N, N)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_calls_of_the_raw_network_are_counted_without_gradients(mode):
    model = tiny.denoiser()
    with mode():
        model.net(tiny.images(N), T)
    assert counted(model) == (N, 0)


def test_networks_that_return_tensors_are_counted():
    net = nn.Conv2d(1, 1, 1)
    model = Denoiser(net, tiny.denoiser().process)
    net(tiny.images(N)).sum().backward()
    assert counted(model) == (N, N)


def test_a_counted_network_returns_what_diffusers_does():
    model, x = tiny.denoiser(), tiny.images(N)
    found, expected = model.net(x, T), plain(model.net)(x, T)
    assert type(found) is type(expected) and found.keys() == expected.keys()
    assert torch.equal(found.sample, expected.sample) and found[0] is found["sample"] is found.sample


def plain(net: UNet2DModel) -> UNet2DModel:
    """Return a network that never was counted, with the weights of one that is."""
    twin = UNet2DModel(**tiny.UNET).eval()
    twin.load_state_dict(net.state_dict())
    return twin


@pytest.mark.parametrize("scalar", [lambda out: out.square().mean(), lambda out: out.mean()], ids=["square", "mean"])
def test_counting_changes_no_bit_of_a_gradient(scalar):
    model, x = tiny.denoiser(), tiny.images(N)
    twin = plain(model.net)
    scalar(model(x, T)).backward()
    scalar(twin(x, T).sample).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_counted_output_may_be_changed_in_place():
    model, x = tiny.denoiser(), tiny.images(N)
    out = model.net(x, T).sample
    out -= x
    out.square().mean().backward()
    assert counted(model) == (N, N)


def test_counting_adds_nothing_to_the_state():
    assert tiny.denoiser().net.state_dict().keys() == UNet2DModel(**tiny.UNET).state_dict().keys()


# what autograd does


def test_a_tangent_is_one_more_forward_pass():
    case = Case()
    v, u = case.direction(), torch.randn(case.x.shape, generator=tiny.generator(1)).double()
    value, tangent = jvp(lambda w: case.output(w, case.x), (case.weights,), (v,))
    assert counted(case.model) == (2 * N, 0)
    assert torch.equal(value, case.output(case.weights, case.x))
    pulled = grad(lambda w: (case.output(w, case.x) * u).sum())(case.weights)
    torch.testing.assert_close((tangent * u).sum(), dot(pulled, v))


def test_dual_numbers_are_counted_as_jvp_is():
    from torch.autograd import forward_ad

    case, v = Case(), Case().direction()
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(value, v[name]) for name, value in case.weights.items()}
        tangent = forward_ad.unpack_dual(case.loss(dual, case.x)).tangent
    assert counted(case.model) == (2 * N, 0)
    torch.testing.assert_close(tangent, case.tangent(case.weights, case.x, v))


# By hand, in sweeps of N images. A tangent is a sweep forward, a gradient one backward, and whatever is derived from a
# sweep sweeps once more: jvp in the same way, grad in the other. Under vmap over k directions only what depends on the
# direction is repeated.
SWEEPS = {
    "vmap(grad) over items": (1, 1, lambda c, v: vmap(c.gradient, (None, 0))(c.weights, c.items)),
    "vmap(jvp) over items": (2, 0, lambda c, v: vmap(c.tangent, (None, 0, None))(c.weights, c.items, v)),
    "vmap(jvp) over 5 directions": (
        1 + 5,
        0,
        lambda c, v: vmap(c.tangent, (None, None, 0))(c.weights, c.x, c.direction(1, 5)),
    ),
    "jvp(vmap(grad))": (
        2,
        2,
        lambda c, v: jvp(lambda w: vmap(c.gradient, (None, 0))(w, c.items), (c.weights,), (v,)),
    ),
    "vmap(jvp(grad)) over items": (
        2,
        2,
        lambda c, v: vmap(lambda x: jvp(lambda w: c.gradient(w, x), (c.weights,), (v,)))(c.items),
    ),
    "vmap(jvp(grad)) over 5 directions": (
        1 + 5,
        1 + 5,
        lambda c, v: vmap(lambda v: jvp(lambda w: c.gradient(w, c.x), (c.weights,), (v,))[1])(c.direction(1, 5)),
    ),
    "jvp(jvp)": (4, 0, lambda c, v: jvp(lambda w: c.tangent(w, c.x, v), (c.weights,), (v,))),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_transforms_are_counted(name):
    case = Case()
    forward, backward, call = SWEEPS[name]
    call(case, case.direction())
    assert counted(case.model) == (forward * N, backward * N)


HESSIAN = {
    "jvp(grad)": lambda c, v: jvp(lambda w: c.gradient(w, c.x), (c.weights,), (v,))[1],
    "grad(jvp)": lambda c, v: grad(lambda w: c.tangent(w, c.x, v))(c.weights),
    "grad(grad)": lambda c, v: grad(lambda w: c.slope(w, c.x, v))(c.weights),
    "double backward": lambda c, v: twice_backward(c, v, lambda w: c.loss(w, c.x)),
}


@pytest.mark.parametrize("name", HESSIAN)
def test_a_hessian_vector_product_is_two_passes_of_each_in_any_mode(name):
    case, v = Case(), Case().direction()
    found = HESSIAN[name](case, v)
    assert counted(case.model) == (2 * N, 2 * N)
    far, near = (case.gradient({n: w + step * v[n] for n, w in case.weights.items()}, case.x) for step in (1e-6, -1e-6))
    finite = torch.cat([(far[n] - near[n]).flatten() / 2e-6 for n in v])
    tiny.assert_near(torch.cat([found[n].detach().flatten() for n in v]), finite, 1e-6)


def test_second_derivatives_of_what_is_linear_in_the_output_are_not_counted():
    case = Case()
    twice_backward(case, case.direction(), lambda w: case.output(w, case.x).mean())
    assert counted(case.model) == (N, N)


def test_every_sweep_over_a_kept_graph_is_counted():
    model = tiny.denoiser()
    loss = model(tiny.images(N), T).mean()
    loss.backward(retain_graph=True)
    loss.backward()
    assert counted(model) == (N, 2 * N)


def test_batched_gradients_are_counted():
    model = tiny.denoiser()
    out = model(tiny.images(N), T)
    weight = model.net.conv_out.weight
    torch.autograd.grad(out, weight, torch.randn(5, *out.shape, generator=tiny.generator()), is_grads_batched=True)
    assert counted(model) == (N, 5 * N)


# copies


COPIES = {
    "model": copy.deepcopy,
    "clone": lambda model: model.clone(),
    "network": lambda model: Denoiser(copy.deepcopy(model.net), model.process),
    "copy of a copy": lambda model: copy.deepcopy(model.clone()),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_count_into_the_same_passes_once(copied):
    model, x = tiny.denoiser(), tiny.images(N)
    twin = copied(model)
    assert twin.passes is model.passes
    twin(x, T).mean().backward()
    assert counted(model) == (N, N)
    twin.net(x, T)
    model.net(x, T)
    assert counted(model) == (3 * N, N)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_can_be_given_passes_of_its_own(copied):
    model, x = tiny.denoiser(), tiny.images(N)
    twin = copied(model)
    twin.passes = Passes()
    twin.net(x, T)
    assert counted(twin) == (N, 0) and counted(model) == (0, 0)


def test_a_copied_network_is_counted_on_its_own():
    model = tiny.denoiser()
    copy.deepcopy(model.net)(tiny.images(N), T)
    assert counted(model) == (N, 0)


class Wrapper(nn.Module):
    """A network around another."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)


@pytest.mark.parametrize("wrap", [lambda net: net, Wrapper], ids=["itself", "wrapped"])
def test_a_denoiser_around_a_counted_network_counts_once(wrap):
    model = tiny.denoiser()
    other = Denoiser(wrap(model.net), model.process)
    assert other.passes is model.passes
    other(tiny.images(N), T)
    assert counted(model) == (N, 0)
    model.passes = Passes()
    assert other.passes is model.passes


def test_denoisers_built_apart_count_apart():
    one, other = tiny.denoiser(), tiny.denoiser()
    one.net(tiny.images(N), T)
    assert counted(one) == (N, 0) and counted(other) == (0, 0)


def test_a_view_counts_what_its_models_do_by_hand(tiny_problem, tmp_path):
    view = View(tiny_problem, tmp_path, passes=tiny.LargestPass())
    view.model().net(tiny.images(N), T)
    copy.deepcopy(view.model("untrained")).net(tiny.images(2), T)
    assert (view.passes.forward, view.passes.backward, view.passes.largest) == (N + 2, 0, N)
