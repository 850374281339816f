"""Adam (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1) on one flat tensor.

The numbers are those of ``torch.optim.Adam`` with ``fused=True``, bit for bit. The first optimiser of ``torch.optim``
in a process imports torch's compiler, which takes two seconds and is not needed here.
"""

import torch
from torch import nn

from dae.torch_private import adam_step

BETAS, EPS = (0.9, 0.999), 1e-8


def flatten(model: nn.Module) -> nn.Parameter:
    """Make all parameters of a model, and their gradients, views of one tensor, which is returned.

    Weights of convolutions are channels last in it: (out or latent channels, height, width, in or image channels).
    """
    parameters = list(model.parameters())
    flat = nn.Parameter(torch.empty(sum(p.numel() for p in parameters), device=parameters[0].device))
    flat.grad = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        value = parameter.data
        views = [part[start : start + value.numel()] for part in (flat.data, flat.grad)]
        if value.dim() == 4:
            o, i, h, w = value.shape
            views = [view.view(o, h, w, i).permute(0, 3, 1, 2) for view in views]
        else:
            views = [view.view(value.shape) for view in views]
        parameter.data, parameter.grad = views
        parameter.data.copy_(value)
        start += value.numel()
    return flat


class Adam:
    """The optimiser of one parameter.

    Args:
        parameter: changed by every step; has a gradient.
        lr: the learning rate.

    Attributes:
        moments: ``step`` (number of steps taken), ``exp_avg`` and ``exp_avg_sq``, on the parameter's device; named as
            in the state of ``torch.optim.Adam``.
    """

    def __init__(self, parameter: nn.Parameter, lr: float) -> None:
        self.parameter, self.lr = parameter, lr
        self.moments = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter.data),
            "exp_avg_sq": torch.zeros_like(parameter.data),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the parameter's gradient."""
        step, average, squares = self.moments.values()
        adam_step(self.parameter, average, squares, step, lr=self.lr, beta1=BETAS[0], beta2=BETAS[1], eps=EPS)
