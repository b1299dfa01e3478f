"""Meta-gradients against an implementation that shares no code: an explicit loop with torch.autograd."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from optaware.records import GradientHarmonization, ModelRef
from optaware.train.methods.gradient_harmonization import Adam, combine, make_aggregator, make_network, task_gradients


def plain_logits(params, images, blocks):
    """The published network, written with PyTorch's own batch norm and convolution."""
    maps = images.permute(0, 3, 1, 2)
    for index in range(blocks):
        maps = F.conv2d(maps, params[f"{index}.weight"], stride=2, padding=1)
        maps = F.batch_norm(
            maps, None, None, params[f"{index}.scale"], params[f"{index}.shift"], training=True, eps=1e-5
        ).relu()
    return F.linear(maps.mean((2, 3)), params["head.weight"].T, params["head.bias"])


def plain_meta_gradient(params, task, inner, lr, steps):
    """Meta-gradient of one task by torch.autograd alone."""
    sx, sy, qx, qy = task
    theta = {name: value.clone().requires_grad_() for name, value in params.items()}
    if inner == "reptile":
        sx, sy = torch.cat([sx, qx]), torch.cat([sy, qy])
    fast = dict(theta)
    for _ in range(steps):
        names = [name for name in fast if inner != "anil" or name.startswith("head")]
        loss = F.cross_entropy(plain_logits(fast, sx, 4), sy)
        slopes = torch.autograd.grad(loss, [fast[name] for name in names], create_graph=inner in ("maml", "anil"))
        fast = {**fast, **{name: fast[name] - lr * slope for name, slope in zip(names, slopes, strict=True)}}
    if inner == "reptile":
        return {name: (theta[name] - fast[name]).detach() / (lr * steps) for name in theta}
    loss = F.cross_entropy(plain_logits(fast, qx, 4), qy)
    at = fast if inner == "fomaml" else theta
    return dict(zip(theta, torch.autograd.grad(loss, [at[name] for name in theta]), strict=True))


@pytest.fixture(scope="module")
def tasks():
    source = torch.Generator().manual_seed(3)
    support = torch.rand(3, 6, 12, 12, 1, generator=source, dtype=torch.float64)
    query = torch.rand(3, 9, 12, 12, 1, generator=source, dtype=torch.float64)
    labels = torch.arange(3).repeat_interleave(2).expand(3, -1), torch.arange(3).repeat_interleave(3).expand(3, -1)
    return support, labels[0], query, labels[1]


@pytest.fixture(scope="module")
def network():
    return make_network(ModelRef(name="conv4-5", dtype="fp32"), 1, 12, 3)


@pytest.fixture(scope="module")
def params(network):
    return network.init(1, torch.float64)


@pytest.mark.parametrize("inner", ["maml", "fomaml", "anil", "reptile"])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradients_agree_with_an_independent_implementation(network, params, tasks, inner, steps):
    found, _ = task_gradients(network, inner, lr=0.4, steps=steps)(params, *tasks)
    for index in range(3):
        wanted = plain_meta_gradient(params, [part[index] for part in tasks], inner, 0.4, steps)
        for name in params:
            torch.testing.assert_close(found[name][index], wanted[name], rtol=1e-5, atol=1e-9)


def test_first_and_second_order_differ(network, params, tasks):
    second, _ = task_gradients(network, "maml", lr=0.4, steps=1)(params, *tasks)
    first, _ = task_gradients(network, "fomaml", lr=0.4, steps=1)(params, *tasks)
    assert (second["1.weight"] - first["1.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_loop_chunks_and_vmap_agree(network, params, tasks, chunk):
    one, losses = task_gradients(network, "maml", lr=0.4, steps=2, chunk=chunk)(params, *tasks)
    other, other_losses = task_gradients(network, "maml", lr=0.4, steps=2, vmapped=False)(params, *tasks)
    torch.testing.assert_close(losses, other_losses)
    for name in params:
        torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("size", [12, 7])
def test_convolution_by_patches_is_the_convolution(network, params, size):
    """What a GPU computes equals what the CPU computes, also at odd sizes."""
    images = torch.rand(4, size, size, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unfolded = replace(network, unfolded=True)
    torch.testing.assert_close(unfolded(params, images), network(params, images))


def test_patches_give_the_same_meta_gradient(network, params, tasks):
    one, _ = task_gradients(network, "maml", lr=0.4, steps=1)(params, *tasks)
    other, _ = task_gradients(replace(network, unfolded=True), "maml", lr=0.4, steps=1)(params, *tasks)
    for name in params:
        torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("groups", ["global", "layer", "tensor"])
def test_without_attention_or_at_share_one_the_update_is_the_mean(network, params, tasks, groups):
    gradients, _ = task_gradients(network, "fomaml", lr=0.4, steps=1)(params, *tasks)
    for changes, share in (({"attention": "uniform"}, 0.0), ({"score": "cosine", "temperature": 0.1}, 1.0)):
        method = GradientHarmonization(groups=groups, **changes)
        found, figures = combine(gradients, method, make_aggregator(method), torch.tensor(share))
        for name in params:
            torch.testing.assert_close(found[name], gradients[name].mean(0))
        torch.testing.assert_close(figures[2:4], figures[:2])


def test_rescaling_keeps_the_norm_of_the_mean_in_every_group(network, params, tasks):
    gradients, _ = task_gradients(network, "fomaml", lr=0.4, steps=1)(params, *tasks)
    method = GradientHarmonization(score="cosine", temperature=0.1, rescale=True, groups="tensor")
    found, _ = combine(gradients, method, make_aggregator(method), torch.tensor(0.0))
    for name in params:
        torch.testing.assert_close(found[name].norm(), gradients[name].mean(0).norm())
    bare = method.model_copy(update={"rescale": False})
    other, _ = combine(gradients, bare, make_aggregator(bare), torch.tensor(0.0))
    assert (other["0.weight"].norm() / found["0.weight"].norm() - 1).abs() > 1e-3


def test_adam_is_that_of_torch_and_leaves_out_updates_that_are_not_finite():
    start = torch.tensor([0.5, -2.0])
    ours, theirs = {"w": start.clone()}, torch.nn.Parameter(start.clone())
    adam, reference = Adam(ours), torch.optim.Adam([theirs], lr=0.1)
    for gradient in ([1.0, -3.0], [float("nan"), 1.0], [0.2, 4.0]):
        made, _ = adam.step({"w": torch.tensor(gradient)}, torch.tensor(0.1))
        assert bool(made) == (gradient[0] == gradient[0])
        if made:
            theirs.grad = torch.tensor(gradient)
            reference.step()
    torch.testing.assert_close(ours["w"], theirs.detach())
