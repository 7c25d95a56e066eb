import torch

x = torch.ones(8, 8, device="cuda")
y = x @ x


def inner(size):
    return torch.ones(size, device="cuda") @ x


def outer():
    return inner(3)


outer()
